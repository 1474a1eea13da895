//! What is counted: requests in each second, and how long pods have waited.

use std::time::Duration;

/// A window that a peak may also be the mean of, in seconds: a peak of one second is chance in part.
const WINDOW: usize = 10;

/// Requests in each second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    per_second: Vec<u32>,
}

impl Series {
    /// Counts `requests` at `since_start`.
    pub fn count(&mut self, since_start: Duration, requests: u32) {
        let at = usize::try_from(since_start.as_secs()).unwrap_or(usize::MAX);
        if self.per_second.len() <= at {
            self.per_second.resize(at.saturating_add(1), 0);
        }
        if let Some(second) = self.per_second.get_mut(at) {
            *second = second.saturating_add(requests);
        }
    }

    /// All seconds so far.
    pub fn per_second(&self) -> &[u32] {
        &self.per_second
    }

    /// All requests.
    pub fn total(&self) -> u64 {
        self.per_second.iter().map(|n| u64::from(*n)).sum()
    }

    /// Those of `self` and `other` together.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let length = self.per_second.len().max(other.per_second.len());
        let at = |series: &Self, n: usize| series.per_second.get(n).copied().unwrap_or(0);
        Self {
            per_second: (0..length).map(|n| at(self, n) + at(other, n)).collect(),
        }
    }

    /// Requests per second in the busiest ten seconds.
    pub fn peak(&self) -> f64 {
        self.busiest(WINDOW)
    }

    /// Requests in the busiest second.
    pub fn peak_second(&self) -> f64 {
        self.busiest(1)
    }

    /// Requests per second in the busiest ten seconds from second `from` on.
    pub fn peak_from(&self, from: usize) -> f64 {
        let per_second = self.per_second.get(from..).unwrap_or_default().to_vec();
        Self { per_second }.peak()
    }

    fn busiest(&self, seconds: usize) -> f64 {
        let windows = self.per_second.windows(seconds);
        let busiest = windows
            .map(|window| window.iter().map(|n| u64::from(*n)).sum::<u64>())
            .max();
        // A run that is shorter than the window is one window.
        busiest.unwrap_or_else(|| self.total()) as f64 / seconds as f64
    }
}

/// How long pods have waited for their images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Waits {
    seconds: Vec<f32>,
    /// Pods that had no image at the end.
    pub unfinished: u64,
}

impl Waits {
    /// This many that have not ended.
    pub fn of(unfinished: u64) -> Self {
        Self {
            unfinished,
            seconds: Vec::new(),
        }
    }

    /// One pod has its image.
    pub fn note(&mut self, wait: Duration) {
        self.seconds.push(wait.as_secs_f32());
    }

    /// Pods that have their image.
    pub fn finished(&self) -> usize {
        self.seconds.len()
    }

    /// The time within which this part of the pods had their image, in seconds.
    pub fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f32::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let at = (last as f64 * part).round() as usize;
        f64::from(sorted.get(at).copied().unwrap_or(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_of_the_busiest_time() {
        let mut series = Series::default();
        for second in 0..20 {
            series.count(Duration::from_secs(second), 1);
        }
        series.count(Duration::from_secs(15), 99);
        assert_eq!(series.total(), 119);
        assert_eq!(series.peak_second(), 100.0);
        assert_eq!(series.peak(), 10.9);
        assert_eq!(series.peak_from(16), 0.4);
        assert_eq!(series.and(&series).total(), 238);
    }

    #[test]
    fn quantiles_are_of_those_that_ended() {
        let mut waits = Waits::default();
        for second in (0..=100).rev() {
            waits.note(Duration::from_secs(second));
        }
        assert_eq!(waits.quantile(0.5), 50.0);
        assert_eq!(waits.quantile(0.99), 99.0);
        assert_eq!(Waits::default().quantile(0.5), 0.0);
    }
}
