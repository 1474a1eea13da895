//! Blobs that are not whole yet, and temporary files: both are below `partial`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::{Disk, Step};
use crate::digest::Digest;

impl Disk {
    /// Where a blob grows until it is whole.
    pub fn partial_path(&self, digest: &Digest) -> PathBuf {
        let name = format!("{}-{}", digest.algorithm().name(), digest.hex());
        self.inner.dir.join("partial").join(name)
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
        let partial = self.partial_path(digest);
        file.sync_all()?;
        self.did(|| Step::Synced(partial.clone()));
        self.put_in_place(&partial, &self.path(digest))?;
        self.forget_ranges(digest);
        Ok(())
    }

    /// Throws a growing blob away.
    pub fn discard_partial(&self, digest: &Digest) {
        // What can't be deleted now is swept at the next start.
        let _ = fs::remove_file(self.partial_path(digest));
        self.forget_ranges(digest);
    }

    /// Makes durable what is there of a growing blob, and notes which parts that is, for after a crash.
    ///
    /// # Errors
    /// Where the disk fails. An error is told only once, so that what is there can't be trusted after it.
    pub fn save_partial(
        &self,
        digest: &Digest,
        file: &File,
        ranges: &[(u64, u64)],
    ) -> io::Result<()> {
        self.faulty()?;
        file.sync_data()?;
        self.did(|| Step::Synced(self.partial_path(digest)));
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

    pub(super) fn temporary(&self) -> PathBuf {
        let number = self.inner.next_temporary.fetch_add(1, Ordering::Relaxed);
        self.inner.dir.join("partial").join(format!("new.{number}"))
    }

    pub(super) fn sweep_temporary(&self) {
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
}
