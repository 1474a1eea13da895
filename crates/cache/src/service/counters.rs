//! What was asked for, and what came of it, since the start.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A manifest.
    Manifest,
    /// A blob.
    Blob,
    /// Tags or referrers.
    List,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Manifest, Self::Blob, Self::List];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::List => "list",
        }
    }
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was in the store.
    Hit,
    /// It came from upstream.
    Miss,
    /// It was in the store, and nobody could say whether it still holds.
    Stale,
    /// There was nothing to give.
    Error,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hit, Self::Miss, Self::Stale, Self::Error];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Error => "error",
        }
    }
}

/// Counters, all from zero at the start.
#[derive(Debug, Default)]
pub struct Counters {
    requests: [[AtomicU64; 4]; 3],
    sent: AtomicU64,
    received: Arc<AtomicU64>,
    /// Answers of upstream by the first bound that they were below, and all of them.
    upstream: [AtomicU64; BOUNDS.len()],
    upstream_count: AtomicU64,
    upstream_micros: AtomicU64,
}

/// Bounds of the histogram, in seconds.
const BOUNDS: [f64; 8] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

impl Counters {
    /// Upstream answered a question after this long.
    pub fn answered(&self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound);
        if let Some(counter) = bucket.and_then(|at| self.upstream.get(at)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.upstream_micros.fetch_add(micros, Ordering::Relaxed);
        self.upstream_count.fetch_add(1, Ordering::Relaxed);
    }

    /// Bounds with the number of answers below each, the sum in seconds, and the number of all.
    pub fn upstream(&self) -> (Vec<(f64, u64)>, f64, u64) {
        let mut below = 0;
        let buckets = BOUNDS.into_iter().zip(&self.upstream);
        let buckets = buckets.map(|(bound, counter)| {
            below += counter.load(Ordering::Relaxed);
            (bound, below)
        });
        let buckets = buckets.collect();
        let seconds = self.upstream_micros.load(Ordering::Relaxed) as f64 / 1e6;
        (
            buckets,
            seconds,
            self.upstream_count.load(Ordering::Relaxed),
        )
    }

    /// A request was answered.
    pub fn request(&self, kind: Kind, outcome: Outcome) {
        let by_kind = self.requests.get(kind as usize);
        if let Some(counter) = by_kind.and_then(|row| row.get(outcome as usize)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests of one kind with one outcome.
    pub fn requests(&self, kind: Kind, outcome: Outcome) -> u64 {
        let by_kind = self.requests.get(kind as usize);
        let counter = by_kind.and_then(|row| row.get(outcome as usize));
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Bytes of bodies went to clients.
    pub fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes of bodies from upstream, for who has no counters at hand.
    pub(super) fn receiving(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// Bytes of bodies came from upstream.
    pub fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes to clients and from upstream.
    pub fn bytes(&self) -> (u64, u64) {
        (
            self.sent.load(Ordering::Relaxed),
            self.received.load(Ordering::Relaxed),
        )
    }
}
