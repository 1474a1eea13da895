//! Numbers that differ from node to node, so that what all nodes do is not done by all at the same moment.

use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers from 0 to 1 that follow from a seed. Good enough to spread what nodes do; nothing secret hangs on
/// it. Who makes one takes a seed from the system, or a fixed one where a run is to be repeated.
#[derive(Debug)]
pub struct Jitter(AtomicU64);

impl Jitter {
    /// The numbers of `seed`.
    pub fn from_seed(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next number: at least 0, less than 1.
    pub fn next(&self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The next 64 bits (SplitMix64): for seeds of others.
    pub fn bits(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_from_the_seed_and_are_spread() {
        let numbers = |seed| {
            let jitter = Jitter::from_seed(seed);
            (0..1000).map(|_| jitter.next()).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        let mean = numbers(7).iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
        assert!(numbers(7).iter().all(|n| (0.0..1.0).contains(n)));
    }
}
