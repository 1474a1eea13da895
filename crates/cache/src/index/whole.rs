//! What of an image is in the store, and whether that is enough to run it.

use std::collections::{BTreeMap, HashMap};

use super::records::Object;
use super::{Index, Result};
use crate::digest::Digest;
use crate::manifest::{DOCKER_LIST, Kind, OCI_INDEX};

/// Indexes in indexes; what is nested more deeply counts as missing.
const MAX_DEPTH: usize = 8;

/// An image, as far as it is whole in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WholeImage {
    /// All that it consists of, with the lengths.
    pub blobs: BTreeMap<Digest, u64>,
    /// Of an index, the platforms that are whole.
    pub platforms: Vec<String>,
    /// Where it is not whole: something that is missing.
    pub missing: Option<Digest>,
}

impl Index {
    /// What of an image is whole: a manifest with all its blobs; of an index, one platform is enough.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn whole(&self, root: &Digest) -> Result<WholeImage> {
        let mut search = Search {
            index: self,
            image: WholeImage::default(),
            known: HashMap::new(),
        };
        search.image.missing = search.add(root, 0)?;
        search.image.platforms.sort();
        search.image.platforms.dedup();
        Ok(search.image)
    }
}

struct Search<'a> {
    index: &'a Index,
    image: WholeImage,
    /// Manifests that were looked at, and what is missing of each.
    known: HashMap<Digest, Option<Digest>>,
}

impl Search<'_> {
    /// Adds a manifest with all below it, where it is whole; else says what is missing.
    fn add(&mut self, digest: &Digest, depth: usize) -> Result<Option<Digest>> {
        if let Some(known) = self.known.get(digest) {
            return Ok(known.clone());
        }
        let object = self.index.object(digest)?;
        let manifest = object.filter(|object| object.kind == Kind::Manifest && depth <= MAX_DEPTH);
        let missing = match &manifest {
            None => Some(digest.clone()),
            Some(manifest) if is_index(manifest) => self.add_platforms(manifest, depth)?,
            Some(manifest) => self.add_blobs(manifest)?,
        };
        if let (None, Some(manifest)) = (&missing, manifest) {
            self.image.blobs.insert(digest.clone(), manifest.size);
        }
        self.known.insert(digest.clone(), missing.clone());
        Ok(missing)
    }

    fn add_blobs(&mut self, manifest: &Object) -> Result<Option<Digest>> {
        let mut found = Vec::new();
        for child in &manifest.children {
            match self.index.object(&child.digest)? {
                Some(object) => found.push((child.digest.clone(), object.size)),
                None => return Ok(Some(child.digest.clone())),
            }
        }
        self.image.blobs.extend(found);
        Ok(None)
    }

    fn add_platforms(&mut self, list: &Object, depth: usize) -> Result<Option<Digest>> {
        let (mut is_any, mut missing) = (false, None);
        for child in &list.children {
            if child.kind == Kind::Blob {
                if let Some(object) = self.index.object(&child.digest)? {
                    self.image.blobs.insert(child.digest.clone(), object.size);
                }
                continue;
            }
            match self.add(&child.digest, depth + 1)? {
                // What belongs to no platform (an attestation) makes no image.
                None if child.platform.as_deref() == Some("unknown/unknown") => {}
                None => {
                    is_any = true;
                    self.image.platforms.extend(child.platform.clone());
                }
                Some(digest) => missing = Some(digest),
            }
        }
        Ok(missing.filter(|_| !is_any))
    }
}

pub(super) fn is_index(object: &Object) -> bool {
    matches!(object.media_type.as_deref(), Some(OCI_INDEX | DOCKER_LIST))
}
