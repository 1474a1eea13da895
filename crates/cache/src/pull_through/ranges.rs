//! Which bytes of a blob are there while it grows.

/// Ranges of bytes, sorted, none touching another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// From pairs of start and end (not included) that may come in any order and overlap.
    pub fn from_pairs(pairs: &[(u64, u64)]) -> Self {
        let mut ranges = Self::default();
        for &(start, end) in pairs {
            ranges.insert(start, end);
        }
        ranges
    }

    /// Start and end of each.
    pub fn pairs(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// Adds what has arrived.
    pub fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let first = self.0.partition_point(|&(_, e)| e < start);
        let (mut start, mut end, mut last) = (start, end, first);
        while let Some(&(s, e)) = self.0.get(last)
            && s <= end
        {
            start = start.min(s);
            end = end.max(e);
            last += 1;
        }
        self.0.splice(first..last, [(start, end)]);
    }

    /// The end of what is there without a gap from `offset` on; `offset` itself where nothing is.
    pub fn reach(&self, offset: u64) -> u64 {
        let at = self.0.partition_point(|&(_, end)| end <= offset);
        match self.0.get(at) {
            Some(&(start, end)) if start <= offset => end,
            _ => offset,
        }
    }

    /// Number of bytes that are there.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// What is missing up to `total`.
    pub fn gaps(&self, total: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut at = 0;
        for &(start, end) in &self.0 {
            if start > at {
                gaps.push((at, start.min(total)));
            }
            at = at.max(end);
        }
        if at < total {
            gaps.push((at, total));
        }
        gaps.retain(|(start, end)| start < end);
        gaps
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn touching_ranges_become_one() {
        let mut ranges = Ranges::from_pairs(&[(10, 20), (0, 5), (30, 40)]);
        assert_eq!(ranges.gaps(50), [(5, 10), (20, 30), (40, 50)]);
        assert_eq!(
            (ranges.reach(0), ranges.reach(5), ranges.reach(12)),
            (5, 5, 20)
        );
        ranges.insert(5, 10);
        ranges.insert(20, 30);
        assert_eq!(ranges.pairs(), [(0, 40)]);
        assert_eq!((ranges.reach(0), ranges.bytes()), (40, 40));
    }

    proptest! {
        #[test]
        fn as_a_set_of_bytes(pairs in prop::collection::vec((0u64..40, 0u64..40), 0..12)) {
            let ranges = Ranges::from_pairs(&pairs);
            let is_in = |byte: u64| pairs.iter().any(|&(s, e)| s <= byte && byte < e);
            let gaps = ranges.gaps(40);
            for byte in 0..40 {
                let in_gap = gaps.iter().any(|&(s, e)| s <= byte && byte < e);
                prop_assert_eq!(is_in(byte), !in_gap);
                prop_assert_eq!(ranges.reach(byte) > byte, is_in(byte));
            }
            prop_assert_eq!(ranges.bytes(), (0..40).filter(|&b| is_in(b)).count() as u64);
            prop_assert!(ranges.pairs().windows(2).all(|w| w[0].1 < w[1].0));
        }
    }
}
