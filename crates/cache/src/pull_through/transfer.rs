//! One download of one blob, which everybody who wants the blob reads along from.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::fetch::{Fetch, Wanted};
use super::ranges::Ranges;
use crate::digest::{Digest, Hasher};
use crate::storage::Storage;
use crate::upstream::{Failure, Failures};

/// Written to the disk at a time, and hashed.
const WRITE_SIZE: usize = 256 * 1024;
/// How much may arrive before it is noted which parts are there, for after a crash.
const NOTE_INTERVAL: u64 = 16 * 1024 * 1024;
/// Bounds of what one request of a parallel download asks for.
const CHUNK_SIZES: (u64, u64) = (4 * 1024 * 1024, 32 * 1024 * 1024);
/// What is left of a chunk is shared with an idle connection when it is longer than this.
const MIN_SHARED: u64 = 2 * 1024 * 1024;

/// How a blob is downloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parallelism {
    /// Connections at once (`parallel`, default 4).
    pub connections: usize,
    /// For blobs longer than this (`parallelAbove`, default 32 MiB).
    pub above: u64,
}

/// How far a download is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Rises when what had arrived was wrong and all begins anew.
    pub generation: u32,
    /// The blob's length, once it is known.
    pub total: Option<u64>,
    /// What is there.
    pub ranges: Ranges,
    /// Where it is.
    pub file: Option<Arc<File>>,
    /// The place that has answered, by its name: proof that the repository has the blob.
    pub proven_by: Option<String>,
    /// What it is doing.
    pub state: State,
}

/// What a download is doing.
#[derive(Clone, Debug)]
pub enum State {
    /// No source has answered yet.
    Opening,
    /// Bytes arrive.
    Arriving,
    /// All of it is there and has its digest.
    Whole,
    /// No source could give it.
    Failed(Failures),
    /// It can't be stored. What is there ends at `hashed`; whoever wants more fetches it himself.
    Unstored {
        /// Bytes that are there from the beginning on.
        hashed: u64,
        /// What computes the digest, at that point.
        hasher: Hasher,
    },
}

/// A download under way, or just ended.
#[derive(Debug)]
pub struct Transfer {
    digest: Digest,
    wanted: Arc<Wanted>,
    storage: Arc<Storage>,
    progress: watch::Sender<Progress>,
}

/// What has arrived in one attempt.
struct Assembly {
    file: Arc<File>,
    state: Mutex<Assembled>,
}

struct Assembled {
    ranges: Ranges,
    hasher: Hasher,
    hashed: u64,
    since_noted: u64,
}

/// How one attempt ended.
enum Ended {
    Whole,
    Failed(Failures),
    Unstored {
        hashed: u64,
        hasher: Hasher,
    },
    /// The content has another digest. The sources that it came from.
    Wrong(Vec<usize>),
}

/// Why a part could not be fetched.
enum Broken {
    Sources(Failures),
    Disk(io::Error),
}

impl From<Failures> for Broken {
    fn from(failures: Failures) -> Self {
        Self::Sources(failures)
    }
}

/// One request of a parallel download. Its end moves forward when an idle connection takes the rest.
#[derive(Debug)]
struct Chunk {
    at: AtomicU64,
    end: AtomicU64,
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<(u64, u64)>,
    running: Vec<Arc<Chunk>>,
    ruled_out: Vec<usize>,
    contributors: Vec<usize>,
}

impl Transfer {
    pub(super) fn new(wanted: Wanted, storage: Arc<Storage>) -> Self {
        let progress = Progress {
            generation: 0,
            total: None,
            ranges: Ranges::default(),
            file: None,
            proven_by: None,
            state: State::Opening,
        };
        Self {
            digest: wanted.digest.clone(),
            wanted: Arc::new(wanted),
            storage,
            progress: watch::Sender::new(progress),
        }
    }

    /// What is downloaded.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// From where, for whom.
    pub fn wanted(&self) -> &Arc<Wanted> {
        &self.wanted
    }

    /// Whether nothing more comes of it.
    pub fn is_over(&self) -> bool {
        let progress = self.progress.borrow();
        matches!(progress.state, State::Failed(_) | State::Unstored { .. })
    }

    /// How far it is, now and from now on.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Waits until a source has answered, and gives the blob's length where it is known.
    ///
    /// # Errors
    /// Why none did.
    pub async fn opened(&self) -> Result<Option<u64>, Failures> {
        let mut progress = self.watch();
        let opened = progress
            .wait_for(|progress| !matches!(progress.state, State::Opening))
            .await;
        match opened {
            Ok(progress) => match &progress.state {
                State::Failed(failures) => Err(failures.clone()),
                _ => Ok(progress.total),
            },
            Err(_) => Err(Failures::default()),
        }
    }

    /// Waits until it is over. True where the blob is in the store.
    pub async fn finished(&self) -> bool {
        let mut progress = self.watch();
        let ended = progress
            .wait_for(|progress| !matches!(progress.state, State::Opening | State::Arriving));
        ended
            .await
            .is_ok_and(|progress| matches!(progress.state, State::Whole))
    }

    /// Downloads it to the end, whoever still wants it.
    pub(super) async fn run(&self, hint: Option<u64>, parallelism: Parallelism) {
        let ended = self.attempts(hint, parallelism).await;
        self.storage.release(&self.digest);
        self.progress.send_modify(|progress| {
            progress.state = match ended {
                Ended::Whole => State::Whole,
                Ended::Failed(failures) => State::Failed(failures),
                Ended::Unstored { hashed, hasher } => State::Unstored { hashed, hasher },
                // Only attempts say this, and each is followed by another.
                Ended::Wrong(_) => State::Failed(Failures::default()),
            };
        });
    }

    async fn attempts(&self, hint: Option<u64>, parallelism: Parallelism) -> Ended {
        let mut liars: Vec<usize> = Vec::new();
        let mut failures = Failures::default();
        let mut alone: Option<VecDeque<usize>> = None;
        let mut is_first = true;
        loop {
            let mut without = liars.clone();
            if let Some(alone) = &mut alone {
                // Several sources together gave wrong bytes: one after another shows which.
                let Some(only) = alone.pop_front() else {
                    return Ended::Failed(failures);
                };
                without = (0..=self.wanted.places.len())
                    .filter(|&s| s != only)
                    .collect();
            }
            let resumed = is_first && !self.storage.disk().noted_ranges(&self.digest).is_empty();
            let ended = self
                .attempt(hint, parallelism, &without, resumed, alone.is_some())
                .await;
            match ended {
                Ended::Wrong(sources) => {
                    // What was there from before a restart may be what was wrong.
                    if !resumed {
                        match sources.as_slice() {
                            [liar] => {
                                liars.push(*liar);
                                self.blame(*liar, &mut failures);
                            }
                            _ if alone.is_none() => {
                                alone = Some(sources.iter().copied().collect());
                            }
                            _ => {}
                        }
                    }
                    self.begin_anew();
                }
                Ended::Failed(why) => {
                    for (place, failure) in why.0 {
                        failures.note(&place, failure);
                    }
                    if alone.as_ref().is_none_or(VecDeque::is_empty) {
                        return Ended::Failed(failures);
                    }
                }
                ended => return ended,
            }
            is_first = false;
        }
    }

    fn blame(&self, source: usize, failures: &mut Failures) {
        let place = source
            .checked_sub(1)
            .and_then(|number| self.wanted.places.get(number));
        match place {
            Some(place) => {
                tracing::warn!(
                    "{} sent other bytes than {}; it is not asked for that blob for a minute",
                    place.name,
                    self.digest
                );
                let wrong = Failure::Wrong("sent other bytes than asked for".to_owned());
                failures.note(&place.name, wrong);
                self.wanted.liars.note(&place.name, &self.digest);
            }
            None => {
                if let Some(shared) = &self.wanted.shared {
                    shared.discard(&self.digest);
                }
            }
        }
    }

    fn begin_anew(&self) {
        self.storage.disk().discard_partial(&self.digest);
        self.progress.send_modify(|progress| {
            progress.generation += 1;
            progress.ranges = Ranges::default();
            progress.file = None;
            progress.total = None;
        });
    }

    fn unstored(&self) -> Ended {
        Ended::Unstored {
            hashed: 0,
            hasher: self.digest.hasher(),
        }
    }

    async fn attempt(
        &self,
        hint: Option<u64>,
        parallelism: Parallelism,
        without: &[usize],
        resume: bool,
        in_one_stream: bool,
    ) -> Ended {
        let assembly = match self.prepare(hint, resume).await {
            Ok(Some(assembly)) => Arc::new(assembly),
            Ok(None) => return self.unstored(),
            Err(error) => {
                self.storage.report_failure(&error);
                return self.unstored();
            }
        };
        self.publish(&assembly);
        let mut contributors = Vec::new();
        let fetched = self
            .fetch(
                &assembly,
                hint,
                parallelism,
                without,
                in_one_stream,
                &mut contributors,
            )
            .await;
        match fetched {
            Ok(total) => self.finish(&assembly, total, contributors).await,
            Err(Broken::Sources(failures)) => {
                self.note_ranges(&assembly).await;
                Ended::Failed(failures)
            }
            Err(Broken::Disk(error)) => {
                self.storage.report_failure(&error);
                self.storage.disk().discard_partial(&self.digest);
                let state = assembly.state.lock();
                Ended::Unstored {
                    hashed: state.hashed,
                    hasher: state.hasher.clone(),
                }
            }
        }
    }

    /// Opens the file; None where there is no room.
    async fn prepare(&self, hint: Option<u64>, resume: bool) -> io::Result<Option<Assembly>> {
        let (storage, digest) = (Arc::clone(&self.storage), self.digest.clone());
        let prepared = tokio::task::spawn_blocking(move || {
            if !storage.reserve(&digest, hint.unwrap_or(0)) {
                return Ok(None);
            }
            let file = storage.disk().open_partial(&digest)?;
            let mut ranges = Ranges::default();
            if resume {
                let length = file.metadata()?.len();
                let noted = storage.disk().noted_ranges(&digest);
                let there = noted.iter().map(|&(start, end)| (start, end.min(length)));
                ranges = Ranges::from_pairs(&there.collect::<Vec<_>>());
            } else {
                file.set_len(0)?;
            }
            let mut assembled = Assembled {
                ranges,
                hasher: digest.hasher(),
                hashed: 0,
                since_noted: 0,
            };
            assembled.catch_up(&file)?;
            Ok(Some(Assembly {
                file: Arc::new(file),
                state: Mutex::new(assembled),
            }))
        });
        prepared.await.map_err(io::Error::other)?
    }

    fn publish(&self, assembly: &Assembly) {
        let ranges = assembly.state.lock().ranges.clone();
        self.progress.send_modify(|progress| {
            progress.ranges = ranges;
            progress.file = Some(Arc::clone(&assembly.file));
        });
    }

    /// A source has answered.
    fn answered(&self, fetch: &Fetch) {
        let source = fetch.source().and_then(|source| source.checked_sub(1));
        let place = source.and_then(|number| self.wanted.places.get(number));
        self.progress.send_modify(|progress| {
            progress.total = fetch.total().or(progress.total);
            if progress.proven_by.is_none() {
                progress.proven_by = place.map(|place| place.name.clone());
            }
            if matches!(progress.state, State::Opening) {
                progress.state = State::Arriving;
            }
        });
    }

    /// Fetches what is missing and returns the blob's length.
    async fn fetch(
        &self,
        assembly: &Arc<Assembly>,
        hint: Option<u64>,
        parallelism: Parallelism,
        without: &[usize],
        in_one_stream: bool,
        contributors: &mut Vec<usize>,
    ) -> Result<u64, Broken> {
        let in_parts = !in_one_stream
            && parallelism.connections > 1
            && hint.is_some_and(|size| size > parallelism.above);
        let from = assembly.state.lock().ranges.reach(0);
        let chunk = hint.map(|size| chunk_size(size, parallelism.connections));
        let end = chunk.filter(|_| in_parts).map(|chunk| from + chunk);
        let mut fetch = Fetch::new(Arc::clone(&self.wanted), from, end).without(without);
        let gives_part = fetch.open().await?;
        self.answered(&fetch);
        // Only now is it certain how long it is.
        if fetch.total() != hint
            && let Some(total) = fetch.total()
        {
            self.reserve_again(total).await?;
        }
        match (fetch.total(), end) {
            (Some(total), Some(end)) if gives_part && total > end => {
                self.fetch_parts(assembly, fetch, total, parallelism, without, contributors)
                    .await?;
                return Ok(total);
            }
            _ => fetch.unbounded(),
        }
        let copied = self.copy(assembly, &mut fetch, None).await;
        contributors.extend_from_slice(fetch.contributors());
        if contributors.is_empty() {
            // An empty body is an answer, too.
            contributors.extend(fetch.source());
        }
        copied?;
        // Without an announced length the end is where it was.
        let total = fetch.total().unwrap_or(fetch.at());
        self.progress
            .send_modify(|progress| progress.total = Some(total));
        Ok(total)
    }

    async fn reserve_again(&self, total: u64) -> Result<(), Broken> {
        let (storage, digest) = (Arc::clone(&self.storage), self.digest.clone());
        let fits = tokio::task::spawn_blocking(move || storage.reserve(&digest, total)).await;
        if fits.unwrap_or(false) {
            Ok(())
        } else {
            Err(Broken::Disk(io::ErrorKind::StorageFull.into()))
        }
    }

    /// Copies what a source sends into the file, up to the end of the chunk where there is one.
    async fn copy(
        &self,
        assembly: &Arc<Assembly>,
        fetch: &mut Fetch,
        chunk: Option<&Chunk>,
    ) -> Result<(), Broken> {
        let mut buffer = Vec::with_capacity(WRITE_SIZE);
        loop {
            if let Some(chunk) = chunk {
                fetch.shorten(chunk.end.load(Ordering::Acquire));
            }
            let offset = fetch.at();
            let Some(bytes) = fetch.next().await? else {
                return Ok(());
            };
            buffer.clear();
            buffer.extend_from_slice(&bytes);
            while buffer.len() < WRITE_SIZE
                && let Some(bytes) = fetch.ready()
            {
                buffer.extend_from_slice(&bytes);
            }
            if let Some(chunk) = chunk {
                chunk.at.store(fetch.at(), Ordering::Release);
            }
            buffer = self.write(assembly, buffer, offset).await?;
        }
    }

    async fn write(
        &self,
        assembly: &Arc<Assembly>,
        buffer: Vec<u8>,
        offset: u64,
    ) -> Result<Vec<u8>, Broken> {
        let (storage, digest) = (Arc::clone(&self.storage), self.digest.clone());
        let writing = Arc::clone(assembly);
        let written = tokio::task::spawn_blocking(move || {
            storage
                .disk()
                .write_partial(&writing.file, &buffer, offset)?;
            let mut state = writing.state.lock();
            state.add(&writing.file, &buffer, offset)?;
            if state.since_noted >= NOTE_INTERVAL {
                state.since_noted = 0;
                storage.disk().note_ranges(&digest, state.ranges.pairs())?;
            }
            Ok((buffer, state.ranges.clone()))
        });
        let written = written
            .await
            .unwrap_or_else(|ended| Err(io::Error::other(ended)));
        let (buffer, ranges) = written.map_err(Broken::Disk)?;
        self.progress
            .send_modify(|progress| progress.ranges = ranges);
        Ok(buffer)
    }

    async fn note_ranges(&self, assembly: &Arc<Assembly>) {
        let (storage, digest) = (Arc::clone(&self.storage), self.digest.clone());
        let ranges = assembly.state.lock().ranges.clone();
        let noted = tokio::task::spawn_blocking(move || {
            if ranges.pairs().is_empty() {
                storage.disk().discard_partial(&digest);
                return Ok(());
            }
            storage.disk().note_ranges(&digest, ranges.pairs())
        });
        // Without the note the next download begins anew.
        let _ = noted.await;
    }

    /// Fetches the rest over several connections; `first` is the one that is open already.
    async fn fetch_parts(
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
        }));
        let sources = self.wanted.places.len().max(1);
        let best = first.source().unwrap_or(0);
        let mut open = Some(first);
        let mut workers = JoinSet::new();
        for number in 0..parallelism.connections {
            let worker = Worker {
                digest: self.digest.clone(),
                wanted: Arc::clone(&self.wanted),
                storage: Arc::clone(&self.storage),
                progress: self.progress.clone(),
                assembly: Arc::clone(assembly),
                queue: Arc::clone(&queue),
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

    async fn finish(
        &self,
        assembly: &Arc<Assembly>,
        total: u64,
        contributors: Vec<usize>,
    ) -> Ended {
        let (storage, digest) = (Arc::clone(&self.storage), self.digest.clone());
        let finishing = Arc::clone(assembly);
        let finished = tokio::task::spawn_blocking(move || {
            let mut state = finishing.state.lock();
            state.catch_up(&finishing.file)?;
            if state.hashed != total || state.hasher.clone().finish() != digest {
                return Ok(false);
            }
            finishing.file.set_len(total)?;
            // The content is right, and is served from the open file, even when it can't be kept.
            if storage.commit(&digest, &finishing.file, total).is_err() {
                storage.disk().discard_partial(&digest);
            }
            Ok::<_, io::Error>(true)
        });
        match finished.await {
            Ok(Ok(true)) => Ended::Whole,
            Ok(Ok(false)) => Ended::Wrong(contributors),
            Ok(Err(error)) => {
                self.storage.report_failure(&error);
                self.storage.disk().discard_partial(&self.digest);
                self.unstored()
            }
            Err(_) => self.unstored(),
        }
    }
}

fn chunk_size(total: u64, connections: usize) -> u64 {
    let each = total / (4 * connections as u64).max(1);
    each.clamp(CHUNK_SIZES.0, CHUNK_SIZES.1)
}

impl Assembled {
    /// Adds what was written, and hashes on as far as there is no gap.
    fn add(&mut self, file: &File, content: &[u8], offset: u64) -> io::Result<()> {
        let length = content.len() as u64;
        self.ranges.insert(offset, offset + length);
        self.since_noted += length;
        if offset == self.hashed {
            self.hasher.update(content);
            self.hashed += length;
        }
        self.catch_up(file)
    }

    /// Hashes what was written ahead, now that the gap before it is filled.
    fn catch_up(&mut self, file: &File) -> io::Result<()> {
        let end = self.ranges.reach(0);
        if self.hashed >= end {
            return Ok(());
        }
        let mut chunk = vec![0; WRITE_SIZE];
        while self.hashed < end {
            let wanted = usize::try_from(end - self.hashed).unwrap_or(WRITE_SIZE);
            let part = chunk.get_mut(..wanted.min(WRITE_SIZE)).unwrap_or_default();
            file.read_exact_at(part, self.hashed)?;
            self.hasher.update(part);
            self.hashed += part.len() as u64;
        }
        Ok(())
    }
}

/// One connection of a parallel download.
struct Worker {
    digest: Digest,
    wanted: Arc<Wanted>,
    storage: Arc<Storage>,
    progress: watch::Sender<Progress>,
    assembly: Arc<Assembly>,
    queue: Arc<Mutex<Queue>>,
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
                    let Some(chunk) = self.take() else {
                        return Ok(());
                    };
                    let from = chunk.at.load(Ordering::Acquire);
                    let end = chunk.end.load(Ordering::Acquire);
                    let ruled_out = self.queue.lock().ruled_out.clone();
                    let fetch = Fetch::new(Arc::clone(&self.wanted), from, Some(end))
                        .without(&ruled_out)
                        .preferring(preferred)
                        .parts_only();
                    (chunk, fetch)
                }
            };
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

    fn start(&self, at: u64, end: u64) -> Arc<Chunk> {
        let chunk = Arc::new(Chunk {
            at: AtomicU64::new(at),
            end: AtomicU64::new(end),
        });
        self.queue.lock().running.push(Arc::clone(&chunk));
        chunk
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
                let slowest = queue.running.iter().max_by_key(|chunk| left(chunk))?;
                if left(slowest) < MIN_SHARED {
                    return None;
                }
                let end = slowest.end.load(Ordering::Acquire);
                let middle = end - left(slowest) / 2;
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
