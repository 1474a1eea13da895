//! Blobs as files in the places of an OCI image layout: `blobs/sha256/<hex>`.
//!
//! What has a blob's name is whole: content goes to a temporary file first, which is synced, renamed,
//! and whose directory is synced after that. A crash leaves temporary files at most; they are swept
//! or gone on with at the next start.

mod as_store;
mod growing;
mod staged;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;

pub use self::staged::Staged;
use super::StoreError;
use crate::digest::{Algorithm, Digest};

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
    #[cfg(test)]
    observer: parking_lot::Mutex<Option<Observer>>,
}

/// What has been done to the directory: tests let the power fail after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// What a file has is on the disk.
    Synced(PathBuf),
    /// A file has another name, which may not be on the disk yet.
    Renamed(PathBuf, PathBuf),
    /// The names in a directory are on the disk.
    DirectorySynced(PathBuf),
}

#[cfg(test)]
struct Observer(Box<dyn Fn(&Step) + Send + Sync>);

#[cfg(test)]
impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
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
        for private in ["blobs", "partial"] {
            // What needs a secret to be pulled must not be for every user of the node to read, whatever the umask is
            // and whoever has made the directory.
            let private = dir.join(private);
            if let Err(error) = fs::set_permissions(&private, Permissions::from_mode(0o700)) {
                tracing::warn!(
                    "setting mode 0700 of {}: {error}; other users of the node may be able to read images there",
                    private.display()
                );
            }
        }
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
                #[cfg(test)]
                observer: parking_lot::Mutex::new(None),
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
            self.did(|| Step::Synced(temporary.clone()));
            self.put_in_place(&temporary, path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Gives a file that was synced the name that it is looked for by, and makes the name durable:
    /// without that, power loss can undo it.
    fn put_in_place(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        self.did(|| Step::Renamed(from.to_owned(), to.to_owned()));
        if let Some(dir) = to.parent() {
            File::open(dir)?.sync_all()?;
            self.did(|| Step::DirectorySynced(dir.to_owned()));
        }
        Ok(())
    }

    #[cfg(test)]
    fn did(&self, step: impl FnOnce() -> Step) {
        if let Some(Observer(observe)) = &*self.inner.observer.lock() {
            observe(&step());
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests look on here")]
    fn did(&self, _: impl FnOnce() -> Step) {}

    /// Calls `observe` after every step from now on.
    #[cfg(test)]
    pub(crate) fn observe(&self, observe: impl Fn(&Step) + Send + Sync + 'static) {
        *self.inner.observer.lock() = Some(Observer(Box::new(observe)));
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
}
