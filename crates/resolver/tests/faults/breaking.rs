//! Breakers: a registry that fails costs one deadline once, and is back without a restart.

use std::time::Duration;

use policy::Verdict;
use policy::breaker::State;
use telemetry::report::Freshness;
use testkit::fake_registry::{Behaviour, FakeRegistry};
use testkit::images::Image;
use testkit::wait;

use crate::setup::{IMAGE, asked, impatient, options, plan, registries, resolve, resolver, trail};

#[tokio::test]
async fn a_black_hole_is_asked_once_and_used_again_when_it_is_back() {
    let mut all = registries(6);
    let image = Image::new("app");
    for n in 0..60 {
        for registry in &all {
            registry.add(&image, "team/app", &format!("t{n}"));
        }
    }
    all[0].set_black_hole(true);
    let resolver = impatient();
    let first = resolve(&resolver, &plan(&all, "ghcr.io/team/app:t0")).await;
    assert_eq!(first.chosen(), Some(1));
    assert_eq!(
        first.answers[0].as_ref().unwrap().freshness,
        Freshness::Probed
    );
    for n in 1..=50 {
        let next = resolve(&resolver, &plan(&all, &format!("ghcr.io/team/app:t{n}"))).await;
        assert_eq!(next.chosen(), Some(1));
        let hole = next.answers[0].as_ref().unwrap();
        assert_eq!(
            hole.freshness,
            Freshness::CircuitOpen,
            "pull {n}: {}",
            trail(&next)
        );
    }
    // The best of the others was asked each time, the worse ones at most as often.
    assert_eq!(asked(&all[1]), 51);
    all[0].set_black_hole(false);
    let plan = plan(&all, "ghcr.io/team/app:t55");
    wait::until("the registry is used again", async || {
        resolver.forget();
        (resolve(&resolver, &plan).await.chosen() == Some(0)).then_some(())
    })
    .await;
    all.clear();
}

#[tokio::test]
async fn a_registry_whose_circuit_is_open_is_not_asked_by_pulls() {
    let mut all = registries(2);
    all[0].stop().await;
    let resolver = resolver();
    let plan = plan(&all, IMAGE);
    for _ in 0..20 {
        resolver.forget();
        assert_eq!(resolve(&resolver, &plan).await.chosen(), Some(1));
    }
    let health = &resolver.registries()[..];
    let bad = health
        .iter()
        .find(|health| health.endpoint == plan.candidates[0].endpoint)
        .unwrap();
    assert_ne!(bad.state, State::Closed, "{bad:?}");
    assert_eq!(asked(&all[0]), 0);
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let all = registries(2);
    let retry_after = Some("3600".to_owned());
    all[0].behave(Behaviour::RateLimited { retry_after });
    let resolver = resolver();
    let resolution = resolve(&resolver, &plan(&all, IMAGE)).await;
    let answer = resolution.answers[0].as_ref().unwrap();
    assert_eq!(answer.verdict, Verdict::RateLimited);
    assert_eq!(resolution.open_circuits(), [true, false]);
    let health = resolver.registries();
    let until = health.iter().find_map(|health| match health.state {
        State::Open { until } => Some(until),
        _ => None,
    });
    let left = until
        .unwrap()
        .saturating_duration_since(std::time::Instant::now());
    let most = Duration::from_secs(300);
    assert!(
        left > most - Duration::from_secs(60) && left <= most,
        "{left:?}"
    );
    // Not another request, whatever the image.
    for n in 0..20 {
        let other = plan(&all, &format!("ghcr.io/team/other{n}:1"));
        resolve(&resolver, &other).await;
    }
    assert_eq!(asked(&all[0]), 1);
}

#[tokio::test]
async fn an_image_that_was_found_is_taken_from_elsewhere_while_its_registry_is_down() {
    let mut all = registries(2);
    let resolver = resolver();
    let found = plan(&all, IMAGE);
    assert_eq!(resolve(&resolver, &found).await.chosen(), Some(0));
    all[0].stop().await;
    resolve(&resolver, &plan(&all, "ghcr.io/team/other:1")).await;
    let next = resolve(&resolver, &found).await;
    assert_eq!(next.chosen(), Some(1), "{}", trail(&next));
    all[0].start_again().unwrap();
    wait::until("it is taken from there again", async || {
        (resolve(&resolver, &found).await.chosen() == Some(0)).then_some(())
    })
    .await;
    assert_eq!(asked(&all[0]), 1, "what it said still holds");
}

#[tokio::test]
async fn an_entry_whose_certificate_is_not_checked_is_not_held_up_by_one_whose_is() {
    let cert = testkit::certs::Ca::new()
        .unwrap()
        .issue(&["127.0.0.1"])
        .unwrap();
    let registry = FakeRegistry::start_tls(&cert).unwrap();
    registry.add(&Image::new("app"), "mirror/app", "1");
    let url = registry.url();
    let text = format!(
        "registries: [{{address: '{url}', priority: 9}}]\n\
         imageRedirMapping: [{{src: quay.io/team, to: '{url}/mirror', insecureSkipVerify: true}}]"
    );
    let (settings, _) = policy::config::Settings::read(&text, &|_| None);
    let reference = policy::Reference::parse("quay.io/team/app:1").unwrap();
    let plan = std::sync::Arc::new(policy::Plan::new(&settings.rules, &reference));
    let resolution = resolve(&resolver(), &plan).await;
    assert_eq!(resolution.chosen(), Some(1), "{}", trail(&resolution));
}

#[tokio::test]
async fn nothing_is_held_against_an_image_while_its_registry_is_down() {
    let mut all = registries(1);
    all[0].stop().await;
    let resolver = resolver();
    let plan = plan(&all, IMAGE);
    assert_eq!(resolve(&resolver, &plan).await.chosen(), None);
    all[0].start_again().unwrap();
    wait::until("the breaker closes", async || {
        let closed = resolver
            .registries()
            .iter()
            .all(|health| health.state == State::Closed);
        closed.then_some(())
    })
    .await;
    // Nothing was forgotten on purpose here: there was nothing to forget.
    assert_eq!(resolve(&resolver, &plan).await.chosen(), Some(0));
}

#[tokio::test]
async fn a_registry_that_left_the_config_is_no_longer_tried() {
    let mut all = registries(2);
    all[0].stop().await;
    let resolver = resolver();
    resolve(&resolver, &plan(&all, IMAGE)).await;
    assert_eq!(resolver.registries().len(), 2);
    let without = crate::setup::settings(&all[1..], "");
    resolver.reconfigure(options(), &without.rules);
    assert_eq!(resolver.registries().len(), 1);
}
