//! What a person calls an image.

use policy::Reference;

use super::records::TagName;
use crate::digest::Digest;
use crate::name::Repository;

/// An image by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// `nginx:1.27`; without a tag, `latest`.
    Tag(TagName),
    /// `nginx@sha256:…`.
    InRepository(Repository, Digest),
    /// `sha256:…`, wherever it belongs.
    Digest(Digest),
}

impl Named {
    /// Reads `NAME`, `NAME@DIGEST` or `DIGEST`.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(name: &str) -> Result<Self, String> {
        if let Ok(digest) = name.parse::<Digest>() {
            return Ok(Self::Digest(digest));
        }
        let reference = Reference::parse(name).map_err(|error| error.to_string())?;
        let repository = Repository::new(reference.domain(), reference.repository())
            .map_err(|error| error.to_string())?;
        if let Some(digest) = reference.digest() {
            let digest = digest
                .parse::<Digest>()
                .map_err(|error| error.to_string())?;
            return Ok(Self::InRepository(repository, digest));
        }
        let tag = reference.tag().unwrap_or("latest").to_owned();
        Ok(Self::Tag(TagName { repository, tag }))
    }

    /// What it is pinned by.
    pub fn key(&self) -> String {
        match self {
            Self::Tag(tag) => tag.to_string(),
            Self::InRepository(repository, digest) => format!("{repository}@{digest}"),
            Self::Digest(digest) => digest.to_string(),
        }
    }
}
