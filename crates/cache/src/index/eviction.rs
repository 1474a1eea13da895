//! Which images go when room is needed.
//!
//! An image is what no other manifest in the store names: an index, or a manifest that was pulled by
//! itself; a blob that nothing names is one too. The least recently used goes first, and with it all
//! that nothing else names any more.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use redb::{Durability, ReadableMultimapTable, ReadableTable};

use super::records::{Object, Pin, Tag};
use super::tables::{OBJECTS, PARENTS, PINS, TAGS, USED, collect, get, remove};
use super::{Index, Result};
use crate::digest::Digest;

/// What was taken out of the index, and is to be deleted from the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// The blobs.
    pub digests: Vec<Digest>,
    /// The bytes in them.
    pub bytes: u64,
    /// The images that they made up.
    pub images: u64,
}

/// Wholes that one use counts for, at most: manifests can name each other in a circle only by breaking
/// SHA-256; deep nesting is bounded all the same.
const MAX_ANCESTORS: usize = 10_000;

/// Notes the use of an object, which is a use of the image that it was pulled for, too. Where several
/// images share it, that is the one that was used last: a pull begins with its manifest, and each image has
/// something that no other one has. Otherwise an image that nobody uses would live for as long as any that
/// has its base.
pub(super) fn note_use(
    parents: &impl ReadableMultimapTable<&'static str, &'static str>,
    used: &mut redb::Table<'_, &'static str, u64>,
    digest: &Digest,
    at: u64,
) -> Result<()> {
    let (mut open, mut seen) = (vec![digest.clone()], HashSet::new());
    while let Some(part) = open.pop() {
        if seen.len() >= MAX_ANCESTORS || !seen.insert(part.clone()) {
            continue;
        }
        // By the clock as it is now: one that was ahead must not make something look used for ever.
        used.insert(part.as_str(), at)?;
        let mut last = 0;
        let mut wholes = Vec::new();
        for whole in collect(parents.get(part.as_str())?)? {
            let known = used.get(whole.as_str())?.map_or(0, |known| known.value());
            if known > last {
                wholes.clear();
                last = known;
            }
            if known == last {
                wholes.push(whole);
            }
        }
        open.extend(wholes);
    }
    Ok(())
}

impl Index {
    /// Takes out the least recently used images until `wanted` bytes are freed or only pinned ones,
    /// and those in `busy`, are left.
    ///
    /// # Errors
    /// Where the disk fails; nothing is taken out then.
    pub fn evict(&self, wanted: u64, busy: &HashSet<Digest>) -> Result<Evicted> {
        self.write(Durability::Immediate, |txn| {
            let mut evicted = Evicted::default();
            if wanted == 0 {
                return Ok(evicted);
            }
            let pinned = pinned(txn)?;
            let mut queue = BinaryHeap::new();
            {
                let objects = txn.open_table(OBJECTS)?;
                let parents = txn.open_multimap_table(PARENTS)?;
                let used = txn.open_table(USED)?;
                for entry in objects.iter()? {
                    let (key, _) = entry?;
                    if parents.get(key.value())?.next().is_none()
                        && let Ok(digest) = key.value().parse::<Digest>()
                    {
                        let at = used.get(key.value())?.map_or(0, |at| at.value());
                        queue.push(Reverse((at, digest)));
                    }
                }
            }
            while let Some(Reverse((_, image))) = queue.pop() {
                if evicted.bytes >= wanted {
                    break;
                }
                if pinned.contains(&image) || is_busy(txn, &image, busy)? {
                    continue;
                }
                take_out(txn, &image, &pinned, &mut evicted)?;
                evicted.images += 1;
            }
            Ok(evicted)
        })
    }

    /// Takes one image out, pinned or not, with all that nothing else names and that no tag means. Nothing
    /// where it is a part of another image, which would be broken without it.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn remove_image(&self, image: &Digest) -> Result<Evicted> {
        self.write(Durability::Immediate, |txn| {
            let mut evicted = Evicted::default();
            let parents = txn.open_multimap_table(PARENTS)?;
            if parents.get(image.as_str())?.next().is_some() {
                return Ok(evicted);
            }
            drop(parents);
            let mut kept = pinned(txn)?;
            for entry in txn.open_table(TAGS)?.iter()? {
                let (_, tag) = entry?;
                let tag: Tag = serde_json::from_slice(tag.value())?;
                kept.insert(tag.digest);
            }
            take_out(txn, image, &kept, &mut evicted)?;
            evicted.images = u64::from(!evicted.digests.is_empty());
            Ok(evicted)
        })
    }

    /// The digests that pins hold, with all that they refer to, and the bytes of what is there of it.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn pinned_bytes(&self) -> Result<u64> {
        self.write(Durability::None, |txn| {
            let mut open: Vec<Digest> = pinned(txn)?.into_iter().collect();
            let objects = txn.open_table(OBJECTS)?;
            let (mut seen, mut bytes) = (HashSet::new(), 0);
            while let Some(digest) = open.pop() {
                if !seen.insert(digest.clone()) {
                    continue;
                }
                if let Some(object) = get::<Object>(&objects, digest.as_str())? {
                    bytes += object.size;
                    open.extend(object.children.into_iter().map(|child| child.digest));
                }
            }
            Ok(bytes)
        })
    }
}

/// What pins mean now: the digest they were made with, and what their tag has moved to since.
fn pinned(txn: &redb::WriteTransaction) -> Result<HashSet<Digest>> {
    let tags = txn.open_table(TAGS)?;
    let mut found = HashSet::new();
    for entry in txn.open_table(PINS)?.iter()? {
        let (name, pin) = entry?;
        match get::<Tag>(&tags, name.value())? {
            Some(tag) => found.insert(tag.digest),
            None => {
                let pin: Pin = serde_json::from_slice(pin.value())?;
                found.insert(pin.digest)
            }
        };
    }
    Ok(found)
}

/// Whether anything below an image is being fetched or stored.
fn is_busy(txn: &redb::WriteTransaction, image: &Digest, busy: &HashSet<Digest>) -> Result<bool> {
    if busy.is_empty() {
        return Ok(false);
    }
    let objects = txn.open_table(OBJECTS)?;
    let (mut open, mut seen) = (vec![image.clone()], HashSet::new());
    while let Some(digest) = open.pop() {
        if busy.contains(&digest) {
            return Ok(true);
        }
        if seen.insert(digest.clone())
            && let Some(object) = get::<Object>(&objects, digest.as_str())?
        {
            open.extend(object.children.into_iter().map(|child| child.digest));
        }
    }
    Ok(false)
}

/// Takes an image out with all that nothing else names and that is not among `kept`.
fn take_out(
    txn: &redb::WriteTransaction,
    image: &Digest,
    kept: &HashSet<Digest>,
    evicted: &mut Evicted,
) -> Result<()> {
    let mut open = vec![image.clone()];
    while let Some(digest) = open.pop() {
        let Some(object) = remove(txn, &digest)? else {
            continue;
        };
        evicted.bytes += object.size;
        evicted.digests.push(digest);
        let parents = txn.open_multimap_table(PARENTS)?;
        for child in object.children {
            let is_orphan = parents.get(child.digest.as_str())?.next().is_none();
            if is_orphan && !kept.contains(&child.digest) {
                open.push(child.digest);
            }
        }
    }
    Ok(())
}
