//! Room: how much the store may hold, what is reserved in it, and what goes when there is none.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::Ordering;

use super::{Storage, StorageError};
use crate::digest::Digest;
use crate::name::Repository;

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

impl Storage {
    /// Changes how much may be stored; what is too much goes with the next thing that is stored.
    pub fn set_limits(&self, limits: SizeLimits) {
        *self.limits.lock() = limits;
    }

    /// How much may be stored.
    pub fn limits(&self) -> SizeLimits {
        *self.limits.lock()
    }

    /// Keeps room for something that is about to be stored, and makes room where there is none. False
    /// where there can't be any; what is fetched then passes through.
    pub fn reserve(&self, digest: &Digest, bytes: u64) -> bool {
        // One after another: two that look at the same time both find the room that is there for one.
        let _reserving = self.reserving.lock();
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

    /// The same for a part of an image: not where every image of the repository that has it is larger than
    /// the store. Its first layers would make others go, and it would never be whole. What other
    /// repositories say of the same layer does not count.
    pub fn reserve_for(&self, repository: &Repository, digest: &Digest, bytes: u64) -> bool {
        // Where the index can't be read, nothing can be stored either, and that is reported.
        let image = self.index.smallest_image(repository, digest);
        let is_oversized = matches!(image, Ok(Some(size)) if size > self.limits().max_size);
        !is_oversized && self.reserve(digest, bytes)
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
        self.discard_idle_partials(digest);
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
            self.discard_idle_partials(&nothing);
            self.evict(missing.wanted(limits))?;
        }
        Ok(())
    }

    fn missing(&self, digest: &Digest, bytes: u64, limits: SizeLimits) -> io::Result<Missing> {
        let partials = self.disk.partials().into_iter();
        let there: HashMap<Digest, u64> =
            partials.map(|(digest, size, _)| (digest, size)).collect();
        // Of what is reserved, what has been written is not free any more.
        let left = |digest: &Digest, bytes: u64| {
            bytes.saturating_sub(there.get(digest).copied().unwrap_or(0))
        };
        let (coming, to_be_written) = {
            let reserved = self.reserved.lock();
            let others = reserved.iter().filter(|(other, _)| *other != digest);
            others.fold(
                (0, left(digest, bytes)),
                |(all, open): (u64, u64), (other, bytes)| {
                    (
                        all.saturating_add(*bytes),
                        open.saturating_add(left(other, *bytes)),
                    )
                },
            )
        };
        let used = self.stored_bytes().saturating_add(coming);
        let (free, _) = self.disk.space()?;
        Ok(Missing {
            by_size: used.saturating_add(bytes).saturating_sub(limits.max_size),
            by_free: limits
                .min_free
                .saturating_add(to_be_written)
                .saturating_sub(free),
        })
    }

    fn evict(&self, wanted: u64) -> Result<(), StorageError> {
        self.flush_touched()?;
        let _changing = self.changing.lock();
        let mut busy: HashSet<Digest> = self.reserved.lock().keys().cloned().collect();
        busy.extend(self.held.lock().keys().cloned());
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

    /// All but `wanted`, which is to go on.
    fn discard_idle_partials(&self, wanted: &Digest) {
        let reserved = self.reserved.lock();
        for (digest, _, _) in self.disk.partials() {
            if digest != *wanted && !reserved.contains_key(&digest) {
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
}
