//! The last decisions, and those under way.
//!
//! A [`Recording`] is opened when a pull begins and follows it; whoever looks sees it at once. What is
//! kept is bounded by number and by bytes: the oldest decisions go when new ones come.

mod weight;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use policy::Reference;

use self::weight::weight;
use crate::report::{CandidateReport, Decision, Outcome, Place, PullReport, micros, timestamp};

/// Decisions that are kept: some days of an ordinary node, in one or two megabytes.
pub const KEPT: usize = 500;
/// Bytes that all decisions together may take, those under way included: with hundreds of registries each
/// decision has hundreds of texts.
pub const KEPT_BYTES: usize = 4 << 20;

/// Decisions of this process.
#[derive(Clone, Debug)]
pub struct History {
    /// None keeps nothing.
    inner: Option<Arc<Mutex<Inner>>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Decisions that ever began.
    total: u64,
    running: Vec<Kept>,
    /// Oldest first.
    ended: VecDeque<Kept>,
    /// Weight of all of them.
    bytes: usize,
}

/// A decision, and what it counts for in [`Inner::bytes`].
#[derive(Debug)]
struct Kept {
    decision: Decision,
    bytes: usize,
}

impl Inner {
    fn begin(&mut self, decision: Decision) {
        let bytes = weight(&decision);
        self.bytes += bytes;
        self.running.push(Kept { decision, bytes });
        self.make_room(self.running.len() - 1);
    }

    /// Where the decision with this number is among those under way.
    fn position(&self, id: u64) -> Option<usize> {
        self.running.iter().position(|kept| kept.decision.id == id)
    }

    fn change(&mut self, at: usize, change: impl FnOnce(&mut Decision)) {
        if let Some(kept) = self.running.get_mut(at) {
            change(&mut kept.decision);
            let bytes = weight(&kept.decision);
            self.bytes = self.bytes - kept.bytes + bytes;
            kept.bytes = bytes;
        }
        self.make_room(at);
    }

    fn end(&mut self, at: usize) {
        let kept = self.running.remove(at);
        self.ended.push_back(kept);
        while self.ended.len() > KEPT || self.bytes > KEPT_BYTES {
            if !self.forget_oldest() {
                break;
            }
        }
    }

    /// Forgets old decisions for the one under way at `at`. Where those under way are too much by
    /// themselves, its places are left out of it; what was pulled stays.
    fn make_room(&mut self, at: usize) {
        while self.bytes > KEPT_BYTES && self.forget_oldest() {}
        if self.bytes > KEPT_BYTES
            && let Some(kept) = self.running.get_mut(at)
        {
            kept.decision.candidates = Vec::new();
            let bytes = weight(&kept.decision);
            self.bytes = self.bytes - kept.bytes + bytes;
            kept.bytes = bytes;
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let oldest = self.ended.pop_front();
        self.bytes -= oldest.as_ref().map_or(0, |kept| kept.bytes);
        oldest.is_some()
    }
}

impl Default for History {
    fn default() -> Self {
        Self {
            inner: Some(Arc::default()),
        }
    }
}

impl History {
    /// One that keeps nothing.
    pub(crate) fn off() -> Self {
        Self { inner: None }
    }

    /// Notes that a pull of `image` begins.
    pub fn begin(&self, image: &str, candidates: Vec<CandidateReport>) -> Recording {
        let mut id = 0;
        if let Some(inner) = &self.inner {
            let mut inner = inner.lock();
            inner.total += 1;
            id = inner.total;
            inner.begin(Decision {
                id,
                at: timestamp(SystemTime::now()),
                image: image.to_owned(),
                candidates,
                resolved_us: None,
                from_memory: false,
                pulls: Vec::new(),
                outcome: Outcome::Running,
                elapsed_us: None,
            });
        }
        Recording {
            inner: self.inner.clone(),
            id,
            started: Instant::now(),
        }
    }

    /// Decisions since the start, those under way included.
    pub fn total(&self) -> u64 {
        self.inner.as_ref().map_or(0, |inner| inner.lock().total)
    }

    /// Pulls under way, oldest first.
    pub fn running(&self) -> Vec<Decision> {
        self.inner.as_ref().map_or_else(Vec::new, |inner| {
            let inner = inner.lock();
            let running = inner.running.iter();
            running.map(|kept| kept.decision.clone()).collect()
        })
    }

    /// How many pulls are under way.
    pub fn running_count(&self) -> usize {
        self.inner
            .as_ref()
            .map_or(0, |inner| inner.lock().running.len())
    }

    /// Bytes that are kept, near enough. At most [`KEPT_BYTES`], and a few hundred for each pull under way.
    pub fn kept_bytes(&self) -> usize {
        self.inner.as_ref().map_or(0, |inner| inner.lock().bytes)
    }

    /// The last `most` decisions that have ended and that `wanted` wants, newest first.
    pub fn ended(&self, most: usize, wanted: impl Fn(&Decision) -> bool) -> Vec<Decision> {
        self.inner.as_ref().map_or_else(Vec::new, |inner| {
            let inner = inner.lock();
            let newest_first = inner.ended.iter().rev();
            newest_first
                .map(|kept| &kept.decision)
                .filter(|decision| wanted(decision))
                .take(most)
                .cloned()
                .collect()
        })
    }
}

/// Whether a decision is about `image`: the same name in any spelling, or, where `image` has neither
/// tag nor digest, any image of that repository.
pub fn is_about(decision: &Decision, image: &str) -> bool {
    if decision.image == image {
        return true;
    }
    let (Ok(one), Ok(other)) = (Reference::parse(&decision.image), Reference::parse(image)) else {
        return false;
    };
    let repository = |of: &Reference| (of.domain().to_owned(), of.repository().to_owned());
    // What a name without tag means is `latest`, and nobody who looks for `nginx` means only that.
    let is_bare = other.digest().is_none() && !image.ends_with(&other.suffix());
    one.canonical() == other.canonical() || (is_bare && repository(&one) == repository(&other))
}

/// Follows one pull. One that is dropped before [`Recording::finish`] was cancelled.
#[derive(Debug)]
pub struct Recording {
    inner: Option<Arc<Mutex<Inner>>>,
    id: u64,
    started: Instant,
}

impl Recording {
    /// Notes what the candidates said so far.
    pub fn resolved(&self, candidates: Vec<CandidateReport>, from_memory: bool) {
        let elapsed = micros(self.started.elapsed());
        self.change(|decision| {
            decision.candidates = candidates;
            // A second round of questions doesn't change when the first decision was made.
            decision.resolved_us.get_or_insert(elapsed);
            decision.from_memory = from_memory;
        });
    }

    /// Notes that a pull is tried, since `began`.
    pub fn pulling(&self, image: &str, registry: &str, place: Place, began: Instant) {
        let started_us = micros(began.saturating_duration_since(self.started));
        self.change(|decision| {
            decision.pulls.push(PullReport {
                image: image.to_owned(),
                registry: registry.to_owned(),
                place,
                started_us,
                elapsed_us: None,
                error: None,
            });
        });
    }

    /// Notes how the last try ended.
    pub fn pulled(&self, error: Option<&str>) {
        let now = micros(self.started.elapsed());
        self.change(|decision| {
            if let Some(pull) = decision.pulls.last_mut() {
                pull.elapsed_us = Some(now.saturating_sub(pull.started_us));
                pull.error = error.map(ToOwned::to_owned);
            }
        });
    }

    /// Notes the end.
    pub fn finish(self, outcome: Outcome) {
        self.end(outcome);
        // Dropping finds nothing under way any more.
    }

    fn change(&self, change: impl FnOnce(&mut Decision)) {
        let Some(inner) = &self.inner else {
            return;
        };
        let mut inner = inner.lock();
        if let Some(at) = inner.position(self.id) {
            inner.change(at, change);
        }
    }

    fn end(&self, outcome: Outcome) {
        let Some(inner) = &self.inner else {
            return;
        };
        let elapsed = micros(self.started.elapsed());
        let mut inner = inner.lock();
        if let Some(at) = inner.position(self.id) {
            inner.change(at, |decision| {
                decision.outcome = outcome;
                decision.elapsed_us = Some(elapsed);
            });
            inner.end(at);
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

#[cfg(test)]
mod tests;
