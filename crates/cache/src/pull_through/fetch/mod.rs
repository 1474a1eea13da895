//! One blob, or a part of it, as a stream that outlives its sources: where one breaks off, the next
//! goes on from there.

mod sources;
mod wanted;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use policy::backoff::Backoff;
use tokio::time::{Instant, timeout};

pub use self::wanted::{HostLimits, Turn, Wanted};
use crate::upstream::{BlobBody, Failure, Failures};

/// A source that sends nothing for this long is left for the next.
const SOURCE_SILENCE_TIMEOUT: Duration = Duration::from_secs(20);
/// When no source makes progress for this long, the transfer ends.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);
/// Pauses before all sources are tried again.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(5),
};

/// What the shared store is called where places are.
pub const SHARED: &str = "the shared store";

/// A stream of one blob from one offset on.
#[derive(Debug)]
pub struct Fetch {
    wanted: Arc<Wanted>,
    /// The next byte that [`Fetch::next`] gives.
    at: u64,
    end: Option<u64>,
    total: Option<u64>,
    open: Option<Open>,
    /// Sources by number: the shared store is 0, the places come after it.
    ruled_out: Vec<bool>,
    /// The source that is tried first.
    preferred: usize,
    failures: Failures,
    /// When any source has sent anything, be it only what is there already.
    last_heard: Instant,
    /// When something came that was not there yet.
    last_progress: Instant,
    /// Rounds through all sources in which nothing new arrived.
    idle_rounds: u32,
    /// The sources that have broken off in this round without having sent anything new.
    fruitless: Vec<bool>,
    /// Whether any source has ever answered: until then nothing is tried twice.
    arrived: bool,
    contributors: Vec<usize>,
    /// The open body is known to have ended; with why, where it broke.
    ended: Option<String>,
    /// A source that gives everything from the beginning is of no use.
    parts_only: bool,
    /// A turn that was waited for already.
    turn: Option<Turn>,
    /// One more connection of a blob that is arriving already.
    is_further: bool,
}

#[derive(Debug)]
struct Open {
    source: usize,
    body: BlobBody,
    /// Bytes that come before what is wanted.
    skip: u64,
    /// Whether it has sent anything that was wanted.
    is_fruitful: bool,
    _turn: Option<Turn>,
}

impl Fetch {
    /// From byte `from`, to byte `end` (not included) where that is given.
    pub fn new(wanted: Arc<Wanted>, from: u64, end: Option<u64>) -> Self {
        let sources = wanted.places.len() + 1;
        let mut ruled_out = vec![false; sources];
        if wanted.shared.is_none()
            && let Some(shared) = ruled_out.first_mut()
        {
            *shared = true;
        }
        Self {
            wanted,
            at: from,
            end,
            total: None,
            open: None,
            ruled_out,
            preferred: 0,
            failures: Failures::default(),
            last_heard: Instant::now(),
            last_progress: Instant::now(),
            idle_rounds: 0,
            fruitless: vec![false; sources],
            arrived: from > 0,
            contributors: Vec::new(),
            ended: None,
            parts_only: false,
            turn: None,
            is_further: false,
        }
    }

    /// Uses only sources that give the part that is asked for.
    #[must_use]
    pub fn parts_only(mut self) -> Self {
        self.parts_only = true;
        self
    }

    /// One more connection of a blob that is arriving already: it takes only turns that are meant for such. `turn`
    /// was waited for already, and is used where it is for the host that is asked.
    #[must_use]
    pub fn further(mut self, turn: Option<Turn>) -> Self {
        self.turn = turn;
        self.is_further = true;
        self
    }

    /// Where it ends, where it does not go to the blob's end.
    pub fn end(&self) -> Option<u64> {
        self.end
    }

    /// The sources that are of no use for this blob.
    pub fn ruled_out(&self) -> Vec<usize> {
        let all = self.ruled_out.iter().enumerate();
        all.filter(|(_, out)| **out).map(|(at, _)| at).collect()
    }

    /// Tries this source first. Numbers as [`Fetch::contributors`] gives them.
    #[must_use]
    pub fn preferring(mut self, source: usize) -> Self {
        self.preferred = source.min(self.ruled_out.len().saturating_sub(1));
        self
    }

    /// Never uses these sources.
    #[must_use]
    pub fn without(mut self, sources: &[usize]) -> Self {
        for &source in sources {
            self.rule_out(source);
        }
        self
    }

    /// The next byte that will come.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The length of the whole blob, once a source has said it.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// The sources that bytes came from.
    pub fn contributors(&self) -> &[usize] {
        &self.contributors
    }

    /// The source that bytes come from now.
    pub fn source(&self) -> Option<usize> {
        self.open.as_ref().map(|open| open.source)
    }

    /// Opens a source, if none is open yet. True where it gives the part that was asked for; false
    /// where it gives everything from the beginning.
    ///
    /// # Errors
    /// Why no source could be opened.
    pub async fn open(&mut self) -> Result<bool, Failures> {
        if self.open.is_none() {
            self.reopen().await?;
        }
        let gives_all = self.end.is_some() && self.open.as_ref().is_none_or(|o| !o.body.is_part);
        Ok(!gives_all)
    }

    /// Tries each source once. Whether one is asked for less now, and none gives anything.
    pub async fn is_limited(&mut self) -> bool {
        if self.open.is_some() || self.try_all().await {
            return false;
        }
        let mut failures = self.failures.0.iter();
        failures.any(|(_, failure)| matches!(failure, Failure::RateLimited(_)))
    }

    /// Is done with the open source's answer. The rest is asked for anew.
    pub fn close(&mut self) {
        self.preferred = self.source().unwrap_or(self.preferred);
        self.open = None;
        self.ended = None;
    }

    /// Goes on to the end of the blob.
    pub fn unbounded(&mut self) {
        self.end = None;
    }

    /// Ends earlier: somebody else fetches the rest.
    pub fn shorten(&mut self, end: u64) {
        self.end = Some(self.end.map_or(end, |known| known.min(end)));
    }

    /// What has arrived already, without waiting.
    pub fn ready(&mut self) -> Option<Bytes> {
        if self.is_complete() || self.ended.is_some() {
            return None;
        }
        match self.open.as_mut()?.body.body.next().now_or_never()? {
            Some(Ok(bytes)) => self.take(bytes),
            ended => {
                self.ended = Some(ended.transpose().err().unwrap_or_default());
                None
            }
        }
    }

    /// The next bytes; None at the end.
    ///
    /// # Errors
    /// Why no source goes on.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failures> {
        loop {
            if self.is_complete() {
                return Ok(None);
            }
            if self.open.is_none() {
                if self.last_heard.elapsed() > PROGRESS_TIMEOUT {
                    return Err(self.failures.clone());
                }
                self.reopen().await?;
            }
            let Some(open) = &mut self.open else {
                continue;
            };
            let next = match self.ended.take() {
                Some(detail) if detail.is_empty() => Ok(None),
                Some(detail) => Ok(Some(Err(detail))),
                None => timeout(SOURCE_SILENCE_TIMEOUT, open.body.body.next()).await,
            };
            match next {
                Ok(Some(Ok(bytes))) => {
                    if let Some(bytes) = self.take(bytes) {
                        return Ok(Some(bytes));
                    }
                }
                Ok(None) => {
                    let known = self.end.or(self.total);
                    if known.is_none() {
                        // A length was never announced: this is the end, and the digest will tell.
                        self.total = Some(self.at);
                        return Ok(None);
                    }
                    if !self.is_complete() {
                        self.broke("the body ended early".to_owned());
                    }
                }
                Ok(Some(Err(detail))) => self.broke(detail),
                Err(_) => self.broke(format!(
                    "sent nothing for {} s",
                    SOURCE_SILENCE_TIMEOUT.as_secs()
                )),
            }
        }
    }

    fn is_complete(&self) -> bool {
        let end = match (self.end, self.total) {
            (Some(end), Some(total)) => Some(end.min(total)),
            (end, total) => end.or(total),
        };
        end.is_some_and(|end| self.at >= end)
    }

    /// What of a received chunk is wanted.
    fn take(&mut self, mut bytes: Bytes) -> Option<Bytes> {
        let open = self.open.as_mut()?;
        self.last_heard = Instant::now();
        // The shared store counts what comes from it itself.
        if open.source > 0 {
            let received = bytes.len() as u64;
            self.wanted.received.fetch_add(received, Ordering::Relaxed);
        }
        let skipped = open.skip.min(bytes.len() as u64);
        open.skip -= skipped;
        let _ = bytes.split_to(usize::try_from(skipped).unwrap_or(bytes.len()));
        let limit = match (self.end, self.total) {
            (Some(end), Some(total)) => Some(end.min(total)),
            (end, total) => end.or(total),
        };
        if let Some(limit) = limit {
            let left = usize::try_from(limit.saturating_sub(self.at)).unwrap_or(usize::MAX);
            bytes.truncate(left);
        }
        if bytes.is_empty() {
            return None;
        }
        self.arrived = true;
        // Only now: a source without ranges that always breaks off at the same byte sends much, and nothing new.
        self.last_progress = self.last_heard;
        self.idle_rounds = 0;
        self.fruitless.fill(false);
        open.is_fruitful = true;
        self.at += bytes.len() as u64;
        if !self.contributors.contains(&open.source) {
            self.contributors.push(open.source);
        }
        Some(bytes)
    }

    /// The open source has failed in the middle. One that had sent something new is asked again at once;
    /// another one has its next turn after all others.
    fn broke(&mut self, detail: String) {
        let Some(open) = self.open.take() else {
            return;
        };
        tracing::debug!(
            "{} of {} broke off at byte {}: {detail}",
            self.name(open.source),
            self.wanted.digest.short(),
            self.at
        );
        self.failures
            .note(&self.name(open.source), Failure::Silent(detail));
        self.ended = None;
        if open.is_fruitful {
            self.preferred = open.source;
        } else {
            self.preferred = open.source + 1;
            if let Some(fruitless) = self.fruitless.get_mut(open.source) {
                *fruitless = true;
            }
        }
    }
}
