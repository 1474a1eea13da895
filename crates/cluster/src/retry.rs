//! When a watch is opened again, spread so that the nodes of a cluster don't come as one.

use std::time::Duration;

use policy::backoff::Backoff;
use tokio::time::Instant;

/// Pauses of a node that has never read the object, and of one whose watches end at once.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(15),
};
/// Pauses between watches where the server refuses them; the object itself is asked for meanwhile.
const REFUSED: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
};
/// A watch that ends so little before its time, or at so nearly the age of the one before it, was not cut off
/// by a restart of the server: it was its time, or something on the way cuts all watches at that age.
const TOLERANCE: Duration = Duration::from_secs(5);
/// A watch that was younger when it ended is a reason to be slower with the next one.
const YOUNG: Duration = Duration::from_secs(10);

/// What is known of tries so far.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    /// Whether the object, or that it is not there, was ever read.
    is_synced: bool,
    /// Tries in a row that have failed, or watches in a row that were young when they ended.
    failures: u32,
    /// Watches in a row that were refused.
    refusals: u32,
    /// When the server was to be asked last, while no watch stands.
    asked: Option<Instant>,
    last_age: Option<Duration>,
}

impl Retry {
    /// A watch was opened, and the object is known.
    pub(crate) fn succeeded(&mut self) {
        self.answered();
        self.refusals = 0;
        self.asked = None;
    }

    /// The object was asked for, and the server answered.
    pub(crate) fn answered(&mut self) {
        self.is_synced = true;
    }

    /// The pause after a try that failed at `now`.
    pub(crate) fn failed(&mut self, now: Instant, interval: Duration, random: f64) -> Duration {
        if self.is_synced {
            return self.round(now, interval, random);
        }
        self.failures = self.failures.saturating_add(1);
        BACKOFF.spread_pause(self.failures, random)
    }

    /// The pause after a watch was refused although the server answers.
    pub(crate) fn refused(&mut self, random: f64) -> Duration {
        self.refusals = self.refusals.saturating_add(1);
        REFUSED.spread_pause(self.refusals, random)
    }

    /// The pause after a watch that was `opened` for `length` has ended.
    pub(crate) fn ended(
        &mut self,
        opened: Instant,
        length: Duration,
        interval: Duration,
        random: f64,
    ) -> Duration {
        let now = Instant::now();
        let age = now.saturating_duration_since(opened);
        let before = self.last_age.replace(age);
        if age < YOUNG {
            self.failures = self.failures.saturating_add(1);
            return BACKOFF.spread_pause(self.failures, random);
        }
        self.failures = 0;
        let is_like_the_last = before.is_some_and(|before| before.abs_diff(age) < TOLERANCE);
        if age + TOLERANCE >= length || is_like_the_last {
            return Duration::ZERO;
        }
        self.round(now, interval, random)
    }

    /// The time to this node's own moment of each `interval`: so a change is never seen later than that, and the
    /// nodes of a cluster come evenly, however long the server is away.
    fn round(&mut self, now: Instant, interval: Duration, random: f64) -> Duration {
        let moment = match self.asked {
            None => now + interval.mul_f64(random),
            Some(before) => (before + interval).max(now),
        };
        self.asked = Some(moment);
        moment - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(15);
    const LENGTH: Duration = Duration::from_secs(450);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A node whose watch stands.
    fn synced() -> Retry {
        let mut retry = Retry::default();
        retry.succeeded();
        retry
    }

    async fn ends_at(retry: &mut Retry, age: Duration, random: f64) -> Duration {
        let opened = Instant::now();
        tokio::time::advance(age).await;
        let pause = retry.ended(opened, LENGTH, INTERVAL, random);
        retry.succeeded();
        pause
    }

    #[test]
    fn a_node_that_knows_nothing_asks_soon_and_then_more_rarely() {
        let mut retry = Retry::default();
        for pause in [1, 2, 4, 8, 15, 15].map(seconds) {
            assert_eq!(retry.failed(Instant::now(), INTERVAL, 1.0), pause);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_whose_time_it_was_is_opened_again_at_once() {
        let mut retry = synced();
        for early in [0, 3].map(seconds) {
            let pause = ends_at(&mut retry, LENGTH - early, 0.5).await;
            assert_eq!(pause, Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn watches_that_a_restart_cuts_off_are_opened_again_over_an_interval() {
        for (random, pause) in [(0.0, 0), (0.4, 6), (1.0, 15)] {
            let paused = ends_at(&mut synced(), seconds(100), random).await;
            assert_eq!(paused, seconds(pause));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn watches_that_something_cuts_off_at_one_age_are_opened_again_at_once() {
        let mut retry = synced();
        // The last one is cut off by a restart.
        for (age, pause) in [(35, 6), (36, 0), (35, 0), (200, 6)] {
            let paused = ends_at(&mut retry, seconds(age), 0.4).await;
            assert_eq!(paused, seconds(pause), "{age}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_server_is_away_each_node_asks_at_its_own_moment_of_every_interval() {
        let mut retry = synced();
        for pause in [6, 15, 15].map(seconds) {
            assert_eq!(retry.failed(Instant::now(), INTERVAL, 0.4), pause);
            tokio::time::advance(pause).await;
        }
        // The server was silent until then.
        tokio::time::advance(seconds(10)).await;
        assert_eq!(retry.failed(Instant::now(), INTERVAL, 0.4), seconds(5));
        tokio::time::advance(seconds(25)).await;
        assert_eq!(retry.failed(Instant::now(), INTERVAL, 0.4), seconds(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_ends_early_in_its_life_is_opened_ever_more_rarely() {
        let mut retry = synced();
        for (age, pause) in [(1, 1), (1, 2), (450, 0), (1, 1)] {
            let paused = ends_at(&mut retry, seconds(age), 1.0).await;
            assert_eq!(paused, seconds(pause));
        }
    }
}
