//! Blobs that come from a file in one go: whole and durable before they are visible.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use super::{Disk, Step};
use crate::digest::Digest;

/// Read at a time.
const CHUNK: usize = 256 * 1024;

/// A content that is on the disk and has its digest, but not its name yet. Dropping it deletes it.
#[derive(Debug)]
pub struct Staged {
    temporary: PathBuf,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Where it has its name nothing is here any more; what can't be deleted is swept at the next start.
        let _ = fs::remove_file(&self.temporary);
    }
}

impl Disk {
    /// Writes what is read from `from` beside the blobs. None where it has another digest.
    ///
    /// # Errors
    /// Where the disk fails or is full, or `from` can't be read.
    pub fn stage(&self, digest: &Digest, from: &mut dyn Read) -> io::Result<Option<Staged>> {
        self.faulty()?;
        let staged = Staged {
            temporary: self.temporary(),
        };
        let mut file = File::create(&staged.temporary)?;
        let mut hasher = digest.hasher();
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = from.read(&mut chunk)?;
            let Some(content) = chunk.get(..length).filter(|content| !content.is_empty()) else {
                break;
            };
            hasher.update(content);
            file.write_all(content)?;
        }
        if hasher.finish() != *digest {
            return Ok(None);
        }
        file.sync_all()?;
        self.did(|| Step::Synced(staged.temporary.clone()));
        Ok(Some(staged))
    }

    /// Makes a blob of it. Durable when it returns.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn place(&self, staged: &Staged, digest: &Digest) -> io::Result<()> {
        self.faulty()?;
        self.put_in_place(&staged.temporary, &self.path(digest))
    }
}
