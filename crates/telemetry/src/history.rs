//! The last decisions, and those under way.
//!
//! A [`Recording`] is opened when a pull begins and follows it; whoever looks sees it at once. What is
//! kept is bounded: the oldest decision goes when a new one ends.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use policy::Reference;

use crate::report::{CandidateReport, Decision, Outcome, Place, PullReport, micros, timestamp};

/// Decisions that are kept: some days of an ordinary node, in one or two megabytes.
pub const KEPT: usize = 500;

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
    running: Vec<Decision>,
    /// Oldest first.
    ended: VecDeque<Decision>,
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
            let mut inner = lock(inner);
            inner.total += 1;
            id = inner.total;
            inner.running.push(Decision {
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
        self.inner.as_ref().map_or(0, |inner| lock(inner).total)
    }

    /// Pulls under way, oldest first.
    pub fn running(&self) -> Vec<Decision> {
        self.inner
            .as_ref()
            .map_or_else(Vec::new, |inner| lock(inner).running.clone())
    }

    /// The last `most` decisions that have ended and that `wanted` wants, newest first.
    pub fn ended(&self, most: usize, wanted: impl Fn(&Decision) -> bool) -> Vec<Decision> {
        self.inner.as_ref().map_or_else(Vec::new, |inner| {
            let inner = lock(inner);
            let newest_first = inner.ended.iter().rev();
            newest_first
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

    /// Notes that a pull is tried.
    pub fn pulling(&self, image: &str, registry: &str, place: Place) {
        let started_us = micros(self.started.elapsed());
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
        let mut inner = lock(inner);
        if let Some(decision) = inner.running.iter_mut().find(|d| d.id == self.id) {
            change(decision);
        }
    }

    fn end(&self, outcome: Outcome) {
        let Some(inner) = &self.inner else {
            return;
        };
        let mut inner = lock(inner);
        let Some(at) = inner.running.iter().position(|d| d.id == self.id) else {
            return;
        };
        let mut decision = inner.running.remove(at);
        decision.outcome = outcome;
        decision.elapsed_us = Some(micros(self.started.elapsed()));
        if inner.ended.len() == KEPT {
            inner.ended.pop_front();
        }
        inner.ended.push_back(decision);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

/// Every change under the lock is a single step, so a panic elsewhere leaves nothing half-done.
fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulled() -> Outcome {
        Outcome::Pulled {
            image: "a.io/x:1".to_owned(),
            registry: "a.io".to_owned(),
            place: Place::Registry,
        }
    }

    #[test]
    fn a_pull_is_seen_while_it_runs_and_after_it() {
        let history = History::default();
        let recording = history.begin("x:1", Vec::new());
        recording.resolved(Vec::new(), true);
        recording.pulling("a.io/x:1", "a.io", Place::Registry);
        let running = history.running();
        assert_eq!(running.len(), 1);
        assert_eq!(running[0].pulls[0].elapsed_us, None);
        recording.pulled(Some("no space"));
        recording.pulling("x:1", "origin", Place::Origin);
        recording.pulled(None);
        recording.finish(pulled());
        assert!(history.running().is_empty());
        let ended = history.ended(10, |_| true);
        assert_eq!(ended.len(), 1, "once, and not cancelled as well");
        assert_eq!(ended[0].outcome, pulled());
        assert_eq!(ended[0].pulls[0].error.as_deref(), Some("no space"));
        assert!(ended[0].elapsed_us >= ended[0].pulls[1].elapsed_us);
    }

    #[test]
    fn what_is_dropped_was_cancelled() {
        let history = History::default();
        drop(history.begin("x:1", Vec::new()));
        assert_eq!(history.ended(1, |_| true)[0].outcome, Outcome::Cancelled);
    }

    #[test]
    fn the_oldest_goes_first() {
        let history = History::default();
        for _ in 0..KEPT + 3 {
            history.begin("x:1", Vec::new()).finish(pulled());
        }
        let ended = history.ended(usize::MAX, |_| true);
        assert_eq!(ended.len(), KEPT);
        assert_eq!(ended[0].id, KEPT as u64 + 3);
        assert_eq!(ended[KEPT - 1].id, 4);
        assert_eq!(history.total(), KEPT as u64 + 3);
    }

    #[test]
    fn one_image_in_all_spellings() {
        let history = History::default();
        for image in [
            "nginx:1.27",
            "docker.io/library/nginx:1.28",
            "quay.io/nginx",
        ] {
            history.begin(image, Vec::new()).finish(pulled());
        }
        let found = |image: &str| {
            let ended = history.ended(10, |decision| is_about(decision, image));
            ended.into_iter().map(|d| d.image).collect::<Vec<_>>()
        };
        assert_eq!(found("index.docker.io/nginx:1.27"), ["nginx:1.27"]);
        assert_eq!(
            found("nginx"),
            ["docker.io/library/nginx:1.28", "nginx:1.27"]
        );
        assert_eq!(found("quay.io/nginx:latest"), ["quay.io/nginx"]);
        assert_eq!(found("nginx:latest"), [""; 0]);
    }

    #[test]
    fn off_keeps_nothing() {
        let history = History::off();
        let recording = history.begin("x:1", Vec::new());
        recording.pulling("x:1", "origin", Place::Origin);
        recording.finish(pulled());
        assert!(history.ended(1, |_| true).is_empty());
        assert_eq!(history.total(), 0);
    }
}
