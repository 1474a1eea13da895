//! One image that fails, in every way, takes nothing from the registry's other images.

use std::time::Duration;

use http::StatusCode;
use policy::Verdict;
use policy::breaker::State;
use resolver::{Depth, Resolver, ResolverOptions};
use testkit::fake_registry::{Behaviour, FakeRegistry, TokenOptions, TokenService};
use testkit::images::Image;

use crate::setup::{asked, options, plan, registries, resolve, resolver, resolver_with, trail};

const BAD: &str = "ghcr.io/team/bad:1";
const GOOD_IMAGES: usize = 130;

/// A registry that has [`GOOD_IMAGES`] of `team/app`, and `team/bad`.
fn registry() -> FakeRegistry {
    let registry = FakeRegistry::start().unwrap();
    let image = Image::new("app");
    for n in 0..GOOD_IMAGES {
        registry.add(&image, "team/app", &format!("t{n}"));
    }
    registry.add(&Image::new("bad"), "team/bad", "1");
    registry
}

/// Asks for the bad image once, by a pull or for people, and then for all the good ones.
async fn costs_nothing(
    resolver: &Resolver,
    registry: FakeRegistry,
    depth: Depth,
    wanted: Verdict,
    mend: impl FnOnce(),
) {
    let all = [registry];
    let bad = resolver.resolve(&plan(&all, BAD), None, depth).await;
    assert_eq!(bad.verdicts(), [Some(wanted)], "{}", trail(&bad));
    mend();
    for n in 0..GOOD_IMAGES {
        let good = plan(&all, &format!("ghcr.io/team/app:t{n}"));
        let resolution = resolve(resolver, &good).await;
        assert_eq!(resolution.chosen(), Some(0), "{n}: {}", trail(&resolution));
    }
    let health = resolver.registries();
    assert!(
        health.iter().all(|health| health.state == State::Closed),
        "{health:?}"
    );
    // The bad one is remembered, and not asked for by the next pull.
    let before = asked(&all[0]);
    let again = resolve(resolver, &plan(&all, BAD)).await;
    assert_eq!(again.chosen(), None);
    assert_eq!(asked(&all[0]), before, "{}", trail(&again));
}

async fn bad_image(behaviour: Behaviour, wanted: Verdict) {
    for depth in [Depth::Best, Depth::All] {
        let registry = registry();
        registry.behave_for("team/bad", behaviour.clone());
        costs_nothing(&resolver(), registry, depth, wanted, || {}).await;
    }
}

#[tokio::test]
async fn that_answers_500() {
    for status in [500, 502, 503, 504] {
        let status = StatusCode::from_u16(status).unwrap();
        bad_image(Behaviour::Status(status), Verdict::ImageFailed).await;
    }
}

#[tokio::test]
async fn that_hangs() {
    let registry = registry();
    registry.behave_for("team/bad", Behaviour::BlackHole);
    let resolver = resolver_with(ResolverOptions {
        probe_timeout: Duration::from_secs(5),
        ..options()
    });
    costs_nothing(
        &resolver,
        registry,
        Depth::Best,
        Verdict::ImageFailed,
        || {},
    )
    .await;
}

#[tokio::test]
async fn that_hangs_up() {
    bad_image(Behaviour::HangUp, Verdict::ImageFailed).await;
}

#[tokio::test]
async fn that_is_asked_for_too_often() {
    let behaviour = Behaviour::RateLimited { retry_after: None };
    bad_image(behaviour, Verdict::RateLimited).await;
}

#[tokio::test]
async fn that_is_a_web_page() {
    bad_image(Behaviour::CaptivePortal, Verdict::ImageFailed).await;
}

#[tokio::test]
async fn that_redirects_in_a_loop_or_to_a_host_that_is_gone() {
    bad_image(Behaviour::RedirectLoop, Verdict::ImageFailed).await;
    let mut gone = FakeRegistry::start().unwrap();
    let url = format!("{}/elsewhere", gone.url());
    gone.stop().await;
    bad_image(Behaviour::Redirect(url), Verdict::ImageFailed).await;
    let nowhere = "http://no-such-host.invalid/elsewhere".to_owned();
    bad_image(Behaviour::Redirect(nowhere), Verdict::ImageFailed).await;
}

#[tokio::test]
async fn that_has_another_digest() {
    let wanted = Image::new("bad");
    let registry = registry();
    registry.add(&Image::new("another"), "team/bad", &wanted.manifest_digest);
    let all = [registry];
    let resolver = resolver();
    let name = format!("ghcr.io/team/bad@{}", wanted.manifest_digest);
    let bad = resolve(&resolver, &plan(&all, &name)).await;
    assert_eq!(
        bad.verdicts(),
        [Some(Verdict::ImageFailed)],
        "{}",
        trail(&bad)
    );
    for n in 0..GOOD_IMAGES {
        let good = plan(&all, &format!("ghcr.io/team/app:t{n}"));
        assert_eq!(resolve(&resolver, &good).await.chosen(), Some(0));
    }
}

#[tokio::test]
async fn whose_token_service_refuses() {
    for status in [400, 404, 500] {
        let service = TokenService::start(TokenOptions::default()).unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        service.behave(Behaviour::Status(status));
        let registry = registry();
        registry.require_token(&service);
        let mend = || service.behave(Behaviour::Serve);
        let wanted = Verdict::ImageFailed;
        costs_nothing(&resolver(), registry, Depth::Best, wanted, mend).await;
    }
}

#[tokio::test]
async fn a_registry_that_answers_508_does_not_have_it() {
    // Two caches that mirror each other: who finds itself asked answers 508.
    let all = registries(1);
    all[0].behave_for("team/bad", Behaviour::Status(StatusCode::LOOP_DETECTED));
    let resolution = resolve(&resolver(), &plan(&all, BAD)).await;
    assert!(resolution.absent_everywhere(), "{}", trail(&resolution));
}

#[tokio::test]
async fn three_bad_repositories_in_a_row_send_no_good_image_elsewhere() {
    let all = [registry(), registry()];
    for n in 0..9 {
        let repository = format!("team/bad{n}");
        all[0].behave_for(
            &repository,
            Behaviour::Status(StatusCode::INTERNAL_SERVER_ERROR),
        );
    }
    let resolver = resolver();
    for round in 0..3 {
        for n in 0..3 {
            let bad = format!("ghcr.io/team/bad{}:1", 3 * round + n);
            assert_eq!(resolve(&resolver, &plan(&all, &bad)).await.chosen(), None);
        }
        // The circuit has opened this moment, and the trial that closes it is under way.
        let good = format!("ghcr.io/team/app:t{round}");
        let resolution = resolve(&resolver, &plan(&all, &good)).await;
        assert_eq!(resolution.chosen(), Some(0), "{}", trail(&resolution));
    }
    let pings = all[0].recording().count(|request| request.path == "/v2/");
    assert_eq!(pings, 3, "one trial each time");
}

#[tokio::test]
async fn a_registry_that_fails_everything_is_left_alone_after_three_repositories() {
    let all = registries(2);
    all[0].behave(Behaviour::Status(StatusCode::INTERNAL_SERVER_ERROR));
    let image = Image::new("app");
    let resolver = resolver();
    for n in 0..40 {
        let repository = format!("team/app{n}");
        all[1].add(&image, &repository, "1");
        let plan = plan(&all, &format!("ghcr.io/{repository}:1"));
        let resolution = resolve(&resolver, &plan).await;
        assert_eq!(resolution.chosen(), Some(1), "{}", trail(&resolution));
    }
    assert_eq!(asked(&all[0]), 3);
}

#[tokio::test]
async fn an_image_that_failed_is_asked_for_again_when_its_registry_is_back() {
    let mut all = registries(2);
    let failing = Behaviour::Status(StatusCode::INTERNAL_SERVER_ERROR);
    all[0].behave_for("team/app", failing);
    let resolver = resolver_with(ResolverOptions {
        absent_ttl: Duration::from_secs(3600),
        ..options()
    });
    let app = plan(&all, crate::setup::IMAGE);
    assert_eq!(resolve(&resolver, &app).await.chosen(), Some(1));
    all[0].behave_well();
    assert_eq!(
        resolve(&resolver, &app).await.chosen(),
        Some(1),
        "remembered"
    );
    all[0].stop().await;
    resolve(&resolver, &plan(&all, "ghcr.io/team/other:1")).await;
    all[0].start_again().unwrap();
    testkit::wait::until("it is asked for again", async || {
        (resolve(&resolver, &app).await.chosen() == Some(0)).then_some(())
    })
    .await;
}
