//! One table of faults: in each, the next best source is chosen and the trail names the cause.

use http::StatusCode;
use testkit::certs::Ca;
use testkit::fake_registry::{Behaviour, FakeRegistry, TokenOptions, TokenService};
use testkit::images::Image;

use crate::setup::{IMAGE, asked, impatient, plan, registries, resolve, resolver, trail};

/// What the trail says of a registry that never answers.
const NO_ANSWER: &str = "no answer within";

async fn next_best_is_used(bad: FakeRegistry, cause: &str) {
    let resolver = match cause {
        NO_ANSWER => impatient(),
        _ => resolver(),
    };
    bad.add(&Image::new("app"), "team/app", "1");
    let mut all = vec![bad];
    all.extend(registries(1));
    let resolution = resolve(&resolver, &plan(&all, IMAGE)).await;
    assert_eq!(resolution.chosen(), Some(1), "{}", trail(&resolution));
    let trail = trail(&resolution);
    assert!(trail.contains(cause), "{cause:?} in {trail:?}");
}

async fn behaving(behaviour: Behaviour, cause: &str) {
    let bad = FakeRegistry::start().unwrap();
    bad.behave(behaviour);
    next_best_is_used(bad, cause).await;
}

#[tokio::test]
async fn accepts_and_never_answers() {
    behaving(Behaviour::BlackHole, NO_ANSWER).await;
    let bad = FakeRegistry::start().unwrap();
    bad.set_black_hole(true);
    next_best_is_used(bad, NO_ANSWER).await;
}

#[tokio::test]
async fn refuses_connections() {
    let mut bad = FakeRegistry::start().unwrap();
    bad.stop().await;
    next_best_is_used(bad, "refused").await;
}

#[tokio::test]
async fn hangs_up() {
    behaving(Behaviour::HangUp, "connection").await;
}

#[tokio::test]
async fn has_an_expired_certificate() {
    let cert = Ca::new().unwrap().issue_expired(&["127.0.0.1"]).unwrap();
    next_best_is_used(FakeRegistry::start_tls(&cert).unwrap(), "certificate").await;
}

#[tokio::test]
async fn has_a_certificate_of_an_unknown_ca() {
    let cert = Ca::new().unwrap().issue(&["127.0.0.1"]).unwrap();
    next_best_is_used(FakeRegistry::start_tls(&cert).unwrap(), "caFile").await;
}

#[tokio::test]
async fn has_a_certificate_for_another_host() {
    let cert = Ca::new().unwrap().issue(&["elsewhere.example"]).unwrap();
    next_best_is_used(FakeRegistry::start_tls(&cert).unwrap(), "certificate").await;
}

#[tokio::test]
async fn wants_credentials_for_ever() {
    behaving(Behaviour::Challenge("Basic realm=\"x\"".into()), "401").await;
}

#[tokio::test]
async fn answers_403() {
    behaving(Behaviour::Status(StatusCode::FORBIDDEN), "403").await;
}

#[tokio::test]
async fn answers_404_with_html() {
    behaving(Behaviour::Html(StatusCode::NOT_FOUND), "404").await;
}

#[tokio::test]
async fn limits_the_rate() {
    for retry_after in [None, Some("30".to_owned()), Some("soon".to_owned())] {
        behaving(Behaviour::RateLimited { retry_after }, "429").await;
    }
}

#[tokio::test]
async fn has_trouble_of_its_own() {
    for status in [500, 502, 503] {
        let behaviour = Behaviour::Status(StatusCode::from_u16(status).unwrap());
        behaving(behaviour, &status.to_string()).await;
    }
}

#[tokio::test]
async fn redirects_in_a_loop() {
    behaving(Behaviour::RedirectLoop, "redirect").await;
}

#[tokio::test]
async fn redirects_to_a_host_that_is_gone() {
    let mut gone = FakeRegistry::start().unwrap();
    let url = format!("{}/elsewhere", gone.url());
    gone.stop().await;
    behaving(Behaviour::Redirect(url), "refused").await;
}

#[tokio::test]
async fn is_a_captive_portal() {
    behaving(Behaviour::CaptivePortal, "text/html").await;
}

/// Answers HEAD with 405 and GET in another way.
async fn only_get(behaviour: Behaviour, cause: &str) {
    let bad = FakeRegistry::start().unwrap();
    // A registry that refuses HEAD for one name is asked by GET for all.
    bad.behave(Behaviour::HeadRefused);
    bad.add(&Image::new("app"), "team/app", "1");
    let resolver = resolver();
    let all = [bad];
    assert_eq!(
        resolve(&resolver, &plan(&all, IMAGE)).await.chosen(),
        Some(0)
    );
    let [bad] = all;
    bad.behave(behaviour);
    bad.add(&Image::new("other"), "team/other", "1");
    let good = FakeRegistry::start().unwrap();
    good.add(&Image::new("other"), "team/other", "1");
    let all = [bad, good];
    let resolution = resolve(&resolver, &plan(&all, "ghcr.io/team/other:1")).await;
    assert_eq!(resolution.chosen(), Some(1), "{}", trail(&resolution));
    assert!(trail(&resolution).contains(cause), "{}", trail(&resolution));
}

#[tokio::test]
async fn truncates_its_body() {
    only_get(Behaviour::Truncated, "body").await;
}

#[tokio::test]
async fn never_ends_its_body() {
    only_get(Behaviour::Endless, "4 MiB").await;
}

#[tokio::test]
async fn refuses_head() {
    let [registry] = registries(1).try_into().ok().unwrap();
    registry.behave(Behaviour::HeadRefused);
    let all = [registry];
    let resolution = resolve(&resolver(), &plan(&all, IMAGE)).await;
    assert_eq!(resolution.chosen(), Some(0), "{}", trail(&resolution));
    assert_eq!(asked(&all[0]), 2);
}

#[tokio::test]
async fn has_a_token_service_that_is_down_or_slow_or_talks_nonsense() {
    for (behaviour, cause) in [
        (None, "token service"),
        (Some(Behaviour::BlackHole), NO_ANSWER),
        (Some(Behaviour::CaptivePortal), "token service"),
        (Some(Behaviour::Endless), "token service"),
        (
            Some(Behaviour::Status(StatusCode::INTERNAL_SERVER_ERROR)),
            "500",
        ),
    ] {
        let service = TokenService::start(TokenOptions::default()).unwrap();
        match behaviour {
            Some(behaviour) => service.behave(behaviour),
            None => service.stop().await,
        }
        let bad = FakeRegistry::start().unwrap();
        bad.require_token(&service);
        next_best_is_used(bad, cause).await;
    }
}
