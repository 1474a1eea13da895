//! When a watch is opened again, spread so that the nodes of a cluster don't come as one.

use std::time::Duration;

use policy::backoff::Backoff;
use tokio::time::Instant;

/// Pauses of a node that has never read the object, and of one whose watches are refused or end at once.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
};
/// A node that knows the object tries once in a time of so many `reloadInterval`s: three minutes by default.
/// With ten thousand nodes that is 56 tries a second, a twelfth of what asking every `reloadInterval` costs.
const INTERVALS: u32 = 12;
/// The longest such time, whatever `reloadInterval` is.
const LONGEST_ROUND: Duration = Duration::from_secs(180);
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
    /// Since when no watch stands, and the rounds that have begun since.
    rounds: Option<(Instant, u32)>,
    last_age: Option<Duration>,
}

impl Retry {
    /// A watch was opened, and the object is known.
    pub(crate) fn succeeded(&mut self) {
        self.answered();
        self.refusals = 0;
        self.rounds = None;
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
        BACKOFF.spread_pause(self.refusals, random)
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

    /// The time to this round's moment. A round after another: so the nodes of a cluster come evenly, however
    /// long the server is away.
    fn round(&mut self, now: Instant, interval: Duration, random: f64) -> Duration {
        let length = interval.saturating_mul(INTERVALS).min(LONGEST_ROUND);
        let (since, round) = self.rounds.get_or_insert((now, 0));
        let moment = *since + length.saturating_mul(*round) + length.mul_f64(random);
        *round = round.saturating_add(1);
        let shortest = interval.min(length.mul_f64(random));
        moment.saturating_duration_since(now).max(shortest)
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
    fn a_node_that_knows_nothing_asks_soon_and_then_ever_more_rarely() {
        let mut retry = Retry::default();
        let pauses = [1, 2, 4, 8, 16, 32, 60, 60];
        for pause in pauses.map(seconds) {
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
    async fn watches_that_a_restart_cuts_off_are_opened_again_over_three_minutes() {
        for (random, pause) in [(0.0, 0), (0.5, 90), (1.0, 180)] {
            let paused = ends_at(&mut synced(), seconds(100), random).await;
            assert_eq!(paused, seconds(pause));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn watches_that_something_cuts_off_at_one_age_are_opened_again_at_once() {
        let mut retry = synced();
        // The last one is cut off by a restart.
        for (age, pause) in [(35, 90), (36, 0), (35, 0), (200, 90)] {
            let paused = ends_at(&mut retry, seconds(age), 0.5).await;
            assert_eq!(paused, seconds(pause), "{age}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_server_is_away_each_node_tries_once_in_a_round() {
        let mut retry = synced();
        let cut = Instant::now();
        let tries = [0.9, 0.1, 0.5].map(|random| retry.failed(cut, INTERVAL, random).as_secs());
        assert_eq!(tries, [162, 180 + 18, 360 + 90]);
        // A shorter `reloadInterval` asks for more tries; a longer one not for fewer.
        let first = |interval| synced().failed(cut, interval, 1.0);
        assert_eq!(first(seconds(1)), seconds(12));
        assert_eq!(first(seconds(3600)), seconds(180));
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
