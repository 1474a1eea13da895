//! What one entry of the index says.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::manifest::{Child, Kind, Parsed};
use crate::name::Repository;

/// A blob that is in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its length in bytes.
    pub size: u64,
    /// What it is.
    pub kind: Kind,
    /// A manifest's media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What a manifest refers to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Child>,
    /// What a manifest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
}

impl Object {
    pub(super) fn new(size: u64, manifest: Option<&Parsed>) -> Self {
        Self {
            size,
            kind: manifest.map_or(Kind::Blob, |_| Kind::Manifest),
            media_type: manifest.map(|parsed| parsed.media_type.clone()),
            children: manifest.map_or_else(Vec::new, |parsed| parsed.children.clone()),
            subject: manifest.and_then(|parsed| parsed.subject.clone()),
        }
    }
}

/// A tag of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagName {
    /// Where.
    pub repository: Repository,
    /// Which.
    pub tag: String,
}

impl TagName {
    pub(super) fn key(&self) -> String {
        self.to_string()
    }

    pub(super) fn from_key(key: &str) -> Option<Self> {
        let (name, tag) = key.rsplit_once(':')?;
        let (host, path) = name.split_once('/')?;
        Some(Self {
            repository: Repository::new(host, path).ok()?,
            tag: tag.to_owned(),
        })
    }
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

/// What a tag means. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// The manifest that it names.
    pub digest: Digest,
    /// The place that it came from, without credentials.
    pub place: String,
    /// When that place, or another one with the same digest, confirmed it last.
    pub validated_at: u64,
    /// Since when its place has been silent, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_since: Option<u64>,
    /// It was imported from a file, not pulled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imported: bool,
}

/// That an object belongs to a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// As what.
    pub kind: Kind,
    /// Where it came from, without credentials.
    pub place: String,
    /// It was imported from a file: everybody may have it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imported: bool,
}

/// Who may have what a repository holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryRight {
    /// The config's credentials, or nobody's, have opened it: every client may have it.
    pub open: bool,
    /// When that was found out.
    pub at: u64,
}

/// Why an image is never evicted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The manifest that the name meant when it was pinned.
    pub digest: Digest,
}
