//! What is still to be written to the bucket, in the background: nobody's pull waits for it.
//!
//! While the circuit is open the queue waits. What can't be written is tried again, after a growing pause;
//! that is no reason not to read: a key may be for reading only. What is lost by the end of the process is made good when a
//! tag of the image is used again: with it, all that is here of the image is looked for in the bucket.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use policy::backoff::Backoff;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::records::{SharedLink, SharedTag};
use super::{Inner, Shared, records};
use crate::digest::Digest;
use crate::index::TagName;
use crate::manifest::Kind;
use crate::name::Repository;
use crate::storage::{Storage, now};
use crate::store::StoreError;

/// More are not remembered; the oldest are not written then.
const MAX_JOBS: usize = 10_000;
/// Jobs that are done at once.
const WORKERS: usize = 2;
/// How long a record is not written again that says the same.
const RECORD_TTL: Duration = Duration::from_secs(60 * 60);
/// How long a blob is not looked for again.
const BLOB_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Pauses after what could not be written.
const RETRY_BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
};
/// Bytes in a second; an upload that is slower is begun anew.
const MIN_UPLOAD_SPEED: u64 = 64 * 1024;
/// Names of what was written, at most.
const MAX_WRITTEN: usize = 100_000;

/// Something that the bucket is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// The bytes of a blob or manifest of the store.
    Content(Digest),
    /// That something belongs to a repository.
    Link {
        /// The repository.
        repository: Repository,
        /// As what.
        kind: Kind,
        /// Which.
        digest: Digest,
        /// What is noted.
        link: SharedLink,
    },
    /// That a manifest was used again, where it is known to belong to the repository.
    Use {
        /// The repository.
        repository: Repository,
        /// The manifest.
        digest: Digest,
    },
    /// What a tag means.
    Tag {
        /// The tag.
        name: TagName,
        /// What is noted.
        tag: SharedTag,
    },
}

impl Job {
    /// Two jobs with one name do the same.
    fn name(&self) -> String {
        match self {
            Self::Content(digest) => digest.to_string(),
            Self::Link {
                repository,
                digest,
                link,
                ..
            } => format!("link {repository}@{digest} {}", link.needs_proof),
            Self::Use { repository, digest } => format!("use {repository}@{digest}"),
            Self::Tag { name, tag } => {
                format!("tag {name}@{} {}", tag.digest, tag.needs_proof)
            }
        }
    }

    fn ttl(&self) -> Duration {
        match self {
            Self::Content(_) => BLOB_TTL,
            Self::Link { .. } | Self::Use { .. } | Self::Tag { .. } => RECORD_TTL,
        }
    }
}

/// Jobs that wait, and what was done.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
}

/// What who waits for the end wants to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// Jobs that wait or are being done.
    open: usize,
    /// The last one could not be done.
    is_failing: bool,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(Job, Weak<Storage>)>,
    /// Names of the jobs that wait or are being done.
    names: HashSet<String>,
    workers: usize,
    /// Names of what was done, and until when it need not be done again.
    written: HashMap<String, Instant>,
    /// Contents that are being deleted because they were wrong, and the store that has the right one where
    /// it is to be written after that.
    discards: HashMap<Digest, Option<Weak<Storage>>>,
    /// It was said that jobs are lost.
    overflows: bool,
    /// Jobs in a row that could not be done.
    failures: u32,
}

impl Shared {
    /// Writes something in the background, unless that was done a moment ago.
    pub fn publish(&self, storage: &Arc<Storage>, job: Job) {
        let queue = &self.inner.queue;
        let mut state = queue.state.lock();
        let name = job.name();
        let is_done = state.written.get(&name);
        if is_done.is_some_and(|until| *until > Instant::now()) || !state.names.insert(name) {
            return;
        }
        state.waiting.push_back((job, Arc::downgrade(storage)));
        if state.waiting.len() > MAX_JOBS
            && let Some((lost, _)) = state.waiting.pop_front()
        {
            state.names.remove(&lost.name());
            if !state.overflows {
                state.overflows = true;
                tracing::warn!(
                    "more than {MAX_JOBS} objects wait for the shared store; the oldest are written when they are used again"
                );
            }
        }
        queue.tell(&state);
        if state.workers < WORKERS {
            state.workers += 1;
            tokio::spawn(work(Arc::downgrade(&self.inner)));
        }
    }

    /// Waits until all is written. False where something can't be.
    pub async fn finish(&self) -> bool {
        let mut progress = self.inner.queue.progress.subscribe();
        let mut circuit = self.inner.circuit.watch();
        tokio::select! {
            ended = progress.wait_for(|progress| progress.is_failing || progress.open == 0) => {
                ended.is_ok_and(|progress| !progress.is_failing)
            }
            _ = circuit.wait_for(|is_open| *is_open) => false,
        }
    }
}

impl Queue {
    fn tell(&self, state: &State) {
        self.progress.send_replace(Progress {
            open: state.names.len(),
            is_failing: state.failures > 0,
        });
    }
}

/// Does jobs until there are none.
async fn work(inner: Weak<Inner>) {
    loop {
        let Some(strong) = inner.upgrade() else {
            return;
        };
        let shared = Shared { inner: strong };
        if shared.is_circuit_open() {
            let mut circuit = shared.inner.circuit.watch();
            // Held on to, the tier would outlive a config that names another bucket.
            drop(shared);
            if circuit.wait_for(|is_open| !*is_open).await.is_err() {
                return;
            }
            continue;
        }
        let next = {
            let mut state = shared.inner.queue.state.lock();
            let next = state.waiting.pop_front();
            if next.is_none() {
                state.workers -= 1;
            }
            next
        };
        let Some((job, storage)) = next else {
            return;
        };
        let done = match storage.upgrade() {
            Some(storage) => shared.execute(&job, &storage).await,
            None => Ok(()),
        };
        let pause = shared.ended(job, storage, done);
        drop(shared);
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
}

impl Shared {
    /// Marks wrong content that is going to be deleted. False where that is under way.
    pub(super) fn begin_discard(&self, digest: &Digest) -> bool {
        let mut state = self.inner.queue.state.lock();
        let is_new = !state.discards.contains_key(digest);
        if is_new {
            state.discards.insert(digest.clone(), None);
        }
        is_new
    }

    /// It is deleted: the right content can be written, where that was wanted in the meantime.
    pub(super) fn end_discard(&self, digest: &Digest) {
        let job = Job::Content(digest.clone());
        let wanted = {
            let mut state = self.inner.queue.state.lock();
            state.written.remove(&job.name());
            state.discards.remove(digest).flatten()
        };
        if let Some(storage) = wanted.and_then(|storage| storage.upgrade()) {
            self.publish(&storage, job);
        }
    }

    /// Notes how a job has ended; how long to wait before the next.
    fn ended(
        &self,
        job: Job,
        storage: Weak<Storage>,
        done: Result<(), StoreError>,
    ) -> Option<Duration> {
        let queue = &self.inner.queue;
        let mut state = queue.state.lock();
        let mut pause = None;
        match done {
            Ok(()) => {
                let name = job.name();
                state.names.remove(&name);
                if let Job::Content(digest) = &job
                    && let Some(wanted) = state.discards.get_mut(digest)
                {
                    // What was seen of it is being deleted.
                    *wanted = Some(storage);
                    queue.tell(&state);
                    return None;
                }
                if state.written.len() >= MAX_WRITTEN {
                    state.written.clear();
                }
                let ttl = job.ttl().min(self.inner.unused_for / 4);
                state.written.insert(name, Instant::now() + ttl);
                if std::mem::take(&mut state.failures) > 0 {
                    tracing::info!("the shared store takes what is written again");
                }
            }
            Err(error) => {
                // Behind the others: it may be this one alone that can't be written.
                state.waiting.push_back((job, storage));
                if state.failures == 0 {
                    tracing::warn!(
                        "cannot write to the shared store: {error}; tried again until it can be"
                    );
                }
                state.failures = state.failures.saturating_add(1);
                self.inner.counters.failed();
                pause = Some(RETRY_BACKOFF.pause(state.failures));
            }
        }
        queue.tell(&state);
        pause
    }

    /// An error is the bucket's, and tried again; what is wrong here is not.
    async fn execute(&self, job: &Job, storage: &Arc<Storage>) -> Result<(), StoreError> {
        let keys = self.inner.bucket.keys();
        match job {
            Job::Content(digest) => self.send(digest, storage).await,
            Job::Link {
                repository,
                kind,
                digest,
                link,
            } => {
                let key = keys.link(repository, *kind, digest);
                self.write(&key, &to_json(link)).await
            }
            Job::Use { repository, digest } => {
                let key = keys.link(repository, Kind::Manifest, digest);
                let limit = records::MAX_RECORD;
                let found = self.inner.bucket.read_small(&key, limit);
                match self.in_time(found).await? {
                    // The time it was written is the time of its last use.
                    Some(content) => self.write(&key, &content).await,
                    None => Ok(()),
                }
            }
            Job::Tag { name, tag } => {
                self.write(&keys.tag(name), &to_json(tag)).await?;
                for digest in self.tree(storage, &tag.digest).await {
                    self.publish(storage, Job::Content(digest));
                }
                Ok(())
            }
        }
    }

    async fn write(
        &self,
        key: &object_store::path::Path,
        content: &Bytes,
    ) -> Result<(), StoreError> {
        self.in_time(self.inner.bucket.write_small(key, content.clone()))
            .await?;
        self.inner.counters.sent(content.len() as u64);
        Ok(())
    }

    /// Uploads what is not in the bucket, or has been there for so long that it may be deleted soon.
    async fn send(&self, digest: &Digest, storage: &Arc<Storage>) -> Result<(), StoreError> {
        let path = storage.disk().path(digest);
        let Ok(metadata) = tokio::fs::metadata(&path).await else {
            // Evicted in the meantime, or never stored.
            return Ok(());
        };
        let bucket = &self.inner.bucket;
        let found = self
            .in_time(bucket.find(&bucket.keys().blob(digest)))
            .await?;
        let half = self.inner.unused_for.as_secs() / 2;
        let replaces = found.is_some();
        let is_wrong = found
            .as_ref()
            .is_some_and(|found| found.size != metadata.len());
        let is_there = found.is_some_and(|found| {
            found.size == metadata.len() && now().saturating_sub(found.written_at) < half
        });
        if is_there {
            return Ok(());
        }
        let more = Duration::from_secs(metadata.len() / MIN_UPLOAD_SPEED);
        let limit = self.inner.bounds.write_timeout + more;
        match within(limit, bucket.upload(digest, &path, replaces)).await {
            Ok(()) => {
                self.inner.counters.sent(metadata.len());
                // The digest of what was sent is right, so what was there was not.
                if is_wrong {
                    self.inner.counters.discarded();
                    tracing::warn!("the shared store had other bytes under {digest}; replaced");
                }
                Ok(())
            }
            Err(StoreError::WrongDigest(digest)) => {
                tracing::warn!("{digest} is damaged on the disk, and not sent to the shared store");
                Ok(())
            }
            // The file is what can't be read.
            Err(_) if tokio::fs::metadata(&path).await.is_err() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn in_time<T>(
        &self,
        asked: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        within(self.inner.bounds.write_timeout, asked).await
    }

    /// An image, as far as it is in the store.
    async fn tree(&self, storage: &Arc<Storage>, root: &Digest) -> Vec<Digest> {
        let (storage, root) = (Arc::clone(storage), root.clone());
        let found = tokio::task::spawn_blocking(move || {
            let (mut open, mut found) = (vec![root], Vec::new());
            while let Some(digest) = open.pop() {
                if !found.contains(&digest)
                    && let Ok(Some(object)) = storage.index().object(&digest)
                {
                    open.extend(object.children.into_iter().map(|child| child.digest));
                    found.push(digest);
                }
            }
            found
        });
        found.await.unwrap_or_default()
    }
}

async fn within<T>(
    limit: Duration,
    asked: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let asked = timeout(limit, asked).await;
    asked.unwrap_or_else(|_| {
        let error = io::Error::from(io::ErrorKind::TimedOut);
        Err(StoreError::io("writing to the shared store")(error))
    })
}

fn to_json(record: &impl serde::Serialize) -> Bytes {
    // Of strings, numbers and booleans alone: this can't fail.
    serde_json::to_vec(record).unwrap_or_default().into()
}
