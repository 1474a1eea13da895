//! One registry's circuit breaker: a pure state machine over a clock that is passed in.
//!
//! `closed → open` when the registry fails, for a growing pause; when the pause is over one trial asks
//! `/v2/` (`half-open`); an answer closes the circuit, silence opens it for longer.
//!
//! A registry's failure and an image's failure are two things. What goes wrong with one question is
//! counted by repository, and only [`REPOSITORIES_IN_A_ROW`] different ones without an answer between
//! them open the circuit. So nobody can take a registry from a node by naming one bad image.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// Pauses between trials: from one second to one minute.
pub const TRIAL_BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
};
/// The longest `Retry-After` that is honoured: a registry can't take itself away for a week.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);
/// Different repositories that must fail in a row to count as a failure of their registry.
pub const REPOSITORIES_IN_A_ROW: usize = 3;

/// Whether a registry is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is asked.
    Closed,
    /// It is not asked until then.
    Open {
        /// When a trial may ask whether it is back.
        until: Instant,
    },
    /// It is not asked, except by the trial that is under way.
    HalfOpen,
}

/// What has been seen of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal<'a> {
    /// It answered a question about an image: it has it, it hasn't, or it refuses access.
    Answered,
    /// It answered `/v2/` with a status below 500.
    Alive,
    /// It did not answer `/v2/` so.
    NotAlive {
        /// When it was asked.
        asked: Instant,
    },
    /// It can't be asked at all: refused, no route, DNS, TLS.
    RegistryFailed,
    /// One question got no usable answer.
    ImageFailed {
        /// What the question was about.
        repository: &'a str,
    },
    /// One question was taken and not answered before its deadline.
    Unanswered {
        /// What the question was about.
        repository: &'a str,
        /// When it was asked.
        asked: Instant,
    },
    /// It wants to be left alone for this long (429 with `Retry-After`).
    RateLimited {
        /// Its wish.
        retry_after: Duration,
    },
}

/// What a signal has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The circuit was closed and is open now.
    Opened,
    /// The circuit was open and is closed now.
    Closed,
}

/// A circuit breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    state: State,
    /// Failures of the registry in a row; they make the pauses grow.
    failures: u32,
    /// Different repositories that failed since the last answer. Fewer than [`REPOSITORIES_IN_A_ROW`].
    failed_repositories: Vec<String>,
    /// The registry has named the pause itself, so that no late answer ends it.
    is_pause_wished: bool,
    /// When it last answered anything.
    answered: Option<Instant>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed,
            failures: 0,
            failed_repositories: Vec::new(),
            is_pause_wished: false,
            answered: None,
        }
    }
}

impl Breaker {
    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Failures of the registry in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether requests may be sent to the registry.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether the circuit is open only because images failed in a row, and the trial that comes at once
    /// has not ended yet. Questions do well to wait for it.
    pub fn awaits_first_trial(&self) -> bool {
        !self.is_closed() && self.failures == 0
    }

    /// Whether the registry has answered anything at `asked` or later.
    pub fn has_answered_since(&self, asked: Instant) -> bool {
        self.answered.is_some_and(|answered| answered >= asked)
    }

    /// Notes what was seen. `jitter`, from 0 to 1, spreads the trials of nodes that failed together.
    ///
    /// Failures that arrive while the circuit is open belong to questions from before: they are counted
    /// nowhere, or hundreds of concurrent pulls would drive the pause to its end.
    pub fn note(&mut self, signal: Signal<'_>, now: Instant, jitter: f64) -> Option<Change> {
        match signal {
            Signal::Answered => {
                self.answered = Some(now);
                self.failed_repositories.clear();
                self.close(now)
            }
            Signal::Alive => {
                self.answered = Some(now);
                self.close(now)
            }
            Signal::NotAlive { asked } => match self.state {
                State::HalfOpen => {
                    self.open_for_a_pause(now, jitter);
                    None
                }
                State::Closed if !self.has_answered_since(asked) => {
                    self.open_for_a_pause(now, jitter);
                    Some(Change::Opened)
                }
                State::Closed | State::Open { .. } => None,
            },
            // The rest are failures, and none counts while the circuit is open.
            _ if !self.is_closed() => None,
            Signal::RegistryFailed => {
                self.open_for_a_pause(now, jitter);
                Some(Change::Opened)
            }
            Signal::Unanswered { asked, .. } if !self.has_answered_since(asked) => {
                self.open_for_a_pause(now, jitter);
                Some(Change::Opened)
            }
            Signal::ImageFailed { repository } | Signal::Unanswered { repository, .. } => {
                self.image_failed(repository, now)
            }
            Signal::RateLimited { retry_after } => {
                self.open_for_a_pause(now, jitter);
                // Never earlier than it wishes, and not all nodes that were told the same at once.
                let shortest = retry_after.min(LONGEST_RETRY_AFTER);
                let longest = retry_after.saturating_mul(5) / 4;
                let spread = longest.min(LONGEST_RETRY_AFTER) - shortest;
                let wished = now + shortest + spread.mul_f64(jitter.clamp(0.0, 1.0));
                if let State::Open { until } = &mut self.state {
                    *until = wished.max(*until);
                }
                self.is_pause_wished = true;
                Some(Change::Opened)
            }
        }
    }

    /// Takes the right to ask `/v2/` once the pause is over. True for exactly one caller per pause.
    pub fn begin_trial(&mut self, now: Instant) -> bool {
        match self.state {
            State::Open { until } if now >= until => {
                self.state = State::HalfOpen;
                true
            }
            _ => false,
        }
    }

    fn close(&mut self, now: Instant) -> Option<Change> {
        match self.state {
            State::Closed => return None,
            State::Open { until } if self.is_pause_wished && now < until => return None,
            State::Open { .. } | State::HalfOpen => {}
        }
        *self = Self {
            answered: self.answered,
            ..Self::default()
        };
        Some(Change::Closed)
    }

    fn open_for_a_pause(&mut self, now: Instant, jitter: f64) {
        self.failures = self.failures.saturating_add(1);
        let pause = TRIAL_BACKOFF.spread_pause(self.failures, jitter);
        self.open_until(now + pause);
    }

    fn open_until(&mut self, until: Instant) {
        self.failed_repositories.clear();
        self.is_pause_wished = false;
        self.state = State::Open { until };
    }

    fn image_failed(&mut self, repository: &str, now: Instant) -> Option<Change> {
        let failed = &mut self.failed_repositories;
        if failed.iter().any(|known| known == repository) {
            return None;
        }
        if failed.len() + 1 < REPOSITORIES_IN_A_ROW {
            failed.push(repository.to_owned());
            return None;
        }
        // No pause before the trial: where somebody only named bad images, the registry is back after
        // one round trip.
        self.open_until(now);
        Some(Change::Opened)
    }
}

#[cfg(test)]
mod tests;
