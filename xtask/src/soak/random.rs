//! Numbers that look random and follow from a seed, so that a run can be repeated.

use std::time::Duration;

/// A generator (SplitMix64): the same seed gives the same numbers on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// A generator for one purpose: `stream` keeps the numbers of several purposes of one seed apart.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = Self(seed);
        Self(mixed.number() ^ stream.wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }

    /// Any number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 where `end` is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.number() % end).unwrap_or(0)
    }

    /// Whether something happens that happens `times` in `of` times.
    pub(crate) fn chance(&mut self, times: usize, of: usize) -> bool {
        self.below(of) < times
    }

    /// A time between two, in milliseconds.
    pub(crate) fn between(&mut self, shortest_ms: u64, longest_ms: u64) -> Duration {
        let width = usize::try_from(longest_ms.saturating_sub(shortest_ms) + 1).unwrap_or(1);
        Duration::from_millis(shortest_ms + self.below(width) as u64)
    }

    /// One of them.
    pub(crate) fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }

    /// Puts them into another order.
    pub(crate) fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            let other = self.below(last + 1);
            all.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_again_and_a_stream_others() {
        let numbers = |seed, stream| {
            let mut random = Random::new(seed, stream);
            [(); 8].map(|()| random.number())
        };
        assert_eq!(numbers(7, 1), numbers(7, 1));
        assert_ne!(numbers(7, 1), numbers(7, 2));
        assert_ne!(numbers(7, 1), numbers(8, 1));
    }

    #[test]
    fn stays_within_its_bounds() {
        let mut random = Random::new(1, 1);
        for _ in 0..1000 {
            assert!(random.below(3) < 3);
            let time = random.between(5, 9).as_millis();
            assert!((5..=9).contains(&time));
        }
        assert_eq!(random.below(0), 0);
        let mut all: Vec<usize> = (0..50).collect();
        random.shuffle(&mut all);
        assert_ne!(all, (0..50).collect::<Vec<_>>());
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
    }
}
