//! Where things lie in the bucket, below the prefix:
//!
//! ```text
//! blobs/sha256/<hex>                                  raw bytes, as in an OCI image layout
//! links/<host>/<repository>/_tags/<tag>               which manifest a tag means
//! links/<host>/<repository>/_manifests/sha256/<hex>   a manifest belongs to the repository
//! links/<host>/<repository>/_blobs/sha256/<hex>       a blob belongs to the repository
//! ```
//!
//! No component of a repository's name begins with `_`.

use object_store::path::{Path, PathPart};

use crate::digest::{Algorithm, Digest};
use crate::index::TagName;
use crate::manifest::Kind;
use crate::name::Repository;

const TAGS: &str = "_tags";
const MANIFESTS: &str = "_manifests";
const BLOBS: &str = "_blobs";

/// Makes keys, and reads them.
#[derive(Clone, Debug)]
pub struct Keys {
    root: Path,
}

/// What the key of a link says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKey {
    /// A tag.
    Tag,
    /// A manifest of a repository.
    Manifest(Digest),
    /// A blob of a repository.
    Blob(Digest),
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            root: Path::from(prefix),
        }
    }

    /// The folder of all blobs.
    pub fn blobs(&self) -> Path {
        self.below(["blobs"])
    }

    /// The folder of all links.
    pub fn links(&self) -> Path {
        self.below(["links"])
    }

    /// A blob.
    pub fn blob(&self, digest: &Digest) -> Path {
        self.below(["blobs", digest.algorithm().name(), digest.hex()])
    }

    /// Whose blob a key is; None where it is no blob's.
    pub fn digest_of(&self, key: &Path) -> Option<Digest> {
        let parts = parts(key);
        let [.., blobs, algorithm, hex] = parts.as_slice() else {
            return None;
        };
        let is_ours = self.blobs().parts_count() + 2 == parts.len() && blobs == "blobs";
        digest(algorithm, hex).filter(|_| is_ours)
    }

    /// What a tag means.
    pub fn tag(&self, name: &TagName) -> Path {
        let repository = self.repository(&name.repository);
        repository.join(TAGS).join(name.tag.as_str())
    }

    /// That something belongs to a repository.
    pub fn link(&self, repository: &Repository, kind: Kind, digest: &Digest) -> Path {
        let folder = match kind {
            Kind::Manifest => MANIFESTS,
            Kind::Blob => BLOBS,
        };
        let folder = self.repository(repository).join(folder);
        folder.join(digest.algorithm().name()).join(digest.hex())
    }

    /// What the key of a link says; None where it is no link's.
    pub fn link_of(&self, key: &Path) -> Option<LinkKey> {
        let parts = parts(key);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            [.., MANIFESTS, algorithm, hex] => digest(algorithm, hex).map(LinkKey::Manifest),
            [.., BLOBS, algorithm, hex] => digest(algorithm, hex).map(LinkKey::Blob),
            [.., TAGS, _] => Some(LinkKey::Tag),
            _ => None,
        }
    }

    fn repository(&self, repository: &Repository) -> Path {
        let host = self.links().join(repository.host());
        repository
            .path()
            .split('/')
            .fold(host, |path, part| path.join(part))
    }

    fn below<const N: usize>(&self, parts: [&str; N]) -> Path {
        let start = self.root.clone();
        parts.into_iter().fold(start, |path, part| path.join(part))
    }
}

fn digest(algorithm: &str, hex: &str) -> Option<Digest> {
    let all = Algorithm::ALL;
    let algorithm = all.into_iter().find(|known| known.name() == algorithm)?;
    Digest::from_parts(algorithm, hex).ok()
}

fn parts(key: &Path) -> Vec<String> {
    let part = |part: PathPart<'_>| part.as_ref().to_owned();
    key.parts().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for prefix in ["", "edge/one"] {
            let keys = Keys::new(prefix);
            let (blob, repository) = (
                Digest::of(b"x"),
                Repository::new("reg.corp:5000", "team/app").unwrap(),
            );
            let start = if prefix.is_empty() { "" } else { "edge/one/" };
            let key = keys.blob(&blob);
            assert_eq!(key.as_ref(), format!("{start}blobs/sha256/{}", blob.hex()));
            assert_eq!(keys.digest_of(&key), Some(blob.clone()));
            let name = TagName {
                repository: repository.clone(),
                tag: "v1.2".to_owned(),
            };
            let tag = keys.tag(&name);
            assert_eq!(
                tag.as_ref(),
                format!("{start}links/reg.corp:5000/team/app/_tags/v1.2")
            );
            assert_eq!(keys.link_of(&tag), Some(LinkKey::Tag));
            for (kind, expected) in [
                (Kind::Manifest, LinkKey::Manifest(blob.clone())),
                (Kind::Blob, LinkKey::Blob(blob.clone())),
            ] {
                let key = keys.link(&repository, kind, &blob);
                assert_eq!(keys.link_of(&key), Some(expected));
                assert_eq!(keys.digest_of(&key), None);
            }
        }
        let keys = Keys::new("");
        assert_eq!(keys.digest_of(&Path::from("blobs/sha256/abc")), None);
        assert_eq!(keys.link_of(&Path::from("links/a.test/x/readme")), None);
    }
}
