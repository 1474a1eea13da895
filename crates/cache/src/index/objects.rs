//! What the store has: objects, what they refer to, and when they were used.

use redb::{Durability, ReadableTable};

use super::records::{Link, Object};
use super::tables::{
    LINKS, OBJECTS, PARENTS, SUBJECTS, USED, collect, get, link_key, put, put_link, remove,
};
use super::whole::is_index;
use super::{Index, NewObject, Result, eviction};
use crate::digest::Digest;
use crate::manifest::Kind;
use crate::name::Repository;

impl Index {
    /// Notes a blob that is in the store now. Durable when it returns.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn put(&self, new: &NewObject<'_>) -> Result<()> {
        self.write(Durability::Immediate, |txn| put(txn, new))
    }

    /// Notes a manifest that is in the store now and belongs to a repository, in one step.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn put_linked(
        &self,
        new: &NewObject<'_>,
        repository: &Repository,
        link: &Link,
    ) -> Result<()> {
        self.write(Durability::Immediate, |txn| {
            put(txn, new)?;
            put_link(txn, repository, new.digest, link)
        })
    }

    /// What is known of a blob that should be in the store.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn object(&self, digest: &Digest) -> Result<Option<Object>> {
        self.read(|txn| get(&txn.open_table(OBJECTS)?, digest.as_str()))
    }

    /// Calls `each` with every object and the second of its last use.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn for_each_object(&self, mut each: impl FnMut(Digest, Object, u64)) -> Result<()> {
        self.read(|txn| {
            let used = txn.open_table(USED)?;
            for entry in txn.open_table(OBJECTS)?.iter()? {
                let (digest, object) = entry?;
                let at = used.get(digest.value())?.map_or(0, |at| at.value());
                if let Ok(digest) = digest.value().parse() {
                    each(digest, serde_json::from_slice(object.value())?, at);
                }
            }
            Ok(())
        })
    }

    /// Takes objects out whose blobs are gone, and what hangs on their being there.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn remove(&self, digests: &[Digest]) -> Result<()> {
        self.write(Durability::Immediate, |txn| {
            for digest in digests {
                remove(txn, digest)?;
            }
            Ok(())
        })
    }

    /// Number of objects, and of bytes in them.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn totals(&self) -> Result<(u64, u64)> {
        let (mut objects, mut bytes) = (0, 0);
        self.for_each_object(|_, object, _| {
            objects += 1;
            bytes += object.size;
        })?;
        Ok((objects, bytes))
    }

    /// Number of images: manifests that no other manifest in the store names.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn image_count(&self) -> Result<u64> {
        Ok(self.roots()?.len() as u64)
    }

    /// Manifests that no other manifest in the store names.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn roots(&self) -> Result<Vec<Digest>> {
        self.read(|txn| {
            let parents = txn.open_multimap_table(PARENTS)?;
            let mut roots = Vec::new();
            for entry in txn.open_table(OBJECTS)?.iter()? {
                let (key, object) = entry?;
                let object: Object = serde_json::from_slice(object.value())?;
                if object.kind == Kind::Manifest
                    && parents.get(key.value())?.next().is_none()
                    && let Ok(digest) = key.value().parse()
                {
                    roots.push(digest);
                }
            }
            Ok(roots)
        })
    }

    /// When an object was used last, in seconds since 1970.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn used_at(&self, digest: &Digest) -> Result<u64> {
        self.read(|txn| {
            let at = txn.open_table(USED)?.get(digest.as_str())?;
            Ok(at.map_or(0, |at| at.value()))
        })
    }

    /// The manifests in the store that name this object.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn parents(&self, digest: &Digest) -> Result<Vec<Digest>> {
        self.read(|txn| {
            let parents = txn.open_multimap_table(PARENTS)?;
            collect(parents.get(digest.as_str())?)
        })
    }

    /// The manifests in the store that are about this one.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn referrers(&self, subject: &Digest) -> Result<Vec<Digest>> {
        self.read(|txn| {
            let subjects = txn.open_multimap_table(SUBJECTS)?;
            collect(subjects.get(subject.as_str())?)
        })
    }

    /// The length that a manifest of a repository gives for an object that is not there yet. What the
    /// manifests of other repositories say of it is not asked: anybody can push one, with any number.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn expected_size(&self, repository: &Repository, digest: &Digest) -> Result<Option<u64>> {
        let manifests = self.manifests_in(repository, digest)?;
        let mut children = manifests.iter().flat_map(|manifest| &manifest.children);
        let child = children.find(|child| child.digest == *digest);
        Ok(child.map(|child| child.size))
    }

    /// The length of the smallest image of a repository that has an object among its layers, as its
    /// manifest gives it.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn smallest_image(&self, repository: &Repository, digest: &Digest) -> Result<Option<u64>> {
        let manifests = self.manifests_in(repository, digest)?;
        let images = manifests.iter().filter(|manifest| !is_index(manifest));
        let sizes = images.map(|image| {
            let sizes = image.children.iter().map(|child| child.size);
            sizes.fold(0, u64::saturating_add)
        });
        Ok(sizes.min())
    }

    /// The manifests of a repository that are in the store and name an object.
    pub(super) fn manifests_in(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Vec<Object>> {
        self.read(|txn| {
            let links = txn.open_table(LINKS)?;
            let objects = txn.open_table(OBJECTS)?;
            let parents = txn.open_multimap_table(PARENTS)?;
            let mut found = Vec::new();
            for parent in collect(parents.get(digest.as_str())?)? {
                let is_linked = links.get(link_key(repository, &parent).as_str())?.is_some();
                if is_linked && let Some(object) = get::<Object>(&objects, parent.as_str())? {
                    found.push(object);
                }
            }
            Ok(found)
        })
    }

    /// Notes when objects were used, each with the image that it was used for. May be lost by a crash until
    /// the next durable write.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn used<'a>(&self, uses: impl IntoIterator<Item = (&'a Digest, u64)>) -> Result<()> {
        self.write(Durability::None, |txn| {
            let objects = txn.open_table(OBJECTS)?;
            let parents = txn.open_multimap_table(PARENTS)?;
            let mut used = txn.open_table(USED)?;
            let mut there = Vec::new();
            for (digest, at) in uses {
                let Some(object) = get::<Object>(&objects, digest.as_str())? else {
                    continue;
                };
                there.push((object.kind == Kind::Blob, digest, at));
            }
            // Manifests first: they say which image a layer was used for.
            there.sort_unstable();
            for (_, digest, at) in there {
                eviction::note_use(&parents, &mut used, digest, at)?;
            }
            Ok(())
        })
    }

    /// Makes everything durable that was written so far.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn flush(&self) -> Result<()> {
        self.write(Durability::Immediate, |_| Ok(()))
    }
}
