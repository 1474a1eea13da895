//! What opens a circuit, what never does, and that it always closes again.

use proptest::prelude::*;

use super::*;

fn failed(repository: &str) -> Signal<'_> {
    Signal::ImageFailed { repository }
}

fn until(breaker: &Breaker) -> Instant {
    match breaker.state() {
        State::Open { until } => until,
        other => panic!("not open: {other:?}"),
    }
}

#[test]
fn nodes_that_were_told_the_same_pause_do_not_end_it_together() {
    let now = Instant::now();
    let pause = |retry_after: u64, jitter: f64| {
        let mut breaker = Breaker::default();
        let retry_after = Duration::from_secs(retry_after);
        breaker.note(Signal::RateLimited { retry_after }, now, jitter);
        match breaker.state() {
            State::Open { until } => (until - now).as_secs(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((pause(60, 0.0), pause(60, 1.0)), (60, 75));
    // Five minutes are the longest, whatever is wished.
    assert_eq!((pause(280, 0.0), pause(280, 1.0)), (280, 300));
    assert_eq!((pause(1000, 0.0), pause(u64::MAX, 1.0)), (300, 300));
}

#[test]
fn a_registry_that_cannot_be_asked_opens_it_and_an_answer_closes_it() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    let opened = breaker.note(Signal::RegistryFailed, now, 1.0);
    assert_eq!(opened, Some(Change::Opened));
    let until = until(&breaker);
    assert_eq!(until, now + TRIAL_BACKOFF.first);
    assert!(!breaker.begin_trial(now));
    assert!(breaker.begin_trial(until));
    assert!(!breaker.begin_trial(until), "one trial only");
    assert_eq!(
        breaker.note(Signal::Alive, until, 1.0),
        Some(Change::Closed)
    );
    assert!(breaker.is_closed());
    assert_eq!(breaker.failures(), 0);
}

#[test]
fn pauses_grow_to_a_minute() {
    let mut now = Instant::now();
    let mut breaker = Breaker::default();
    let mut pauses = Vec::new();
    breaker.note(Signal::RegistryFailed, now, 1.0);
    for _ in 0..8 {
        pauses.push((until(&breaker) - now).as_secs());
        now = until(&breaker);
        assert!(breaker.begin_trial(now));
        breaker.note(Signal::NotAlive { asked: now }, now, 1.0);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
}

#[test]
fn late_failures_count_once() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    for _ in 0..200 {
        breaker.note(Signal::RegistryFailed, now, 0.0);
    }
    assert_eq!(breaker.failures(), 1);
}

#[test]
fn a_wished_pause_is_honoured_within_reason() {
    let now = Instant::now();
    let pause = |seconds: u64| {
        let mut breaker = Breaker::default();
        let retry_after = Duration::from_secs(seconds);
        breaker.note(Signal::RateLimited { retry_after }, now, 0.0);
        until(&breaker) - now
    };
    assert_eq!(pause(120), Duration::from_secs(120));
    assert_eq!(pause(0), Duration::from_millis(750));
    assert_eq!(pause(u64::MAX), Duration::from_secs(300));
}

#[test]
fn a_wished_pause_is_not_ended_by_a_late_answer() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    let retry_after = Duration::from_secs(120);
    breaker.note(Signal::RateLimited { retry_after }, now, 0.0);
    assert_eq!(breaker.note(Signal::Answered, now, 0.0), None);
    assert_eq!(breaker.note(Signal::Alive, now, 0.0), None);
    let end = now + retry_after;
    assert!(breaker.begin_trial(end));
    assert_eq!(breaker.note(Signal::Alive, end, 0.0), Some(Change::Closed));
}

#[test]
fn three_different_repositories_in_a_row_open_it_and_the_trial_comes_at_once() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    assert_eq!(breaker.note(failed("a"), now, 1.0), None);
    assert_eq!(breaker.note(failed("b"), now, 1.0), None);
    assert_eq!(breaker.note(failed("a"), now, 1.0), None);
    assert_eq!(breaker.note(failed("c"), now, 1.0), Some(Change::Opened));
    assert!(breaker.awaits_first_trial());
    assert!(breaker.begin_trial(now), "no pause before the trial");
    assert!(breaker.awaits_first_trial());
    assert_eq!(breaker.note(Signal::Alive, now, 1.0), Some(Change::Closed));
    assert!(!breaker.awaits_first_trial());
    // The row begins anew.
    assert_eq!(breaker.note(failed("d"), now, 1.0), None);
    assert_eq!(breaker.note(failed("e"), now, 1.0), None);
}

#[test]
fn a_registry_that_fails_all_and_its_trials_too_stays_open() {
    let mut now = Instant::now();
    let mut breaker = Breaker::default();
    for repository in ["a", "b", "c"] {
        breaker.note(failed(repository), now, 1.0);
    }
    for pause in [1, 2, 4] {
        assert!(breaker.begin_trial(now));
        breaker.note(Signal::NotAlive { asked: now }, now, 1.0);
        assert!(!breaker.awaits_first_trial());
        assert_eq!(until(&breaker) - now, Duration::from_secs(pause));
        now = until(&breaker);
    }
}

#[test]
fn a_hang_is_the_registrys_only_where_nothing_was_answered_meanwhile() {
    let asked = Instant::now();
    let deadline = asked + Duration::from_secs(2);
    let unanswered = Signal::Unanswered {
        repository: "a",
        asked,
    };
    let mut silent = Breaker::default();
    assert_eq!(silent.note(unanswered, deadline, 1.0), Some(Change::Opened));
    for sign in [Signal::Alive, Signal::Answered] {
        let mut well = Breaker::default();
        well.note(sign, asked + Duration::from_secs(1), 1.0);
        assert_eq!(well.note(unanswered, deadline, 1.0), None);
        assert!(well.is_closed());
    }
    // An answer from before says nothing.
    let mut died = Breaker::default();
    died.note(Signal::Answered, asked - Duration::from_millis(1), 1.0);
    assert_eq!(died.note(unanswered, deadline, 1.0), Some(Change::Opened));
}

#[test]
fn v2_that_does_not_answer_opens_it_unless_something_else_was_answered_meanwhile() {
    let asked = Instant::now();
    let later = asked + Duration::from_secs(1);
    let mut breaker = Breaker::default();
    breaker.note(Signal::Answered, later, 1.0);
    assert_eq!(breaker.note(Signal::NotAlive { asked }, later, 1.0), None);
    let mut breaker = Breaker::default();
    assert_eq!(
        breaker.note(Signal::NotAlive { asked }, later, 1.0),
        Some(Change::Opened)
    );
}

/// What may be seen of a registry, with the repository that it is about.
#[derive(Clone, Copy, Debug)]
enum Observation {
    Answered,
    Alive,
    NotAlive,
    RegistryFailed,
    ImageFailed(u8),
    Unanswered(u8),
    RateLimited(u64),
    Trial,
}

const NAMES: [&str; 4] = ["team/a", "team/b", "team/c", "team/d"];

fn name(number: u8) -> &'static str {
    NAMES[usize::from(number) % NAMES.len()]
}

impl Observation {
    /// Tells it to a breaker; questions were asked two seconds ago.
    fn tell(self, breaker: &mut Breaker, now: Instant, jitter: f64) {
        let asked = now - Duration::from_secs(2);
        let signal = match self {
            Self::Answered => Signal::Answered,
            Self::Alive => Signal::Alive,
            Self::NotAlive => Signal::NotAlive { asked },
            Self::RegistryFailed => Signal::RegistryFailed,
            Self::ImageFailed(number) => failed(name(number)),
            Self::Unanswered(number) => Signal::Unanswered {
                repository: name(number),
                asked,
            },
            Self::RateLimited(seconds) => Signal::RateLimited {
                retry_after: Duration::from_secs(seconds),
            },
            Self::Trial => {
                breaker.begin_trial(now);
                return;
            }
        };
        breaker.note(signal, now, jitter);
    }
}

fn anything() -> impl Strategy<Value = Observation> {
    prop_oneof![
        Just(Observation::Answered),
        Just(Observation::Alive),
        Just(Observation::NotAlive),
        Just(Observation::RegistryFailed),
        any::<u8>().prop_map(Observation::ImageFailed),
        any::<u8>().prop_map(Observation::Unanswered),
        any::<u64>().prop_map(Observation::RateLimited),
        Just(Observation::Trial),
    ]
}

/// What the images of `repositories` can make a registry show that answers `/v2/`.
fn of_a_well_registry(repositories: u8) -> impl Strategy<Value = Observation> {
    prop_oneof![
        Just(Observation::Answered),
        (0..repositories).prop_map(Observation::ImageFailed),
        (0..repositories).prop_map(Observation::Unanswered),
    ]
}

proptest! {
    /// Whatever one repository answers or doesn't, and a second one too, they never open the circuit of
    /// a registry that answers `/v2/`.
    #[test]
    fn fewer_than_three_repositories_never_open_it(
        seen in prop::collection::vec((of_a_well_registry(2), 0u64..100, 0.0f64..1.0), 0..80),
    ) {
        let mut now = Instant::now() + Duration::from_secs(10);
        let mut breaker = Breaker::default();
        for (seen, seconds, jitter) in seen {
            if matches!(seen, Observation::Unanswered(_)) {
                // `/v2/` was asked before the deadline, and answered.
                breaker.note(Signal::Alive, now - Duration::from_secs(1), jitter);
            }
            seen.tell(&mut breaker, now, jitter);
            prop_assert!(breaker.is_closed(), "{seen:?}");
            now += Duration::from_secs(seconds);
        }
    }

    /// Any number of bad repositories: a trial that asks `/v2/` at once closes it at once.
    #[test]
    fn bad_images_cost_a_well_registry_one_round_trip(
        numbers in prop::collection::vec(0u8..4, 0..80),
    ) {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for number in numbers {
            breaker.note(failed(name(number)), now, 1.0);
            if !breaker.is_closed() {
                prop_assert!(breaker.begin_trial(now));
                breaker.note(Signal::Alive, now, 1.0);
                prop_assert!(breaker.is_closed());
            }
        }
    }

    /// An answer between any three failures keeps it closed.
    #[test]
    fn an_answer_ends_the_row(numbers in prop::collection::vec(0u8..4, 0..80)) {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for (at, number) in numbers.into_iter().enumerate() {
            if at % 2 == 0 {
                breaker.note(Signal::Answered, now, 1.0);
            }
            breaker.note(failed(name(number)), now, 1.0);
            prop_assert!(breaker.is_closed());
        }
    }

    /// Whatever happens in whatever order, a pause is bounded, waiting it out lets exactly one trial
    /// through, and its answer closes the circuit.
    #[test]
    fn always_recovers(
        seen in prop::collection::vec((anything(), 0u64..100, 0.0f64..1.0), 0..80),
    ) {
        let mut now = Instant::now() + Duration::from_secs(10);
        let mut breaker = Breaker::default();
        for (seen, seconds, jitter) in seen {
            seen.tell(&mut breaker, now, jitter);
            if let State::Open { until } = breaker.state() {
                prop_assert!(until <= now + LONGEST_RETRY_AFTER);
            }
            prop_assert!(breaker.failed_repositories.len() < REPOSITORIES_IN_A_ROW);
            now += Duration::from_secs(seconds);
        }
        match breaker.state() {
            State::Open { until } => {
                now = until.max(now);
                prop_assert!(breaker.begin_trial(now));
                prop_assert!(!breaker.begin_trial(now));
                prop_assert_eq!(breaker.note(Signal::Alive, now, 1.0), Some(Change::Closed));
            }
            State::HalfOpen => {
                prop_assert_eq!(breaker.note(Signal::Alive, now, 1.0), Some(Change::Closed));
            }
            State::Closed => {}
        }
        prop_assert!(breaker.is_closed());
    }
}
