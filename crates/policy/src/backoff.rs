//! Pauses that grow with each failure in a row.

use std::time::Duration;

/// A pause that doubles with each failure, up to a longest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The pause after the first failure.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Backoff {
    /// The pause after this many failures in a row; none after no failure.
    pub fn pause(self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else {
            return Duration::ZERO;
        };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }

    /// [`Self::pause`], made shorter by up to a quarter, so that nodes which have failed together don't
    /// try again together. `jitter` is from 0 (the shortest pause) to 1 (the whole one).
    pub fn spread_pause(self, failures: u32, jitter: f64) -> Duration {
        let jitter = if jitter.is_nan() { 0.0 } else { jitter };
        self.pause(failures)
            .mul_f64(0.75 + 0.25 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_secs(1),
        longest: Duration::from_secs(60),
    };

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses: Vec<u64> = (0..9).map(|n| BACKOFF.pause(n).as_secs()).collect();
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(BACKOFF.pause(u32::MAX), BACKOFF.longest);
    }

    proptest! {
        /// No number of failures and no jitter makes a pause longer than promised, or shorter than three
        /// quarters of it.
        #[test]
        fn spread_stays_within_a_quarter(failures in any::<u32>(), jitter in any::<f64>()) {
            let whole = BACKOFF.pause(failures);
            let spread = BACKOFF.spread_pause(failures, jitter);
            prop_assert!(spread <= whole);
            prop_assert!(spread >= whole.mul_f64(0.75));
        }
    }
}
