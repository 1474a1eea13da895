//! The store and its index as one: what is in both, how much it is, and what goes when room is needed.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::digest::Digest;
use crate::index::{Evicted, Index, IndexError, Link, NewObject, Object};
use crate::manifest::{MAX_MANIFEST, Parsed};
use crate::name::Repository;
use crate::store::{Disk, StoreError};

/// Downloads that nobody has gone on with for this long are thrown away.
const PARTIAL_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Digests of layers of images that are too large, at most; the oldest half is forgotten then.
const MAX_OVERSIZED: usize = 10_000;

/// How much the store may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeLimits {
    /// Bytes of blobs.
    pub max_size: u64,
    /// Bytes that stay free on the file system.
    pub min_free: u64,
}

impl SizeLimits {
    /// No limits.
    pub const NONE: Self = Self {
        max_size: u64::MAX,
        min_free: 0,
    };
}

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
    touched: Mutex<HashMap<Digest, u64>>,
    oversized: Mutex<HashSet<Digest>>,
    /// Held while blobs are committed or evicted, so that none is deleted that has just been stored.
    changing: Mutex<()>,
    failing: AtomicBool,
    crowded: AtomicBool,
}

/// Bytes that have to go before something can be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Missing {
    by_size: u64,
    by_free: u64,
}

impl Missing {
    /// What to evict: 5 % more than what is missing, so that not every blob from now on makes room.
    fn wanted(self, limits: SizeLimits) -> u64 {
        let with_slack = |missing: u64, limit: u64| match missing {
            0 => 0,
            missing => missing.saturating_add(limit / 20),
        };
        with_slack(self.by_size, limits.max_size).max(with_slack(self.by_free, limits.min_free))
    }
}

/// What a look at every blob has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Verified {
    /// Blobs that were read.
    pub checked: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Blobs with other content than their name says, or that can't be read.
    pub damaged: Vec<Digest>,
    /// Blobs that the index has and the disk has not.
    pub missing: Vec<Digest>,
}

impl Verified {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.missing.is_empty()
    }
}

impl Storage {
    /// Opens a directory, and brings index and disk together where a crash was between them.
    ///
    /// # Errors
    /// Where the directory can't be written to, or is another cache's.
    pub fn open(dir: &Path) -> Result<Self, StorageError> {
        let disk = Disk::open(dir)?;
        let index = Index::open(&dir.join("index.redb"))?;
        Self::new(disk, index)
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
        Self::new(Disk::read_only(dir), index)
    }

    fn new(disk: Disk, index: Index) -> Result<Self, StorageError> {
        let (mut objects, mut bytes, mut gone) = (0, 0, Vec::new());
        index.for_each_object(|digest, object, _| {
            let is_there = disk
                .open_blob(&digest)
                .is_ok_and(|found| found.is_some_and(|(_, length)| length == object.size));
            if is_there {
                objects += 1;
                bytes += object.size;
            } else {
                gone.push(digest);
            }
        })?;
        if !gone.is_empty() {
            tracing::warn!(
                "{} blobs of the cache are no longer on the disk; they are fetched again when they are wanted",
                gone.len()
            );
            index.remove(&gone)?;
        }
        Ok(Self {
            disk,
            index,
            limits: Mutex::new(SizeLimits::NONE),
            stored_bytes: AtomicU64::new(bytes),
            stored_objects: AtomicU64::new(objects),
            evictions: AtomicU64::new(0),
            reserved: Mutex::default(),
            touched: Mutex::default(),
            oversized: Mutex::default(),
            changing: Mutex::default(),
            failing: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
        })
    }

    /// Takes blobs in that a crash has left between disk and index, and throws old downloads away.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn tidy(&self) -> Result<(), StorageError> {
        let mut orphans = Vec::new();
        let mut failed = None;
        self.disk.for_each(|digest, length| {
            match self.index.object(&digest) {
                Ok(None) => orphans.push((digest, length)),
                Ok(Some(_)) => {}
                Err(error) => failed = Some(error),
            };
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        for (digest, size) in orphans {
            let _changing = self.changing.lock();
            // Stored in the meantime, or evicted.
            if self.index.object(&digest)?.is_some() || self.disk.open_blob(&digest)?.is_none() {
                continue;
            }
            self.note(&NewObject {
                digest: &digest,
                size,
                manifest: None,
                now: 0,
            })?;
        }
        let reserved = self.reserved.lock().clone();
        for (digest, _, modified) in self.disk.partials() {
            let is_old = modified.elapsed().is_ok_and(|age| age > PARTIAL_TTL);
            if is_old && !reserved.contains_key(&digest) {
                self.disk.discard_partial(&digest);
            }
        }
        Ok(())
    }

    /// The files.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Changes how much may be stored; what is too much goes with the next thing that is stored.
    pub fn set_limits(&self, limits: SizeLimits) {
        *self.limits.lock() = limits;
    }

    /// How much may be stored.
    pub fn limits(&self) -> SizeLimits {
        *self.limits.lock()
    }

    /// Bytes of blobs in the store.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Relaxed)
    }

    /// Blobs and manifests in the store.
    pub fn stored_objects(&self) -> u64 {
        self.stored_objects.load(Ordering::Relaxed)
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
        self.note_size(parsed);
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

    /// Deletes an image and what nothing else needs. Returns the bytes that were freed.
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

    /// Keeps room for something that is about to be stored, and makes room where there is none. False
    /// where there can't be any; what is fetched then passes through.
    pub fn reserve(&self, digest: &Digest, bytes: u64) -> bool {
        if self.oversized.lock().contains(digest) {
            return false;
        }
        let made = self.make_room(digest, bytes);
        let fits = *made.as_ref().unwrap_or(&false);
        if let Err(error) = &made {
            self.report_failure(error);
        }
        if fits {
            self.reserved.lock().insert(digest.clone(), bytes);
        }
        fits
    }

    /// What was reserved is stored, or will not be.
    pub fn release(&self, digest: &Digest) {
        self.reserved.lock().remove(digest);
    }

    fn make_room(&self, digest: &Digest, bytes: u64) -> Result<bool, StorageError> {
        let limits = self.limits();
        if limits == SizeLimits::NONE {
            return Ok(true);
        }
        let mut missing = self.missing(digest, bytes, limits)?;
        if missing == Missing::default() {
            self.crowded.store(false, Ordering::Relaxed);
            return Ok(true);
        }
        // What can't fit at all costs no other image its place.
        let pinned = self.index.pinned_bytes()?;
        if bytes.saturating_add(pinned) > limits.max_size {
            self.warn_crowded(pinned, bytes, limits);
            return Ok(false);
        }
        self.discard_idle_partials();
        missing = self.missing(digest, bytes, limits)?;
        if missing != Missing::default() {
            self.evict(missing.wanted(limits))?;
            missing = self.missing(digest, bytes, limits)?;
        }
        let fits = missing == Missing::default();
        if fits {
            self.crowded.store(false, Ordering::Relaxed);
        } else {
            self.warn_crowded(pinned, bytes, limits);
        }
        Ok(fits)
    }

    /// Makes room as the limits want it.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn collect(&self) -> Result<(), StorageError> {
        let nothing = Digest::of(b"");
        let limits = self.limits();
        if limits == SizeLimits::NONE {
            return Ok(());
        }
        let missing = self.missing(&nothing, 0, limits)?;
        if missing != Missing::default() {
            self.discard_idle_partials();
            self.evict(missing.wanted(limits))?;
        }
        Ok(())
    }

    fn missing(&self, digest: &Digest, bytes: u64, limits: SizeLimits) -> io::Result<Missing> {
        let coming: u64 = {
            let reserved = self.reserved.lock();
            let others = reserved.iter().filter(|(other, _)| *other != digest);
            others.map(|(_, bytes)| bytes).sum()
        };
        let used = self.stored_bytes().saturating_add(coming);
        let (free, _) = self.disk.space()?;
        Ok(Missing {
            by_size: used.saturating_add(bytes).saturating_sub(limits.max_size),
            by_free: limits.min_free.saturating_add(bytes).saturating_sub(free),
        })
    }

    fn evict(&self, wanted: u64) -> Result<(), StorageError> {
        self.flush_touched()?;
        let _changing = self.changing.lock();
        let busy: HashSet<Digest> = self.reserved.lock().keys().cloned().collect();
        let evicted = self.index.evict(wanted, &busy)?;
        self.delete_all(&evicted)?;
        self.evictions.fetch_add(evicted.images, Ordering::Relaxed);
        if evicted.images > 0 {
            tracing::info!(
                "{} images went from the cache to make room for others ({} bytes)",
                evicted.images,
                evicted.bytes
            );
        }
        Ok(())
    }

    fn discard_idle_partials(&self) {
        let reserved = self.reserved.lock();
        for (digest, _, _) in self.disk.partials() {
            if !reserved.contains_key(&digest) {
                self.disk.discard_partial(&digest);
            }
        }
    }

    fn warn_crowded(&self, pinned: u64, bytes: u64, limits: SizeLimits) {
        if !self.crowded.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "no room in the cache for {bytes} bytes: maxSize is {}, {pinned} bytes are pinned, minFree is {}; \
                 what does not fit passes through without being stored",
                limits.max_size,
                limits.min_free
            );
        }
    }

    /// Remembers the layers of an image that is larger than the store: they pass through.
    fn note_size(&self, parsed: &Parsed) {
        if parsed.is_index {
            return;
        }
        let size: u64 = parsed
            .children
            .iter()
            .fold(0, |sum, child| sum.saturating_add(child.size));
        let mut oversized = self.oversized.lock();
        if size > self.limits().max_size {
            if oversized.len() >= MAX_OVERSIZED {
                oversized.clear();
            }
            oversized.extend(parsed.children.iter().map(|child| child.digest.clone()));
        } else if !oversized.is_empty() {
            // A smaller image that shares a layer with it, or a larger maxSize.
            for child in &parsed.children {
                oversized.remove(&child.digest);
            }
        }
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

    /// Reads every blob and computes its digest.
    ///
    /// # Errors
    /// Where the index fails.
    pub fn verify(&self) -> Result<Verified, StorageError> {
        let mut known = Vec::new();
        self.index
            .for_each_object(|digest, object, _| known.push((digest, object.size)))?;
        let mut verified = Verified::default();
        for (digest, _) in known {
            let Ok(Some((mut file, length))) = self.disk.open_blob(&digest) else {
                // Evicted while we were looking.
                if self.index.object(&digest)?.is_some() {
                    verified.missing.push(digest);
                }
                continue;
            };
            verified.checked += 1;
            verified.bytes += length;
            if !is_intact(&mut file, &digest).unwrap_or(false) {
                verified.damaged.push(digest);
            }
        }
        Ok(verified)
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

fn is_intact(file: &mut File, digest: &Digest) -> io::Result<bool> {
    let mut hasher = digest.hasher();
    let mut chunk = vec![0; 256 * 1024];
    loop {
        let length = io::Read::read(file, &mut chunk)?;
        match chunk.get(..length) {
            Some(content) if !content.is_empty() => hasher.update(content),
            _ => return Ok(hasher.finish() == *digest),
        }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Kind;

    fn link() -> Link {
        Link {
            kind: Kind::Manifest,
            place: "p".into(),
            imported: false,
        }
    }

    fn store_blob(storage: &Storage, content: &[u8]) -> (Digest, bool) {
        let digest = Digest::of(content);
        let fits = storage.reserve(&digest, content.len() as u64);
        if fits {
            let file = storage.disk().open_partial(&digest).unwrap();
            storage.disk().write_partial(&file, content, 0).unwrap();
            let size = content.len() as u64;
            storage.commit(&digest, &file, size).unwrap();
            storage.release(&digest);
        }
        (digest, fits)
    }

    fn is_there(storage: &Storage, digest: &Digest) -> bool {
        storage.disk().open_blob(digest).unwrap().is_some()
    }

    #[test]
    fn what_a_crash_left_between_disk_and_index_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, lost) = {
            let storage = Storage::open(dir.path()).unwrap();
            let (kept, _) = store_blob(&storage, b"kept");
            let (lost, _) = store_blob(&storage, b"lost");
            storage.disk().remove(&lost).unwrap();
            // Renamed, but not yet in the index.
            storage
                .disk()
                .write_small(&Digest::of(b"orphan"), b"orphan")
                .unwrap();
            (kept, lost)
        };
        let storage = Storage::open(dir.path()).unwrap();
        storage.tidy().unwrap();
        assert_eq!((storage.stored_objects(), storage.stored_bytes()), (2, 10));
        assert!(storage.index().object(&kept).unwrap().is_some());
        assert!(storage.index().object(&lost).unwrap().is_none());
        let orphan = Digest::of(b"orphan");
        assert!(storage.index().object(&orphan).unwrap().is_some());
        assert!(storage.verify().unwrap().is_clean());
    }

    #[test]
    fn damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        let (digest, _) = store_blob(&storage, b"content");
        std::fs::write(storage.disk().path(&digest), b"CONTENT").unwrap();
        let found = storage.verify().unwrap();
        assert_eq!(found.damaged, std::slice::from_ref(&digest));
        storage.forget(&digest).unwrap();
        assert!(storage.verify().unwrap().is_clean());
        assert_eq!((storage.stored_objects(), storage.stored_bytes()), (0, 0));
    }

    #[test]
    fn room_is_made_by_what_was_used_longest_ago_and_never_by_what_cannot_fit() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        storage.set_limits(SizeLimits {
            max_size: 1000,
            min_free: 0,
        });
        let (old, _) = store_blob(&storage, &[1; 400]);
        let (young, _) = store_blob(&storage, &[2; 400]);
        storage.index().used([(&old, 5), (&young, 6)]).unwrap();
        let (huge, fits) = store_blob(&storage, &[3; 1001]);
        assert!(!fits && !is_there(&storage, &huge));
        assert!(is_there(&storage, &old));
        let (new, fits) = store_blob(&storage, &[4; 300]);
        assert!(fits && is_there(&storage, &new));
        assert!(!is_there(&storage, &old));
        assert!(is_there(&storage, &young));
        assert_eq!(storage.stored_bytes(), 700);
        assert_eq!(storage.evictions(), 1);
    }

    #[test]
    fn layers_of_an_image_that_is_too_large_are_not_stored() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        storage.set_limits(SizeLimits {
            max_size: 1000,
            min_free: 0,
        });
        let layers = [Digest::of(&[1; 600]), Digest::of(&[2; 600])];
        let entries: Vec<String> = layers
            .iter()
            .map(|digest| format!(r#"{{"digest":"{digest}","size":600}}"#))
            .collect();
        let content = format!(r#"{{"layers":[{}]}}"#, entries.join(","));
        let parsed = crate::manifest::parse(content.as_bytes(), None).unwrap();
        let repository = Repository::new("a.test", "x").unwrap();
        let digest = Digest::of(content.as_bytes());
        storage
            .store_manifest(&digest, content.as_bytes(), &parsed, &repository, &link())
            .unwrap();
        let (_, fits) = store_blob(&storage, &[1; 600]);
        assert!(!fits);
        let (_, fits) = store_blob(&storage, &[3; 600]);
        assert!(fits);
    }

    #[test]
    fn a_disk_that_fails_is_reported_and_recovers() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        let repository = Repository::new("a.test", "x").unwrap();
        let content = b"{}";
        let parsed = crate::manifest::parse(content, None).unwrap();
        let digest = Digest::of(content);
        let store = || storage.store_manifest(&digest, content, &parsed, &repository, &link());
        storage
            .disk()
            .set_fault(Some(rustix::io::Errno::NOSPC.raw_os_error()));
        assert!(store().is_err());
        assert!(storage.manifest(&digest).unwrap().is_none());
        storage.disk().set_fault(None);
        store().unwrap();
        assert!(storage.manifest(&digest).unwrap().is_some());
        assert!(
            storage
                .index()
                .linked(&repository, &digest)
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_served_from() {
        let dir = tempfile::tempdir().unwrap();
        let digest = {
            let storage = Storage::open(dir.path()).unwrap();
            store_blob(&storage, b"there").0
        };
        let storage = Storage::open_read_only(dir.path()).unwrap();
        assert!(storage.open_blob(&digest).unwrap().is_some());
        assert!(storage.index().object(&digest).unwrap().is_some());
    }
}
