//! One registry's circuit breaker: a pure state machine over a clock that is passed in.
//!
//! `closed → open` on a failure, for a growing pause; when the pause is over somebody is let through
//! to try (`half-open`); their success closes it, their failure opens it for longer.

use std::time::{Duration, Instant};

/// The first pause.
pub const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that is not the registry's own wish.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest `Retry-After` that is honoured: a registry can't put itself aside for a week.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// What is known about a registry's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It answers.
    Closed,
    /// It is not asked until then.
    Open {
        /// When it may be tried again.
        until: Instant,
    },
    /// It is not asked, except by the one who tries whether it is back.
    HalfOpen,
}

/// A circuit breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    state: State,
    failures: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed,
            failures: 0,
        }
    }
}

impl Breaker {
    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether requests may be sent to the registry.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Notes an answer, whatever it said. True when this closed the breaker.
    pub fn succeeded(&mut self) -> bool {
        let reopened = self.state != State::Closed;
        *self = Self::default();
        reopened
    }

    /// Notes a failure. `retry_after` is the registry's own wish; `jitter`, from 0 to 1, spreads
    /// nodes that failed together. True when this opened a closed breaker.
    ///
    /// A failure that arrives while the breaker is open is a late answer to a request sent before:
    /// it is counted nowhere, or hundreds of concurrent pulls would drive the pause to its end.
    pub fn failed(&mut self, now: Instant, retry_after: Option<Duration>, jitter: f64) -> bool {
        if matches!(self.state, State::Open { .. }) {
            return false;
        }
        let opened = self.state == State::Closed;
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10));
        let pause = doubled.min(LONGEST_PAUSE);
        // Three quarters to all of the pause: never longer than what is promised.
        let pause = pause.mul_f64(0.75 + 0.25 * jitter.clamp(0.0, 1.0));
        let pause = match retry_after {
            Some(wish) => wish.min(LONGEST_RETRY_AFTER).max(pause),
            None => pause,
        };
        self.failures = self.failures.saturating_add(1);
        self.state = State::Open { until: now + pause };
        opened
    }

    /// Takes the right to try once the pause is over. True for exactly one caller per pause.
    pub fn try_half_open(&mut self, now: Instant) -> bool {
        match self.state {
            State::Open { until } if now >= until => {
                self.state = State::HalfOpen;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn opens_on_a_failure_and_closes_on_an_answer() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        assert!(breaker.failed(now, None, 1.0));
        assert_eq!(
            breaker.state(),
            State::Open {
                until: now + FIRST_PAUSE
            }
        );
        assert!(!breaker.try_half_open(now));
        assert!(breaker.try_half_open(now + FIRST_PAUSE));
        assert!(!breaker.try_half_open(now + FIRST_PAUSE), "one trial only");
        assert!(breaker.succeeded());
        assert!(breaker.is_closed());
        assert_eq!(breaker.failures(), 0);
    }

    #[test]
    fn pauses_grow_to_a_minute() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            breaker.failed(now, None, 1.0);
            let State::Open { until } = breaker.state() else {
                panic!("not open");
            };
            pauses.push((until - now).as_secs());
            now = until;
            assert!(breaker.try_half_open(now));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn late_failures_count_once() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..200 {
            breaker.failed(now, None, 0.0);
        }
        assert_eq!(breaker.failures(), 1);
    }

    #[test]
    fn retry_after_is_honoured_within_reason() {
        let now = Instant::now();
        let until = |wish: u64| {
            let mut breaker = Breaker::default();
            breaker.failed(now, Some(Duration::from_secs(wish)), 0.0);
            match breaker.state() {
                State::Open { until } => until - now,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(until(120), Duration::from_secs(120));
        assert_eq!(until(0), Duration::from_millis(750));
        assert_eq!(until(1_000_000), LONGEST_RETRY_AFTER);
    }

    proptest! {
        /// Whatever happens in whatever order, a pause is bounded, and waiting it out lets exactly one through.
        #[test]
        fn always_recovers(events in prop::collection::vec((0u8..3, 0u64..100, 0.0f64..1.0), 0..60)) {
            let mut now = Instant::now();
            let mut breaker = Breaker::default();
            for (event, seconds, jitter) in events {
                match event {
                    0 => { breaker.failed(now, None, jitter); }
                    1 => { breaker.succeeded(); }
                    _ => { breaker.try_half_open(now); }
                }
                if let State::Open { until } = breaker.state() {
                    prop_assert!(until <= now + LONGEST_PAUSE);
                }
                now += Duration::from_secs(seconds);
            }
            if let State::Open { until } = breaker.state() {
                let at = until.max(now);
                prop_assert!(breaker.try_half_open(at));
                prop_assert!(!breaker.try_half_open(at));
            }
        }
    }
}
