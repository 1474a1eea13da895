//! The scenarios with a few nodes: what holds for each holds for a fleet, in seconds.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

use fleet::scenario::{Behaviour, Outcome, Scenario, run};
use fleet::sites::{DOCKER_HUB, HARBOR, OFFLINE};
use fleet::{following, scenarios};

const NODES: usize = 40;
const IMAGES: usize = 50;
const SEED: u64 = 7;

fn both(scenario: &Scenario) -> (Outcome, Outcome) {
    let ours = run(scenario, Behaviour::Ours, SEED).unwrap();
    let before = run(scenario, Behaviour::Predecessor, SEED).unwrap();
    (ours, before)
}

/// Requests of the shim to a place: ours as a part of the predecessor's.
fn asked(place: &str, (ours, before): &(Outcome, Outcome)) -> f64 {
    let total = |outcome: &Outcome| outcome.place(place).unwrap().shim.total() as f64;
    total(ours) / total(before)
}

#[test]
fn the_same_seed_gives_the_same_numbers() {
    let scenario = scenarios::offline_restarts(10, IMAGES);
    let once = run(&scenario, Behaviour::Ours, SEED).unwrap();
    assert_eq!(once, run(&scenario, Behaviour::Ours, SEED).unwrap());
    assert_ne!(once, run(&scenario, Behaviour::Ours, SEED + 1).unwrap());
}

#[test]
fn a_roll_out_asks_the_registry_that_has_the_images_and_spares_the_others() {
    let outcomes = both(&scenarios::roll_out(NODES, IMAGES));
    assert!(asked(OFFLINE, &outcomes) <= 0.51);
    assert!(asked(HARBOR, &outcomes) <= 0.85);
    let hub = outcomes.0.place(DOCKER_HUB).unwrap();
    let pulled = outcomes.0.waits.finished() as f64;
    // One image of 25 is nowhere else. What else it is asked is for the first image of a host on each node.
    assert!((hub.shim.total() as f64) < 0.2 * pulled);
    assert_eq!(outcomes.0.waits.unfinished, 0);
}

#[test]
fn a_registry_that_restarts_is_used_again_soon_and_without_a_herd() {
    let scenario = scenarios::offline_restarts(NODES, IMAGES);
    let (ours, before) = both(&scenario);
    assert_eq!(ours.waits.unfinished, 0);
    let offline = |outcome: &Outcome| outcome.place(OFFLINE).unwrap().clone();
    // It is back at 320 s; the longest pause of a breaker is a minute.
    let since_back = |outcome: &Outcome| {
        let runtime = offline(outcome).runtime;
        runtime.per_second()[380..].iter().sum::<u32>()
    };
    assert!(f64::from(since_back(&ours)) >= 0.95 * f64::from(since_back(&before)));
    let shim = offline(&ours).shim;
    assert!(shim.peak_from(320) <= offline(&before).shim.peak());
}

#[test]
fn a_registry_that_limits_its_callers_is_left_alone() {
    let outcomes = both(&scenarios::limited(NODES, IMAGES));
    let (ours, before) = &outcomes;
    assert_eq!(ours.waits.unfinished, 0);
    let runtime = |outcome: &Outcome| outcome.place(DOCKER_HUB).unwrap().runtime.total() as f64;
    assert!(runtime(ours) <= 1.05 * runtime(before));
}

#[test]
fn a_site_that_boots_asks_nobody_for_images_that_are_there() {
    let outcomes = both(&scenarios::power_cut(NODES));
    let (ours, before) = &outcomes;
    assert_eq!(ours.waits.unfinished, 0);
    assert!(asked(HARBOR, &outcomes) <= 0.1);
    let all = |outcome: &Outcome| outcome.place(HARBOR).unwrap().runtime.total() as f64;
    assert!(all(ours) <= 0.1 * all(before), "nothing is pulled again");
}

#[test]
fn an_api_server_that_restarts_is_not_run_down() {
    let scenario = scenarios::api_server_restarts(100);
    let ours = following::run(&scenario, Behaviour::Ours, SEED).unwrap();
    let before = following::run(&scenario, Behaviour::Predecessor, SEED).unwrap();
    let (load, old) = (ours.load.all(), before.load.all());
    assert!(load.total() as f64 <= 0.06 * old.total() as f64);
    // For one `reloadInterval` as much as the predecessor asks all the time; more is chance, with so few nodes.
    assert!(load.peak_from(1230) <= 1.5 * old.peak());
    let lags = &ours.lags;
    assert!(lags.iter().all(|change| change.unfinished == 0));
    // While watches stand, a change is there at once; after a restart when each node's turn has come.
    assert!(lags[0].quantile(1.0) < 1.0 && lags[2].quantile(1.0) < 1.0);
    assert!(lags[1].quantile(1.0) <= 15.0 + 1.0);
    assert_eq!(
        ours,
        following::run(&scenario, Behaviour::Ours, SEED).unwrap()
    );
}
