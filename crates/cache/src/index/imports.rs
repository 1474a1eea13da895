//! Images that were brought in from a file.

use redb::Durability;

use super::records::{Link, Tag, TagName};
use super::tables::{TAGS, put, put_link, set};
use super::{Index, NewObject, Result};
use crate::digest::Digest;
use crate::manifest::{Kind, Parsed};
use crate::name::Repository;

/// What the place of an imported image is called.
pub const IMPORTED: &str = "an image layout";

/// An image that was brought in from a file. All that it names is in the store already.
#[derive(Clone, Debug)]
pub struct ImportedImage {
    /// Where it belongs.
    pub repository: Repository,
    /// Its tag; None where it is known by its digest alone.
    pub tag: Option<String>,
    /// Its manifest or index.
    pub root: Digest,
    /// That manifest and those below it, with their lengths.
    pub manifests: Vec<(Digest, u64, Parsed)>,
    /// Configs, layers and whatever else they name.
    pub blobs: Vec<Digest>,
}

impl ImportedImage {
    /// All that it consists of.
    pub fn digests(&self) -> impl Iterator<Item = &Digest> {
        let manifests = self.manifests.iter().map(|(digest, _, _)| digest);
        manifests.chain(&self.blobs)
    }
}

impl Index {
    /// Notes images whose blobs are in the store now: what they refer to, that everybody may have them,
    /// and what they are called. All of them or none; durable when it returns.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn import(&self, images: &[ImportedImage], now: u64) -> Result<()> {
        self.write(Durability::Immediate, |txn| {
            let link = |kind| Link {
                kind,
                place: IMPORTED.to_owned(),
                open: false,
                imported: true,
            };
            for image in images {
                for (digest, size, parsed) in &image.manifests {
                    let new = NewObject {
                        digest,
                        size: *size,
                        manifest: Some(parsed),
                        now,
                    };
                    put(txn, &new)?;
                    put_link(txn, &image.repository, digest, &link(Kind::Manifest))?;
                }
                for digest in &image.blobs {
                    put_link(txn, &image.repository, digest, &link(Kind::Blob))?;
                }
                if let Some(tag) = &image.tag {
                    let name = TagName {
                        repository: image.repository.clone(),
                        tag: tag.clone(),
                    };
                    let tag = Tag {
                        digest: image.root.clone(),
                        place: IMPORTED.to_owned(),
                        validated_at: now,
                        silent_since: None,
                        imported: true,
                    };
                    set(&mut txn.open_table(TAGS)?, &name.key(), &tag)?;
                }
            }
            Ok(())
        })
    }
}
