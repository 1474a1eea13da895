//! The store and its index as one: what is in both, how much it is, and what goes when room is needed.
//!
//! | module | what it knows |
//! |---|---|
//! | `imports` | what comes in from a file instead of being pulled |
//! | `room` | how much may be stored, what is reserved, what is evicted |
//! | `verify` | whether disk and index are as they should be, and how they are after a crash |

mod imports;
mod room;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;

pub use self::imports::{Held, TakenIn};
pub use self::room::SizeLimits;
pub use self::verify::Verified;
use crate::digest::Digest;
use crate::index::{Evicted, Index, IndexError, Link, NewObject, Object};
use crate::manifest::{MAX_MANIFEST, Parsed};
use crate::name::Repository;
use crate::store::{Disk, StoreError};

/// Why something could not be stored or found.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The disk.
    #[error("the cache's disk: {0}")]
    Io(#[from] io::Error),
}

/// Blobs and index of one directory. Its calls block.
#[derive(Debug)]
pub struct Storage {
    disk: Disk,
    index: Index,
    limits: Mutex<SizeLimits>,
    stored_bytes: AtomicU64,
    stored_objects: AtomicU64,
    evictions: AtomicU64,
    /// What is being fetched, and the bytes that it will take.
    reserved: Mutex<HashMap<Digest, u64>>,
    /// Held while room is looked for.
    reserving: Mutex<()>,
    /// What is not evicted, and by how many it is held.
    held: Mutex<HashMap<Digest, usize>>,
    touched: Mutex<HashMap<Digest, u64>>,
    /// Held while blobs are committed or evicted, so that none is deleted that has just been stored.
    changing: Mutex<()>,
    failing: AtomicBool,
    crowded: AtomicBool,
    /// How many images there were, and when they were counted.
    images: Mutex<Option<(Instant, u64)>>,
    /// Files with another length than they had, which could not be deleted.
    unusable: Mutex<HashSet<Digest>>,
}

/// Counting images reads the whole index; for who looks twice a second, a count of a moment ago is as good.
const COUNT_TTL: Duration = Duration::from_secs(10);

impl Storage {
    /// Opens a directory, and brings index and disk together where a crash was between them.
    ///
    /// # Errors
    /// Where the directory can't be written to, or is another cache's.
    pub fn open(dir: &Path) -> Result<Self, StorageError> {
        let disk = Disk::open(dir)?;
        let index = Index::open(&dir.join("index.redb"))?;
        Self::new(disk, index, true)
    }

    /// Uses a directory that can't be written to: what is there is served, and nothing is stored.
    ///
    /// # Errors
    /// None in practice.
    pub fn open_read_only(dir: &Path) -> Result<Self, StorageError> {
        let index = match std::fs::read(dir.join("index.redb")) {
            Ok(content) => Index::in_memory_copy(&content).or_else(|_| Index::in_memory())?,
            Err(_) => Index::in_memory()?,
        };
        Self::new(Disk::read_only(dir), index, false)
    }

    fn new(disk: Disk, index: Index, is_ours: bool) -> Result<Self, StorageError> {
        let (mut objects, mut bytes, mut gone) = (0, 0, Vec::new());
        let mut other_length = Vec::new();
        index.for_each_object(|digest, object, _| match disk.open_blob(&digest) {
            Ok(Some((_, length))) if length == object.size => {
                objects += 1;
                bytes += object.size;
            }
            found => {
                if matches!(found, Ok(Some(_))) {
                    other_length.push(digest.clone());
                }
                gone.push(digest);
            }
        })?;
        if !gone.is_empty() {
            tracing::warn!(
                "{} blobs of the cache are no longer on the disk, or have another length there; they are fetched \
                 again when they are wanted",
                gone.len()
            );
            index.remove(&gone)?;
        }
        // Without an entry in the index they would be taken for what a crash has left, and served.
        if is_ours {
            other_length.retain(|digest| match disk.remove(digest) {
                Ok(_) => false,
                Err(error) => {
                    tracing::warn!("{digest} can't be deleted: {error}; it is not served");
                    true
                }
            });
        }
        Ok(Self {
            disk,
            index,
            limits: Mutex::new(SizeLimits::NONE),
            stored_bytes: AtomicU64::new(bytes),
            stored_objects: AtomicU64::new(objects),
            evictions: AtomicU64::new(0),
            reserved: Mutex::default(),
            reserving: Mutex::default(),
            held: Mutex::default(),
            touched: Mutex::default(),
            changing: Mutex::default(),
            failing: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            images: Mutex::default(),
            unusable: Mutex::new(other_length.into_iter().collect()),
        })
    }

    /// The files.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Bytes of blobs in the store.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Relaxed)
    }

    /// Blobs and manifests in the store.
    pub fn stored_objects(&self) -> u64 {
        self.stored_objects.load(Ordering::Relaxed)
    }

    /// Whether the last thing that was to be stored could not be.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Images in the store, as they were counted within the last seconds.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn image_count_of_late(&self) -> Result<u64, StorageError> {
        let mut images = self.images.lock();
        if let Some((at, count)) = *images
            && at.elapsed() < COUNT_TTL
        {
            return Ok(count);
        }
        let count = self.index.image_count()?;
        *images = Some((Instant::now(), count));
        Ok(count)
    }

    /// Images that had to go since the start.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Opens a blob and counts that as a use.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn open_blob(&self, digest: &Digest) -> io::Result<Option<(File, u64)>> {
        if self.unusable.lock().contains(digest) {
            return Ok(None);
        }
        let opened = self.disk.open_blob(digest)?;
        if opened.is_some() {
            self.touch(digest);
        }
        Ok(opened)
    }

    /// A manifest with what is known of it, counted as a use. None where it is not whole in the store.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn manifest(&self, digest: &Digest) -> Result<Option<(Bytes, Object)>, StorageError> {
        let Some(object) = self.index.object(digest)? else {
            return Ok(None);
        };
        if object.media_type.is_none() {
            return Ok(None);
        }
        let Some(content) = self.disk.read_small(digest, MAX_MANIFEST)? else {
            return Ok(None);
        };
        // It is small, and a damaged one would make the runtime fail for as long as it is here.
        if !digest.matches(&content) {
            tracing::warn!("{digest} is damaged on the disk; it is deleted and fetched again");
            self.forget(digest)?;
            return Ok(None);
        }
        self.touch(digest);
        Ok(Some((content, object)))
    }

    /// Stores a manifest that has been verified, as one of a repository. Durable when it returns.
    ///
    /// # Errors
    /// Where the disk fails or there is no room.
    pub fn store_manifest(
        &self,
        digest: &Digest,
        content: &[u8],
        parsed: &Parsed,
        repository: &Repository,
        link: &Link,
    ) -> Result<(), StorageError> {
        let size = content.len() as u64;
        let stored = (|| {
            if !self.reserve(digest, size) {
                return Err(io::Error::from(io::ErrorKind::StorageFull).into());
            }
            let _changing = self.changing.lock();
            if self.disk.open_blob(digest)?.is_none() {
                self.disk.write_small(digest, content)?;
            }
            let is_new = self.index.object(digest)?.is_none();
            let new = NewObject {
                digest,
                size,
                manifest: Some(parsed),
                now: now(),
            };
            self.index.put_linked(&new, repository, link)?;
            if is_new {
                self.count_stored(size);
            }
            Ok(())
        })();
        self.release(digest);
        self.report(&stored);
        stored
    }

    /// Makes a download that has been verified a blob of the store. Durable when it returns.
    ///
    /// # Errors
    /// Where the disk fails; the content can be read through `file` all the same.
    pub fn commit(&self, digest: &Digest, file: &File, size: u64) -> Result<(), StorageError> {
        let _changing = self.changing.lock();
        let committed = (|| {
            self.disk.commit_partial(digest, file)?;
            self.unusable.lock().remove(digest);
            self.note(&NewObject {
                digest,
                size,
                manifest: None,
                now: now(),
            })?;
            Ok(())
        })();
        self.report(&committed);
        committed
    }

    fn note(&self, new: &NewObject<'_>) -> Result<(), StorageError> {
        let is_new = self.index.object(new.digest)?.is_none();
        self.index.put(new)?;
        if is_new {
            self.count_stored(new.size);
        }
        Ok(())
    }

    fn count_stored(&self, size: u64) {
        self.stored_bytes.fetch_add(size, Ordering::Relaxed);
        self.stored_objects.fetch_add(1, Ordering::Relaxed);
    }

    fn count_gone(&self, objects: u64, bytes: u64) {
        // Never below zero, whatever was counted wrongly.
        let less = |counter: &AtomicU64, by: u64| {
            let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                Some(now.saturating_sub(by))
            });
        };
        less(&self.stored_bytes, bytes);
        less(&self.stored_objects, objects);
    }

    /// Deletes one object that is damaged or was asked to go.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn forget(&self, digest: &Digest) -> Result<(), StorageError> {
        let _changing = self.changing.lock();
        let size = self.index.object(digest)?.map(|object| object.size);
        self.index.remove(std::slice::from_ref(digest))?;
        self.disk.remove(digest)?;
        if let Some(size) = size {
            self.count_gone(1, size);
        }
        Ok(())
    }

    /// Deletes an image and what nothing else needs. Returns the bytes that were freed: none where it is a
    /// part of another image.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn remove_image(&self, digest: &Digest) -> Result<u64, StorageError> {
        let _changing = self.changing.lock();
        let evicted = self.index.remove_image(digest)?;
        self.delete_all(&evicted)?;
        Ok(evicted.bytes)
    }

    fn delete_all(&self, evicted: &Evicted) -> Result<(), StorageError> {
        self.count_gone(evicted.digests.len() as u64, evicted.bytes);
        for digest in &evicted.digests {
            self.disk.remove(digest)?;
        }
        Ok(())
    }

    /// Counts a use, to be written down by and by.
    pub fn touch(&self, digest: &Digest) {
        self.touched.lock().insert(digest.clone(), now());
    }

    /// Writes down what was used.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn flush_touched(&self) -> Result<(), StorageError> {
        let touched = std::mem::take(&mut *self.touched.lock());
        if !touched.is_empty() {
            self.index
                .used(touched.iter().map(|(digest, at)| (digest, *at)))?;
        }
        Ok(())
    }

    fn report<T>(&self, result: &Result<T, StorageError>) {
        match result {
            Ok(_) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the cache stores again");
                }
            }
            Err(error) => self.report_failure(error),
        }
    }

    /// Says once that nothing can be stored, until something could be.
    pub fn report_failure(&self, error: &dyn std::fmt::Display) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the cache can't store in {}: {error}; images pass through until it can",
                self.disk.dir().display()
            );
        }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
