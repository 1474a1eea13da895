//! What comes in from a file instead of being pulled: first its blobs, one by one, then all of what they
//! make up in one step.

use std::io::{self, Read};

use super::{Storage, StorageError, now};
use crate::digest::Digest;
use crate::index::{ImportedImage, NewObject};

/// Digests that are not evicted while this lives.
#[derive(Debug)]
pub struct Held<'a> {
    storage: &'a Storage,
    digests: Vec<Digest>,
}

impl Held<'_> {
    /// Holds one more.
    pub fn add(&mut self, digest: &Digest) {
        let mut held = self.storage.held.lock();
        *held.entry(digest.clone()).or_default() += 1;
        self.digests.push(digest.clone());
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut held = self.storage.held.lock();
        for digest in &self.digests {
            if let Some(count) = held.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    held.remove(digest);
                }
            }
        }
    }
}

/// What became of a blob that was to be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenIn {
    /// It is in the store now, or was already.
    Stored,
    /// It has another digest.
    Damaged,
    /// There is no room for it, and none can be made.
    NoRoom,
}

impl Storage {
    /// Holds nothing yet.
    pub fn holding_nothing(&self) -> Held<'_> {
        Held {
            storage: self,
            digests: Vec::new(),
        }
    }

    /// Stores a blob that is read from somewhere. Until an image has it, it is the first to be evicted,
    /// unless somebody holds it.
    ///
    /// # Errors
    /// Where the disk fails, or `from` can't be read.
    pub fn take_in(
        &self,
        digest: &Digest,
        size: u64,
        from: &mut dyn Read,
    ) -> Result<TakenIn, StorageError> {
        let there = self.disk.open_blob(digest)?;
        if there.is_some_and(|(_, length)| length == size) && self.index.object(digest)?.is_some() {
            // Who brings a name alone brings nothing: the bytes have to be there, and right.
            return Ok(match is_right(digest, from)? {
                true => TakenIn::Stored,
                false => TakenIn::Damaged,
            });
        }
        if !self.reserve(digest, size) {
            return Ok(TakenIn::NoRoom);
        }
        let taken = self.stage_and_note(digest, size, from);
        self.release(digest);
        taken
    }

    fn stage_and_note(
        &self,
        digest: &Digest,
        size: u64,
        from: &mut dyn Read,
    ) -> Result<TakenIn, StorageError> {
        let Some(staged) = self.disk.stage(digest, from)? else {
            return Ok(TakenIn::Damaged);
        };
        let _changing = self.changing.lock();
        self.disk.place(&staged, digest)?;
        self.note(&NewObject {
            digest,
            size,
            manifest: None,
            now: 0,
        })?;
        Ok(TakenIn::Stored)
    }

    /// Makes images of blobs that were taken in. All of them or none; durable when it returns.
    ///
    /// # Errors
    /// Where the disk fails, or somebody has deleted one of the blobs in the meantime.
    pub fn adopt(&self, images: &[ImportedImage]) -> Result<(), StorageError> {
        let _changing = self.changing.lock();
        for digest in images.iter().flat_map(ImportedImage::digests) {
            if self.disk.open_blob(digest)?.is_none() {
                let gone = format!("{} was deleted in the meantime", digest.short());
                return Err(io::Error::other(gone).into());
            }
        }
        Ok(self.index.import(images, now())?)
    }
}

/// Whether a content has its digest; nothing is kept of it.
pub(super) fn is_right(digest: &Digest, from: &mut dyn Read) -> io::Result<bool> {
    let mut hasher = digest.hasher();
    let mut chunk = vec![0; 256 * 1024];
    loop {
        let length = from.read(&mut chunk)?;
        match chunk.get(..length) {
            Some(content) if !content.is_empty() => hasher.update(content),
            _ => return Ok(hasher.finish() == *digest),
        }
    }
}
