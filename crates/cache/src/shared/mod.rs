//! The tier that several caches share, below the disk and before upstream: a bucket, asked for a bounded
//! time and behind a circuit breaker, filled in the background.
//!
//! ```text
//! service ──▶ Shared ──▶ circuit ──▶ store::s3::Bucket
//!                └─────▶ queue (uploads, links)
//! ```
//!
//! The bucket holds bytes and links, and no rights: whether a caller may have something is upstream's to
//! say on every node. What came without any credential is marked so; only that is served by the bucket's
//! word when upstream is silent.

mod circuit;
mod counters;
mod gc;
mod queue;
mod reading;
mod records;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use policy::config::S3Store;

use self::circuit::Circuit;
pub use self::counters::Counters;
pub use self::gc::Collected;
pub use self::queue::Job;
use self::queue::Queue;
pub use self::records::{SharedLink, SharedTag};
use crate::digest::Digest;
use crate::index::TagName;
use crate::manifest::{Kind, MAX_MANIFEST};
use crate::name::Repository;
use crate::store::s3::{self, BucketError};
use crate::store::{BlobStore, Bucket, Reading, StoreError};
use crate::upstream::Failure;

/// Bounds of what waiting for the bucket may cost.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Until an answer begins.
    pub answer_timeout: Duration,
    /// Between two pieces of a blob.
    pub piece_timeout: Duration,
    /// After waiting for this long, a blob has to have come faster than `min_speed`.
    pub slow_after: Duration,
    /// Bytes in a second.
    pub min_speed: u64,
    /// After a stall, or when it was too slow, it is not asked for this long: that it answers a small
    /// question says nothing then.
    pub slow_pause: Duration,
    /// Writing a record; a blob gets more, by its length.
    pub write_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            answer_timeout: Duration::from_secs(2),
            piece_timeout: Duration::from_secs(5),
            slow_after: Duration::from_secs(5),
            min_speed: 256 * 1024,
            slow_pause: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
        }
    }
}

/// The shared tier. Clones are the same.
#[derive(Clone)]
pub struct Shared {
    inner: Arc<Inner>,
}

struct Inner {
    bucket: Bucket,
    unused_for: Duration,
    bounds: Bounds,
    circuit: Arc<Circuit>,
    counters: Counters,
    queue: Queue,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("circuit", &self.inner.circuit)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// The tier that the config names.
    ///
    /// # Errors
    /// The settings make no client.
    pub fn open(settings: &S3Store) -> Result<Self, BucketError> {
        let bucket = s3::open(settings)?;
        Ok(Self::new(bucket, settings.unused_for, Bounds::default()))
    }

    /// A tier over a bucket. What no tag names is kept for `unused_for`.
    pub fn new(bucket: Bucket, unused_for: Duration, bounds: Bounds) -> Self {
        Self {
            inner: Arc::new(Inner {
                bucket,
                unused_for,
                bounds,
                circuit: Arc::default(),
                counters: Counters::default(),
                queue: Queue::default(),
            }),
        }
    }

    /// The bucket itself.
    pub fn bucket(&self) -> &Bucket {
        &self.inner.bucket
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// Whether it is not asked, because it did not answer.
    pub fn is_circuit_open(&self) -> bool {
        self.inner.circuit.is_open()
    }

    /// A blob from byte `from` to byte `to` (not included) or to its end; None where it is not there.
    ///
    /// # Errors
    /// It can't be asked, or does not answer in time.
    pub async fn read(
        &self,
        digest: &Digest,
        from: u64,
        to: Option<u64>,
    ) -> Result<Option<Reading>, Failure> {
        let found = self.ask(self.inner.bucket.read(digest, from, to)).await?;
        self.inner.counters.asked(found.is_some());
        Ok(found.map(|found| reading::bounded(found, self)))
    }

    /// A blob's length; None where it is not there.
    ///
    /// # Errors
    /// It can't be asked, or does not answer in time.
    pub async fn stat(&self, digest: &Digest) -> Result<Option<u64>, Failure> {
        self.ask(self.inner.bucket.stat(digest)).await
    }

    /// A verified manifest; None where it is not there, or is another content.
    ///
    /// # Errors
    /// It can't be asked, or does not answer in time.
    pub async fn manifest(&self, digest: &Digest) -> Result<Option<Bytes>, Failure> {
        let key = self.inner.bucket.keys().blob(digest);
        let found = self
            .ask(self.inner.bucket.read_small(&key, MAX_MANIFEST as u64))
            .await?;
        self.inner.counters.asked(found.is_some());
        let Some(content) = found else {
            return Ok(None);
        };
        if !digest.matches(&content) {
            self.discard(digest);
            return Ok(None);
        }
        self.inner.counters.received(content.len() as u64);
        Ok(Some(content))
    }

    /// What a tag meant when a node last used it.
    ///
    /// # Errors
    /// It can't be asked, or does not answer in time.
    pub async fn tag(&self, name: &TagName) -> Result<Option<SharedTag>, Failure> {
        let key = self.inner.bucket.keys().tag(name);
        let found = self.inner.bucket.read_small(&key, records::MAX_RECORD);
        let found = self.ask(found).await?;
        Ok(found.and_then(|content| records::parse(&content, &key)))
    }

    /// How something came to belong to a repository; None where nobody has noted that it does.
    ///
    /// # Errors
    /// It can't be asked, or does not answer in time.
    pub async fn link(
        &self,
        repository: &Repository,
        kind: Kind,
        digest: &Digest,
    ) -> Result<Option<SharedLink>, Failure> {
        let key = self.inner.bucket.keys().link(repository, kind, digest);
        let found = self.inner.bucket.read_small(&key, records::MAX_RECORD);
        let found = self.ask(found).await?;
        Ok(found.and_then(|content| records::parse(&content, &key)))
    }

    /// Other bytes than a digest says lie under it: they are deleted, in the background.
    pub fn discard(&self, digest: &Digest) {
        if !self.begin_discard(digest) {
            return;
        }
        self.inner.counters.discarded();
        tracing::warn!("the shared store has other bytes under {digest}; they are deleted there");
        let (shared, digest) = (self.clone(), digest.clone());
        tokio::spawn(async move {
            // What stays is noticed again the next time.
            let deleted = shared.ask(shared.inner.bucket.delete(&digest)).await;
            if let Err(failure) = deleted {
                tracing::debug!("{} was not deleted: {failure}", digest.short());
            }
            shared.end_discard(&digest);
        });
    }

    /// Asks for a bounded time, and not at all while the circuit is open.
    async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Failure> {
        if let Some(why) = self.inner.circuit.why_open() {
            return Err(Failure::Silent(format!("circuit open: {why}")));
        }
        let limit = self.inner.bounds.answer_timeout;
        let detail = match tokio::time::timeout(limit, question).await {
            Ok(Ok(answer)) => {
                self.inner.circuit.answered();
                return Ok(answer);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", limit.as_secs_f32()),
        };
        self.failed(&detail, None);
        Err(Failure::Silent(detail))
    }

    /// Opens the circuit; for a time that grows, unless one is given.
    fn failed(&self, detail: &str, pause: Option<Duration>) {
        self.inner.counters.failed();
        if self.inner.circuit.failed(detail, pause) {
            tokio::spawn(circuit::try_until_it_answers(
                Arc::downgrade(&self.inner.circuit),
                self.inner.bucket.clone(),
                self.inner.bounds.answer_timeout,
            ));
        }
    }
}
