//! The steps of a rotation, over a clock that the test turns.

use std::time::{Duration, SystemTime};

use super::rotation::{Clock, next_step};
use super::{CLOCK_SKEW, Keys, Lifetimes, Step, issue};

const DAY: Duration = Duration::from_secs(86_400);

fn names() -> Vec<String> {
    vec!["webhook.ns.svc".to_owned()]
}

fn begin(now: SystemTime, lifetimes: &Lifetimes) -> Keys {
    let authority = issue::authority(now, lifetimes.authority).unwrap();
    Keys {
        serving: issue::serving(&authority, &names(), now, lifetimes.serving).unwrap(),
        authority,
        next: None,
        previous: None,
    }
}

fn step(keys: &Keys, published: Option<&str>, now: SystemTime) -> Step {
    let lifetimes = Lifetimes::default();
    next_step(keys, &names(), &lifetimes, published, now, Clock::Confirmed)
}

#[test]
fn fresh_keys_are_kept_until_a_third_is_left() {
    let (now, lifetimes) = (SystemTime::now(), Lifetimes::default());
    let keys = begin(now, &lifetimes);
    let bundle = keys.bundle();
    let step = |now| step(&keys, Some(&bundle), now);
    assert_eq!(step(now), Step::Keep);
    assert_eq!(step(now + 59 * DAY), Step::Keep);
    assert_eq!(step(now + 61 * DAY), Step::Renew);
    assert_eq!(step(now + 91 * DAY), Step::Renew);
    assert_eq!(step(now + lifetimes.authority / 2), Step::Renew);
    assert_eq!(step(now + lifetimes.authority * 3 / 4), Step::Announce);
    assert_eq!(step(now + lifetimes.authority + DAY), Step::Begin);
    // A clock that was set back by more than clocks differ; the API server's agrees, so it is the old one
    // that was wrong.
    assert_eq!(step(now - CLOCK_SKEW - DAY), Step::Begin);
}

#[test]
fn a_new_ca_is_published_before_it_signs_and_the_old_one_until_it_expires() {
    let (start, lifetimes) = (SystemTime::now(), Lifetimes::default());
    let mut keys = begin(start, &lifetimes);
    let now = start + lifetimes.authority * 3 / 4;
    keys.serving = issue::serving(&keys.authority, &names(), now, lifetimes.serving).unwrap();
    let old = keys.bundle();
    assert_eq!(step(&keys, Some(&old), now), Step::Announce);
    keys.next = Some(issue::authority(now, lifetimes.authority).unwrap());
    let both = keys.bundle();
    let settled = now + lifetimes.settle + Duration::from_secs(1);
    assert_eq!(step(&keys, Some(&both), now), Step::Keep);
    assert_eq!(step(&keys, Some(&old), settled), Step::Keep);
    assert_eq!(step(&keys, None, settled), Step::Keep);
    assert_eq!(step(&keys, Some(&both), settled), Step::Promote);

    let next = keys.next.take().unwrap();
    keys.previous = Some(keys.authority.chain.clone());
    keys.serving = issue::serving(&next, &names(), settled, lifetimes.serving).unwrap();
    keys.authority = next;
    // Who trusts what is published now trusts the old certificate and the new one.
    assert!(keys.bundle().contains(old.trim()));
    assert_eq!(step(&keys, Some(&both), settled), Step::Keep);
    let expired = start + lifetimes.authority + DAY;
    keys.serving = issue::serving(&keys.authority, &names(), expired, lifetimes.serving).unwrap();
    assert_eq!(step(&keys, Some(&both), expired), Step::Forget);
}

#[test]
fn what_can_not_be_used_is_made_anew() {
    let (now, lifetimes) = (SystemTime::now(), Lifetimes::default());
    let good = begin(now, &lifetimes);
    let other = begin(now, &lifetimes);
    let mut keys = good.clone();
    keys.authority.chain = "nonsense".to_owned();
    assert_eq!(step(&keys, None, now), Step::Begin);
    let mut keys = good.clone();
    keys.authority.key = other.authority.key.clone();
    assert_eq!(step(&keys, None, now), Step::Begin);
    for spoil in [
        |keys: &mut Keys, _: &Keys| keys.serving.chain = String::new(),
        |keys: &mut Keys, other: &Keys| keys.serving = other.serving.clone(),
        |keys: &mut Keys, other: &Keys| keys.serving.key = other.serving.key.clone(),
    ] {
        let mut keys = good.clone();
        spoil(&mut keys, &other);
        assert_eq!(step(&keys, None, now), Step::Renew);
    }
    // The Service has another name.
    let names = ["other.ns.svc".to_owned()];
    let renamed = next_step(&good, &names, &lifetimes, None, now, Clock::Unconfirmed);
    assert_eq!(renamed, Step::Renew);
    let mut keys = good.clone();
    keys.next = Some(listener::certificate::Pem {
        chain: String::new(),
        key: String::new(),
    });
    assert_eq!(step(&keys, None, now), Step::Announce);
}

#[test]
fn near_its_ca_s_end_a_certificate_is_not_renewed_for_ever() {
    let (start, lifetimes) = (SystemTime::now(), Lifetimes::default());
    let mut keys = begin(start, &lifetimes);
    // The next CA can't be promoted, since nothing is published.
    let now = start + lifetimes.authority - 10 * DAY;
    keys.next = Some(issue::authority(now, lifetimes.authority).unwrap());
    keys.serving = issue::serving(&keys.authority, &names(), now, lifetimes.serving).unwrap();
    assert_eq!(step(&keys, None, now), Step::Keep);
}

#[test]
fn a_clock_that_nobody_confirms_replaces_nothing_that_belongs_together() {
    let (now, lifetimes) = (SystemTime::now(), Lifetimes::default());
    let good = begin(now, &lifetimes);
    let step =
        |keys: &Keys, now| next_step(keys, &names(), &lifetimes, None, now, Clock::Unconfirmed);
    for wrong in [now - 6 * 365 * DAY, now + 6 * 365 * DAY] {
        assert_eq!(step(&good, wrong), Step::Wait);
    }
    // What can't be used by anybody is another matter.
    let mut keys = good;
    keys.authority.chain = "nonsense".to_owned();
    assert_eq!(step(&keys, now), Step::Begin);
}
