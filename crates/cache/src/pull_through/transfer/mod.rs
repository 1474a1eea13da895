//! One download of one blob, which everybody who wants the blob reads along from.
//!
//! | module | what it knows |
//! |---|---|
//! | `assembly` | the file it grows in, and the digest of what is there |
//! | `parts` | several connections for one blob |

mod assembly;
mod parts;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use self::assembly::{Assembly, WRITE_SIZE};
use self::parts::{Chunk, chunk_size};
use super::fetch::{Fetch, Wanted};
use super::ranges::Ranges;
use crate::digest::{Digest, Hasher};
use crate::storage::Storage;
use crate::upstream::{Failure, Failures};

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
    /// Sources say that the blob ends before the end of what is there.
    TooMuch {
        failures: Failures,
        /// They, and those that what is there came from.
        sources: Vec<usize>,
    },
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
                // Only attempts say these, and each is followed by another.
                Ended::Wrong(_) | Ended::TooMuch { .. } => State::Failed(Failures::default()),
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
                Ended::TooMuch {
                    failures: why,
                    sources,
                } => {
                    // With what is there, nobody could ever finish it.
                    self.begin_anew();
                    failures.note_all(why);
                    if !resumed && alone.is_none() {
                        if sources.len() < 2 {
                            return Ended::Failed(failures);
                        }
                        alone = Some(sources.into());
                    }
                }
                Ended::Failed(why) => {
                    failures.note_all(why);
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
        let place = self.wanted.place(source);
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
        if resume && let Some(total) = self.whole(&assembly) {
            return self.finish(&assembly, total, Vec::new()).await;
        }
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
                if let Some(total) = self.whole(&assembly) {
                    return self.finish(&assembly, total, contributors).await;
                }
                if self.is_too_much(&assembly, hint, &failures) {
                    let sources = self.suspects(&failures, contributors);
                    return Ended::TooMuch { failures, sources };
                }
                self.note_ranges(&assembly).await;
                Ended::Failed(failures)
            }
            Err(Broken::Disk(error)) => {
                self.storage.report_failure(&error);
                self.settle(&assembly).await;
                self.storage.disk().discard_partial(&self.digest);
                let state = assembly.state.lock();
                Ended::Unstored {
                    hashed: state.hashed,
                    hasher: state.hasher.clone(),
                }
            }
        }
    }

    /// Whether what is there can't be the beginning of the blob, since sources say that it is shorter. One that is
    /// wrong about that must not cost what others, which are silent at the moment, can go on with.
    fn is_too_much(&self, assembly: &Assembly, hint: Option<u64>, failures: &Failures) -> bool {
        let is_shorter = |failure: &Failure| matches!(failure, Failure::Shorter(_));
        let has_no_say = |failure: &Failure| matches!(failure, Failure::NotFound | Failure::Circle);
        let all = || failures.0.iter().map(|(_, failure)| failure);
        let there = assembly.state.lock().ranges.reach(0);
        all().any(is_shorter)
            && (hint.is_none_or(|hint| hint <= there)
                || all().all(|failure| is_shorter(failure) || has_no_say(failure)))
    }

    /// The sources that say that the blob is shorter, and those that what is there came from.
    fn suspects(&self, failures: &Failures, contributors: Vec<usize>) -> Vec<usize> {
        let shorter = failures
            .0
            .iter()
            .filter(|(_, failure)| matches!(failure, Failure::Shorter(_)));
        let number = |name: &str| self.wanted.places.iter().position(|p| p.name == name);
        let mut suspects: Vec<usize> = shorter
            .filter_map(|(name, _)| Some(number(name)? + 1))
            .collect();
        for source in contributors {
            if !suspects.contains(&source) {
                suspects.push(source);
            }
        }
        suspects
    }

    /// Opens the file; None where there is no room.
    fn publish(&self, assembly: &Assembly) {
        let ranges = assembly.state.lock().ranges.clone();
        self.progress.send_modify(|progress| {
            progress.ranges = ranges;
            progress.file = Some(Arc::clone(&assembly.file));
        });
    }

    /// A source has answered.
    fn answered(&self, fetch: &Fetch) {
        let place = fetch.source().and_then(|source| self.wanted.place(source));
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
            _ => {}
        }
        let mut copied = Ok(());
        if gives_part && end.is_some() && fetch.total().is_none() {
            // `Content-Range: bytes 0-4194303/*`: what is open ends with the part, and not with the blob.
            copied = self.copy(assembly, &mut fetch, None).await;
            fetch.close();
        }
        fetch.unbounded();
        if copied.is_ok() {
            copied = self.copy(assembly, &mut fetch, None).await;
        }
        contributors.extend_from_slice(fetch.contributors());
        if contributors.is_empty() {
            // An empty body is an answer, too.
            contributors.extend(fetch.source());
        }
        copied?;
        // Without an announced length the end is where it was.
        Ok(fetch.total().unwrap_or(fetch.at()))
    }

    async fn reserve_again(&self, total: u64) -> Result<(), Broken> {
        let (storage, wanted) = (Arc::clone(&self.storage), Arc::clone(&self.wanted));
        let reserved = tokio::task::spawn_blocking(move || {
            storage.reserve_for(&wanted.repository, &wanted.digest, total)
        });
        let fits = reserved.await;
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
}
