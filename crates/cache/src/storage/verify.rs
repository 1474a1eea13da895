//! Looking at every blob, and bringing disk and index together after a crash.

use std::time::Duration;

use super::imports::is_right;
use super::{Storage, StorageError};
use crate::digest::Digest;
use crate::index::NewObject;

/// Downloads that nobody has gone on with for this long are thrown away.
const PARTIAL_TTL: Duration = Duration::from_secs(24 * 60 * 60);

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
            if !is_right(&digest, &mut file).unwrap_or(false) {
                verified.damaged.push(digest);
            }
        }
        Ok(verified)
    }
}
