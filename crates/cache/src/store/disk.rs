//! Blobs as files in the places of an OCI image layout: `blobs/sha256/<hex>`.
//!
//! What has a blob's name is whole: content goes to a temporary file first, which is synced, renamed,
//! and whose directory is synced after that. A crash leaves temporary files at most; they are swept
//! or gone on with at the next start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};

use super::{BlobStore, ByteStream, Reading, StoreError};
use crate::digest::{Algorithm, Digest};

/// Read at a time.
const CHUNK: usize = 256 * 1024;
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// The directory of a cache. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Disk {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    next_temporary: AtomicU64,
    /// Held while the directory is in use: two caches in one directory would delete each other's files.
    _lock: Option<File>,
    #[cfg(test)]
    fault: parking_lot::Mutex<Option<i32>>,
}

impl Disk {
    /// Opens a directory, makes what is missing in it, and sweeps what a crash has left there.
    /// Downloads that were under way stay, to be gone on with.
    ///
    /// # Errors
    /// Where the directory can't be made or used, or another process uses it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let doing = |what: &str| StoreError::io(format!("{what} {}", dir.display()));
        for algorithm in Algorithm::ALL {
            let blobs = dir.join("blobs").join(algorithm.name());
            fs::create_dir_all(&blobs).map_err(doing("making the cache's directory"))?;
        }
        fs::create_dir_all(dir.join("partial")).map_err(doing("making the cache's directory"))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("lock"))
            .map_err(doing("opening the lock of"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("another process uses it; ask that one by its commands"))
            .map_err(doing("locking"))?;
        let disk = Self::new(dir, Some(lock));
        disk.sweep_temporary();
        let layout = dir.join("oci-layout");
        if !layout.exists() {
            disk.write_file(&layout, LAYOUT.as_bytes())
                .map_err(doing("writing oci-layout in"))?;
        }
        Ok(disk)
    }

    /// A directory that can only be read, or not even that: whatever is written fails.
    pub fn read_only(dir: &Path) -> Self {
        Self::new(dir, None)
    }

    fn new(dir: &Path, lock: Option<File>) -> Self {
        Self {
            inner: Arc::new(Inner {
                dir: dir.to_owned(),
                next_temporary: AtomicU64::new(0),
                _lock: lock,
                #[cfg(test)]
                fault: parking_lot::Mutex::new(None),
            }),
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Where a blob is, if it is there.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let blobs = self.inner.dir.join("blobs");
        blobs.join(digest.algorithm().name()).join(digest.hex())
    }

    /// Where a blob grows until it is whole.
    pub fn partial_path(&self, digest: &Digest) -> PathBuf {
        let name = format!("{}-{}", digest.algorithm().name(), digest.hex());
        self.inner.dir.join("partial").join(name)
    }

    /// Opens a blob for reading; what is open stays readable when it is deleted.
    ///
    /// # Errors
    /// What the file system says, except that there is no such file.
    pub fn open_blob(&self, digest: &Digest) -> io::Result<Option<(File, u64)>> {
        match File::open(self.path(digest)) {
            Ok(file) => {
                let length = file.metadata()?.len();
                Ok(Some((file, length)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a whole small blob.
    ///
    /// # Errors
    /// What the file system says; a blob above `limit` is an error too.
    pub fn read_small(&self, digest: &Digest, limit: usize) -> io::Result<Option<Bytes>> {
        let Some((file, length)) = self.open_blob(digest)? else {
            return Ok(None);
        };
        if length > limit as u64 {
            return Err(io::Error::other("it is longer than a manifest may be"));
        }
        let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        file.take(limit as u64).read_to_end(&mut content)?;
        Ok(Some(content.into()))
    }

    /// Stores a small content whose digest the caller has verified.
    ///
    /// # Errors
    /// Where the disk fails; nothing is visible then.
    pub fn write_small(&self, digest: &Digest, content: &[u8]) -> Result<(), StoreError> {
        let doing = format!("storing {}", digest.short());
        self.write_file(&self.path(digest), content)
            .map_err(StoreError::io(doing))
    }

    /// Opens the file that a blob grows in, which may have content from before a restart.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn open_partial(&self, digest: &Digest) -> io::Result<File> {
        self.faulty()?;
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(self.partial_path(digest))
    }

    /// Writes into a growing blob.
    ///
    /// # Errors
    /// Where the disk fails or is full.
    pub fn write_partial(&self, file: &File, content: &[u8], offset: u64) -> io::Result<()> {
        self.faulty()?;
        file.write_all_at(content, offset)
    }

    /// Makes a growing blob, whose digest the caller has verified, a blob.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn commit_partial(&self, digest: &Digest, file: &File) -> io::Result<()> {
        self.faulty()?;
        file.sync_all()?;
        fs::rename(self.partial_path(digest), self.path(digest))?;
        self.forget_ranges(digest);
        sync_dir(&self.path(digest))
    }

    /// Throws a growing blob away.
    pub fn discard_partial(&self, digest: &Digest) {
        // What can't be deleted now is swept at the next start.
        let _ = fs::remove_file(self.partial_path(digest));
        self.forget_ranges(digest);
    }

    /// Notes which parts of a growing blob are there, for after a restart.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn note_ranges(&self, digest: &Digest, ranges: &[(u64, u64)]) -> io::Result<()> {
        self.faulty()?;
        let text = serde_json::to_vec(ranges)?;
        let path = self.ranges_path(digest);
        let temporary = path.with_extension("ranges-new");
        fs::write(&temporary, text)?;
        fs::rename(temporary, path)
    }

    /// Which parts of a growing blob were there when it was last noted.
    pub fn noted_ranges(&self, digest: &Digest) -> Vec<(u64, u64)> {
        let noted = fs::read(self.ranges_path(digest)).ok();
        let noted = noted.and_then(|text| serde_json::from_slice(&text).ok());
        noted.unwrap_or_default()
    }

    fn ranges_path(&self, digest: &Digest) -> PathBuf {
        self.partial_path(digest).with_extension("ranges")
    }

    fn forget_ranges(&self, digest: &Digest) {
        let _ = fs::remove_file(self.ranges_path(digest));
    }

    /// Bytes that growing blobs take, and when each was last written to.
    pub fn partials(&self) -> Vec<(Digest, u64, std::time::SystemTime)> {
        let Ok(entries) = fs::read_dir(self.inner.dir.join("partial")) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                let (algorithm, hex) = name.to_str()?.split_once('-')?;
                let digest = format!("{algorithm}:{hex}").parse().ok()?;
                let metadata = entry.metadata().ok()?;
                let blocks = std::os::unix::fs::MetadataExt::blocks(&metadata);
                Some((digest, blocks * 512, metadata.modified().ok()?))
            })
            .collect()
    }

    /// Deletes a blob; true where there was one. Whoever reads it reads on.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, digest: &Digest) -> io::Result<bool> {
        match fs::remove_file(self.path(digest)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Calls `each` with every blob and its length. Files with other names are passed over.
    ///
    /// # Errors
    /// What the file system says.
    pub fn for_each(&self, mut each: impl FnMut(Digest, u64)) -> io::Result<()> {
        for algorithm in Algorithm::ALL {
            let blobs = self.inner.dir.join("blobs").join(algorithm.name());
            for entry in fs::read_dir(blobs)? {
                let entry = entry?;
                let name = entry.file_name();
                let digest = name
                    .to_str()
                    .and_then(|hex| Digest::from_parts(algorithm, hex).ok());
                if let Some(digest) = digest {
                    match entry.metadata() {
                        Ok(metadata) => each(digest, metadata.len()),
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }

    /// Bytes that are free for us on the file system, and bytes that it has.
    ///
    /// # Errors
    /// What the file system says.
    pub fn space(&self) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::statvfs(&self.inner.dir)?;
        Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
    }

    /// Writes a file so that it is there whole or not at all.
    pub(crate) fn write_file(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.faulty()?;
        let temporary = self.temporary();
        let written = (|| {
            let mut file = File::create(&temporary)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            sync_dir(path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn temporary(&self) -> PathBuf {
        let number = self.inner.next_temporary.fetch_add(1, Ordering::Relaxed);
        self.inner.dir.join("partial").join(format!("new.{number}"))
    }

    fn sweep_temporary(&self) {
        let Ok(entries) = fs::read_dir(self.inner.dir.join("partial")) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("new.") || name.ends_with("-new") {
                // What can't be deleted is tried again at the next start.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Lets every write fail with this error number; None lets them succeed.
    #[cfg(test)]
    pub(crate) fn set_fault(&self, errno: Option<i32>) {
        *self.inner.fault.lock() = errno;
    }

    #[cfg(test)]
    fn faulty(&self) -> io::Result<()> {
        match *self.inner.fault.lock() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }

    #[cfg(not(test))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "tests make writes fail here"
    )]
    fn faulty(&self) -> io::Result<()> {
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        doing: String,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let disk = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&disk)).await;
        done.unwrap_or_else(|ended| Err(io::Error::other(ended)))
            .map_err(StoreError::io(doing))
    }
}

/// Syncs the directory of a file that was renamed: without that, power loss can undo it.
fn sync_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// A file from an offset to another, read piece by piece where blocking is fine.
fn stream_file(file: File, from: u64, to: u64) -> ByteStream {
    let file = Arc::new(file);
    stream::try_unfold((file, from), move |(file, at)| async move {
        let reading = Arc::clone(&file);
        let read = tokio::task::spawn_blocking(move || {
            let left = usize::try_from(to.saturating_sub(at)).unwrap_or(CHUNK);
            let mut chunk = vec![0; left.min(CHUNK)];
            let length = reading.read_at(&mut chunk, at)?;
            chunk.truncate(length);
            Ok::<_, io::Error>(Bytes::from(chunk))
        });
        let chunk = read
            .await
            .unwrap_or_else(|ended| Err(io::Error::other(ended)))?;
        let next = at + chunk.len() as u64;
        Ok((!chunk.is_empty()).then_some((chunk, (file, next))))
    })
    .boxed()
}

impl BlobStore for Disk {
    fn stat<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>, StoreError>> {
        let wanted = digest.clone();
        Box::pin(
            self.blocking(format!("looking for {}", digest.short()), move |disk| {
                Ok(disk.open_blob(&wanted)?.map(|(_, length)| length))
            }),
        )
    }

    fn read<'a>(
        &'a self,
        digest: &'a Digest,
        from: u64,
        to: Option<u64>,
    ) -> BoxFuture<'a, Result<Option<Reading>, StoreError>> {
        let wanted = digest.clone();
        Box::pin(async move {
            let doing = format!("opening {}", wanted.short());
            let opened = self
                .blocking(doing, move |disk| disk.open_blob(&wanted))
                .await?;
            Ok(opened.map(|(file, total)| Reading {
                total,
                bytes: stream_file(file, from, to.unwrap_or(total)),
            }))
        })
    }

    fn put<'a>(
        &'a self,
        digest: &'a Digest,
        file: &'a Path,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let (wanted, source) = (digest.clone(), file.to_owned());
        Box::pin(async move {
            let doing = format!("storing {}", wanted.short());
            let put = wanted.clone();
            let is_right = self
                .blocking(doing, move |disk| disk.put_file(&put, &source))
                .await?;
            if is_right {
                Ok(())
            } else {
                Err(StoreError::WrongDigest(wanted))
            }
        })
    }

    fn delete<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, StoreError>> {
        let wanted = digest.clone();
        let doing = format!("deleting {}", digest.short());
        Box::pin(self.blocking(doing, move |disk| disk.remove(&wanted)))
    }

    fn list(&self) -> BoxStream<'_, Result<(Digest, u64), StoreError>> {
        stream::once(async move {
            let doing = format!("listing {}", self.dir().display());
            let listed = self.blocking(doing, |disk| {
                let mut all = Vec::new();
                disk.for_each(|digest, length| all.push((digest, length)))?;
                Ok(all)
            });
            match listed.await {
                Ok(all) => all.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            }
        })
        .flat_map(stream::iter)
        .boxed()
    }
}

impl Disk {
    /// Copies a file to a blob's place; false where it has another digest.
    fn put_file(&self, digest: &Digest, source: &Path) -> io::Result<bool> {
        if self.open_blob(digest)?.is_some() {
            return Ok(true);
        }
        self.faulty()?;
        let temporary = self.temporary();
        let put = self.copy_verified(digest, source, &temporary);
        if !matches!(put, Ok(true)) {
            let _ = fs::remove_file(&temporary);
        }
        put
    }

    fn copy_verified(&self, digest: &Digest, source: &Path, temporary: &Path) -> io::Result<bool> {
        let (mut from, mut to) = (File::open(source)?, File::create(temporary)?);
        let mut hasher = digest.hasher();
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = from.read(&mut chunk)?;
            let Some(content) = chunk.get(..length).filter(|content| !content.is_empty()) else {
                break;
            };
            hasher.update(content);
            to.write_all(content)?;
        }
        if hasher.finish() != *digest {
            return Ok(false);
        }
        to.sync_all()?;
        let path = self.path(digest);
        fs::rename(temporary, &path)?;
        sync_dir(&path)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[tokio::test]
    async fn conforms() {
        let dir = tempfile::tempdir().unwrap();
        conformance::check(&Disk::open(dir.path()).unwrap()).await;
    }

    #[test]
    fn a_directory_has_one_owner_and_is_swept_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"growing");
        {
            let disk = Disk::open(dir.path()).unwrap();
            assert!(Disk::open(dir.path()).is_err());
            let file = disk.open_partial(&digest).unwrap();
            disk.write_partial(&file, b"grow", 0).unwrap();
            disk.note_ranges(&digest, &[(0, 4)]).unwrap();
            fs::write(dir.path().join("partial/new.7"), b"left over").unwrap();
        }
        let disk = Disk::open(dir.path()).unwrap();
        assert!(!dir.path().join("partial/new.7").exists());
        assert_eq!(disk.noted_ranges(&digest), [(0, 4)]);
        let file = disk.open_partial(&digest).unwrap();
        disk.write_partial(&file, b"ing", 4).unwrap();
        disk.commit_partial(&digest, &file).unwrap();
        let content = disk.read_small(&digest, 100).unwrap().unwrap();
        assert_eq!(content, "growing");
        assert!(disk.partials().is_empty());
    }

    #[test]
    fn a_failing_disk_leaves_nothing_visible() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        let digest = Digest::of(b"x");
        disk.set_fault(Some(rustix::io::Errno::IO.raw_os_error()));
        assert!(disk.write_small(&digest, b"x").is_err());
        assert!(disk.open_blob(&digest).unwrap().is_none());
        disk.set_fault(None);
        disk.write_small(&digest, b"x").unwrap();
        assert!(disk.open_blob(&digest).unwrap().is_some());
    }
}
