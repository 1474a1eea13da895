//! What was asked of the shared store, and what came of it, since the start.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters, all from zero at the start.
#[derive(Debug, Default)]
pub struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    errors: AtomicU64,
    discarded: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Counters {
    pub(super) fn asked(&self, is_there: bool) {
        add(if is_there { &self.hits } else { &self.misses }, 1);
    }

    pub(super) fn failed(&self) {
        add(&self.errors, 1);
    }

    pub(super) fn discarded(&self) {
        add(&self.discarded, 1);
    }

    pub(super) fn received(&self, bytes: u64) {
        add(&self.received, bytes);
    }

    pub(super) fn sent(&self, bytes: u64) {
        add(&self.sent, bytes);
    }

    /// Questions for blobs and manifests, by what came of them: `hit`, `miss`, `error`.
    pub fn requests(&self) -> [(&'static str, u64); 3] {
        [
            ("hit", get(&self.hits)),
            ("miss", get(&self.misses)),
            ("error", get(&self.errors)),
        ]
    }

    /// Bytes that went there and came from there.
    pub fn bytes(&self) -> (u64, u64) {
        (get(&self.sent), get(&self.received))
    }

    /// Blobs with other bytes than their digest says.
    pub fn discards(&self) -> u64 {
        get(&self.discarded)
    }
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
