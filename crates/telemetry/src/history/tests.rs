//! Pulls under way and ended, and the bounds of what is kept.

use super::*;

fn pulled() -> Outcome {
    Outcome::Pulled {
        image: "a.io/x:1".to_owned(),
        registry: "a.io".to_owned(),
        place: Place::Registry,
    }
}

#[test]
fn a_pull_is_seen_while_it_runs_and_after_it() {
    let history = History::default();
    let recording = history.begin("x:1", Vec::new());
    recording.resolved(Vec::new(), true);
    recording.pulling("a.io/x:1", "a.io", Place::Registry, Instant::now());
    let running = history.running();
    assert_eq!(running.len(), 1);
    assert_eq!(running[0].pulls[0].elapsed_us, None);
    recording.pulled(Some("no space"));
    recording.pulling("x:1", "origin", Place::Origin, Instant::now());
    recording.pulled(None);
    recording.finish(pulled());
    assert!(history.running().is_empty());
    let ended = history.ended(10, |_| true);
    assert_eq!(ended.len(), 1, "once, and not cancelled as well");
    assert_eq!(ended[0].outcome, pulled());
    assert_eq!(ended[0].pulls[0].error.as_deref(), Some("no space"));
    assert!(ended[0].elapsed_us >= ended[0].pulls[1].elapsed_us);
}

#[test]
fn what_is_dropped_was_cancelled() {
    let history = History::default();
    drop(history.begin("x:1", Vec::new()));
    assert_eq!(history.ended(1, |_| true)[0].outcome, Outcome::Cancelled);
}

#[test]
fn the_oldest_goes_first() {
    let history = History::default();
    for _ in 0..KEPT + 3 {
        history.begin("x:1", Vec::new()).finish(pulled());
    }
    let ended = history.ended(usize::MAX, |_| true);
    assert_eq!(ended.len(), KEPT);
    assert_eq!(ended[0].id, KEPT as u64 + 3);
    assert_eq!(ended[KEPT - 1].id, 4);
    assert_eq!(history.total(), KEPT as u64 + 3);
}

#[test]
fn one_image_in_all_spellings() {
    let history = History::default();
    for image in [
        "nginx:1.27",
        "docker.io/library/nginx:1.28",
        "quay.io/nginx",
    ] {
        history.begin(image, Vec::new()).finish(pulled());
    }
    let found = |image: &str| {
        let ended = history.ended(10, |decision| is_about(decision, image));
        ended.into_iter().map(|d| d.image).collect::<Vec<_>>()
    };
    assert_eq!(found("index.docker.io/nginx:1.27"), ["nginx:1.27"]);
    assert_eq!(
        found("nginx"),
        ["docker.io/library/nginx:1.28", "nginx:1.27"]
    );
    assert_eq!(found("quay.io/nginx:latest"), ["quay.io/nginx"]);
    assert_eq!(found("nginx:latest"), [""; 0]);
}

#[test]
fn off_keeps_nothing() {
    let history = History::off();
    let recording = history.begin("x:1", Vec::new());
    recording.pulling("x:1", "origin", Place::Origin, Instant::now());
    recording.finish(pulled());
    assert!(history.ended(1, |_| true).is_empty());
    assert_eq!(history.total(), 0);
}

/// Candidates of a config with very many registries.
fn candidates(count: usize) -> Vec<CandidateReport> {
    let one = |n: usize| CandidateReport {
        image: format!("mirror-{n}.example.com/team/application:1.2.3"),
        registry: format!("https://mirror-{n}.example.com"),
        place: Place::Registry,
        priority: Some(500),
        reason: "priority 500 (default), configured for every host".to_owned(),
        credentials: "none".to_owned(),
        probe: Some(crate::report::ProbeReport {
            result: crate::report::Verdict::Unavailable,
            detail: format!("no answer within 2s from mirror-{n}.example.com"),
            digest: None,
            elapsed_us: 2_000_000,
            freshness: crate::report::Freshness::Probed,
        }),
    };
    (0..count).map(one).collect()
}

#[test]
fn three_hundred_silent_registries_fit_into_the_bytes() {
    let history = History::default();
    for _ in 0..KEPT {
        let recording = history.begin("x:1", candidates(300));
        recording.resolved(candidates(300), false);
        recording.finish(pulled());
    }
    let ended = history.ended(usize::MAX, |_| true);
    let json = serde_json::to_string(&ended).unwrap();
    assert!(json.len() < 2 * KEPT_BYTES, "{}", json.len());
    assert!(ended.len() > 20, "{}", ended.len());
    assert_eq!(ended[0].id, KEPT as u64, "the newest are kept");
    assert_eq!(ended[0].candidates.len(), 300);
    assert_eq!(
        history.kept_bytes(),
        ended.iter().map(weight).sum::<usize>()
    );
}

#[test]
fn pulls_under_way_are_bounded_too() {
    let history = History::default();
    let recordings: Vec<_> = (0..500)
        .map(|_| history.begin("x:1", candidates(300)))
        .collect();
    assert_eq!(history.running().len(), 500, "each is seen");
    assert!(
        history.kept_bytes() < 2 * KEPT_BYTES,
        "{}",
        history.kept_bytes()
    );
    for recording in recordings {
        recording.resolved(candidates(300), false);
        recording.pulling("a.io/x:1", "a.io", Place::Registry, Instant::now());
        recording.finish(pulled());
    }
    assert!(history.kept_bytes() <= KEPT_BYTES);
    let ended = history.ended(usize::MAX, |_| true);
    assert_eq!(
        history.kept_bytes(),
        ended.iter().map(weight).sum::<usize>()
    );
}
