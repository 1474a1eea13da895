//! The rest of a large blob over several connections at once.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::assembly::Assembly;
use super::{Broken, Parallelism, Progress, Transfer};
use crate::digest::Digest;
use crate::pull_through::fetch::{Fetch, Turn, Wanted};
use crate::storage::Storage;

/// Bounds of what one request of a parallel download asks for.
const CHUNK_SIZES: (u64, u64) = (4 * 1024 * 1024, 32 * 1024 * 1024);
/// What is left of a chunk is shared with an idle connection when it is longer than this.
const MIN_SHARED: u64 = 2 * 1024 * 1024;

/// One request of a parallel download. Its end moves forward when an idle connection takes the rest.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) at: AtomicU64,
    pub(super) end: AtomicU64,
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<(u64, u64)>,
    running: Vec<Arc<Chunk>>,
    ruled_out: Vec<usize>,
    contributors: Vec<usize>,
    /// The first connection has found nothing more to fetch.
    first_is_done: bool,
}

impl Transfer {
    /// Fetches the rest over several connections; `first` is the one that is open already.
    pub(super) async fn fetch_parts(
        &self,
        assembly: &Arc<Assembly>,
        mut first: Fetch,
        total: u64,
        parallelism: Parallelism,
        without: &[usize],
        contributors: &mut Vec<usize>,
    ) -> Result<(), Broken> {
        let size = chunk_size(total, parallelism.connections);
        let mut waiting = VecDeque::new();
        for (start, end) in assembly.state.lock().ranges.gaps(total) {
            let mut at = start;
            while at < end {
                waiting.push_back((at, end.min(at + size)));
                at += size;
            }
        }
        // What the first connection is fetching already.
        if let Some((start, end)) = waiting.pop_front() {
            let asked = first.end().unwrap_or(end);
            if asked < end {
                waiting.push_front((asked.max(start), end));
            }
            first.shorten(end);
        }
        let mut ruled_out = without.to_vec();
        ruled_out.extend(first.ruled_out());
        let queue = Arc::new(Mutex::new(Queue {
            waiting,
            running: Vec::new(),
            ruled_out,
            contributors: Vec::new(),
            first_is_done: false,
        }));
        let sources = self.wanted.places.len().max(1);
        let best = first.source().unwrap_or(0);
        let mut open = Some(first);
        let done = CancellationToken::new();
        let mut workers = JoinSet::new();
        for number in 0..parallelism.connections {
            let worker = Worker {
                digest: self.digest.clone(),
                wanted: Arc::clone(&self.wanted),
                storage: Arc::clone(&self.storage),
                progress: self.progress.clone(),
                assembly: Arc::clone(assembly),
                queue: Arc::clone(&queue),
                done: done.clone(),
                is_first: number == 0,
                // The best source for the first, the others in turn for the others.
                preferred: if number == 0 || best == 0 {
                    best
                } else {
                    (best - 1 + number) % sources + 1
                },
            };
            workers.spawn(worker.run(open.take()));
        }
        let mut result = Ok(());
        while let Some(done) = workers.join_next().await {
            let done = done.unwrap_or_else(|ended| Err(Broken::Disk(io::Error::other(ended))));
            if let Err(broken) = done {
                // The others would only fetch what nobody can use.
                workers.abort_all();
                if result.is_ok() {
                    result = Err(broken);
                }
            }
        }
        contributors.extend_from_slice(&queue.lock().contributors);
        result
    }
}

pub(super) fn chunk_size(total: u64, connections: usize) -> u64 {
    let each = total / (4 * connections as u64).max(1);
    each.clamp(CHUNK_SIZES.0, CHUNK_SIZES.1)
}

/// One connection of a parallel download.
struct Worker {
    digest: Digest,
    wanted: Arc<Wanted>,
    storage: Arc<Storage>,
    progress: watch::Sender<Progress>,
    assembly: Arc<Assembly>,
    queue: Arc<Mutex<Queue>>,
    /// Nothing is left that anybody could begin.
    done: CancellationToken,
    /// The first one goes on whatever others want. The further ones wait for room beside other blobs, and hold
    /// no chunk while they do.
    is_first: bool,
    preferred: usize,
}

impl Worker {
    async fn run(self, first: Option<Fetch>) -> Result<(), Broken> {
        let transfer = Transfer {
            digest: self.digest.clone(),
            wanted: Arc::clone(&self.wanted),
            storage: Arc::clone(&self.storage),
            progress: self.progress.clone(),
        };
        let mut next = first.map(|fetch| {
            let end = fetch.end().unwrap_or(u64::MAX);
            (self.start(fetch.at(), end), fetch)
        });
        let mut preferred = self.preferred;
        loop {
            let (chunk, mut fetch) = match next.take() {
                Some(begun) => begun,
                None => {
                    preferred = self.next_from(preferred);
                    let turn = if self.is_first {
                        // It waits for its own when it asks.
                        None
                    } else {
                        tokio::select! {
                            turn = self.turn(preferred) => turn,
                            () = self.done.cancelled() => return Ok(()),
                        }
                    };
                    let Some(chunk) = self.take() else {
                        self.done.cancel();
                        return Ok(());
                    };
                    let from = chunk.at.load(Ordering::Acquire);
                    let end = chunk.end.load(Ordering::Acquire);
                    let ruled_out = self.queue.lock().ruled_out.clone();
                    let fetch = Fetch::new(Arc::clone(&self.wanted), from, Some(end))
                        .without(&ruled_out)
                        .preferring(preferred)
                        .parts_only();
                    let fetch = match self.is_first {
                        true => fetch,
                        false => fetch.further(turn),
                    };
                    (chunk, fetch)
                }
            };
            if !self.is_first && fetch.is_limited().await && self.give_back(&chunk) {
                // A registry that counts connections: the others are enough.
                return Ok(());
            }
            let copied = transfer
                .copy(&self.assembly, &mut fetch, Some(&chunk))
                .await;
            preferred = fetch.source().unwrap_or(preferred);
            let mut queue = self.queue.lock();
            queue
                .running
                .retain(|running| !Arc::ptr_eq(running, &chunk));
            for source in fetch.ruled_out() {
                if !queue.ruled_out.contains(&source) {
                    queue.ruled_out.push(source);
                }
            }
            for &source in fetch.contributors() {
                if !queue.contributors.contains(&source) {
                    queue.contributors.push(source);
                }
            }
            drop(queue);
            copied?;
        }
    }

    /// The source that is asked next: this one, or the first after it that is of use at the moment. Nobody waits for a
    /// turn at any other.
    fn next_from(&self, source: usize) -> usize {
        let queue = self.queue.lock();
        let count = self.wanted.places.len() + 1;
        let is_of_use =
            |source: &usize| !queue.ruled_out.contains(source) && !self.wanted.is_silent(*source);
        let mut sources = (0..count).map(|step| (source + step) % count);
        sources.find(is_of_use).unwrap_or(source)
    }

    /// A turn at a source. None where none is needed.
    async fn turn(&self, source: usize) -> Option<Turn> {
        let place = self.wanted.place(source)?;
        let host = place.endpoint.domain();
        self.wanted.limits.acquire_further(host).await
    }

    fn start(&self, at: u64, end: u64) -> Arc<Chunk> {
        let chunk = Arc::new(Chunk {
            at: AtomicU64::new(at),
            end: AtomicU64::new(end),
        });
        self.queue.lock().running.push(Arc::clone(&chunk));
        chunk
    }

    /// Leaves a chunk to the other connections. False where there may be none left that takes it.
    fn give_back(&self, chunk: &Arc<Chunk>) -> bool {
        let mut queue = self.queue.lock();
        if queue.first_is_done {
            return false;
        }
        queue.running.retain(|running| !Arc::ptr_eq(running, chunk));
        let (at, end) = (&chunk.at, &chunk.end);
        let rest = (at.load(Ordering::Acquire), end.load(Ordering::Acquire));
        queue.waiting.push_back(rest);
        true
    }

    /// The next chunk, or the second half of what the slowest connection still has to fetch.
    fn take(&self) -> Option<Arc<Chunk>> {
        let mut queue = self.queue.lock();
        let (at, end) = match queue.waiting.pop_front() {
            Some(chunk) => chunk,
            None => {
                let left = |chunk: &Arc<Chunk>| {
                    let end = chunk.end.load(Ordering::Acquire);
                    end.saturating_sub(chunk.at.load(Ordering::Acquire))
                };
                let slowest = queue
                    .running
                    .iter()
                    .max_by_key(|chunk| left(chunk))
                    .cloned();
                let Some(slowest) = slowest else {
                    queue.first_is_done |= self.is_first;
                    return None;
                };
                if left(&slowest) < MIN_SHARED {
                    queue.first_is_done |= self.is_first;
                    return None;
                }
                let end = slowest.end.load(Ordering::Acquire);
                let middle = end - left(&slowest) / 2;
                slowest.end.store(middle, Ordering::Release);
                (middle, end)
            }
        };
        let chunk = Arc::new(Chunk {
            at: AtomicU64::new(at),
            end: AtomicU64::new(end),
        });
        queue.running.push(Arc::clone(&chunk));
        Some(chunk)
    }
}
