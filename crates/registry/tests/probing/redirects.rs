//! Redirects are followed, and credentials stay behind.

use registry::{Cause, Outcome};
use testkit::fake_registry::{Behaviour, FakeRegistry, TokenOptions, TokenService};

use crate::setup::{cause, client, found, registry, target, with_auth};

fn to(registry: &FakeRegistry) -> Behaviour {
    Behaviour::Redirect(format!("{}/v2/team/app/manifests/1", registry.url()))
}

#[tokio::test]
async fn another_host_is_asked_without_the_credentials() {
    let (store, image) = registry();
    let (registry, _) = registry();
    registry.require_basic("u", "p");
    registry.behave(to(&store));
    let probe = client().probe(&with_auth(&registry.url(), "u", "p")).await;
    assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
    assert_eq!(probe.requests, 3);
    assert!(
        probe
            .detail
            .contains(&format!("redirected to {}", store.url())),
        "{}",
        probe.detail
    );
    assert!(registry.requests()[1].has_basic("u", "p"));
    let [asked] = store.requests().try_into().unwrap();
    assert_eq!(asked.authorization(), None);
}

#[tokio::test]
async fn the_same_host_gets_them_again() {
    let (registry, image) = registry();
    registry.require_basic("u", "p");
    registry.behave_for_tag(
        "team/app",
        "1",
        Behaviour::Redirect(format!("/v2/team/app/manifests/{}", image.manifest_digest)),
    );
    let probe = client().probe(&with_auth(&registry.url(), "u", "p")).await;
    assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
    assert!(registry.requests().last().unwrap().has_basic("u", "p"));
}

#[tokio::test]
async fn another_hosts_challenge_is_not_answered() {
    let (store, _) = registry();
    let (registry, _) = registry();
    registry.require_basic("u", "p");
    registry.behave(to(&store));
    let service = TokenService::start(TokenOptions::default()).unwrap();
    for guard in ["basic", "token"] {
        match guard {
            "basic" => store.require_basic("u", "p"),
            _ => store.require_token(&service),
        }
        let probe = client().probe(&with_auth(&registry.url(), "u", "p")).await;
        assert_eq!(probe.outcome, Outcome::Unauthorized, "{guard}");
        assert!(probe.detail.contains(&store.url()), "{}", probe.detail);
    }
    assert!(
        store
            .requests()
            .iter()
            .all(|request| request.authorization().is_none())
    );
    assert!(service.recording().is_empty());
}

#[tokio::test]
async fn circles_and_dead_ends_are_named() {
    let (registry, _) = registry();
    let client = client();
    registry.behave(Behaviour::RedirectLoop);
    let probe = client.probe(&target(&registry.url())).await;
    assert_eq!(cause(&probe), Some(Cause::Redirect), "{}", probe.detail);
    assert_eq!(probe.requests, 1);

    registry.behave(Behaviour::Redirect("ftp://x/y".into()));
    let probe = client.probe(&target(&registry.url())).await;
    assert_eq!(cause(&probe), Some(Cause::Redirect), "{}", probe.detail);

    let mut gone = FakeRegistry::start().unwrap();
    gone.stop().await;
    registry.behave(to(&gone));
    let probe = client.probe(&target(&registry.url())).await;
    assert_eq!(cause(&probe), Some(Cause::Refused), "{}", probe.detail);
    assert!(probe.detail.contains(&gone.host()), "{}", probe.detail);
}

#[tokio::test]
async fn two_registries_that_point_at_each_other_end() {
    let (one, _) = registry();
    let (two, _) = registry();
    one.behave(to(&two));
    two.behave(to(&one));
    let probe = client().probe(&target(&one.url())).await;
    assert_eq!(cause(&probe), Some(Cause::Redirect), "{}", probe.detail);
    assert_eq!(probe.requests, 2);
}
