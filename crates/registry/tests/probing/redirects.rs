//! Redirects are followed, and credentials stay behind.

use registry::{Cause, Outcome};
use testkit::fake_registry::{Behaviour, FakeRegistry, TokenOptions, TokenService};

use crate::setup::{ask, cause, client, found, is_registrys, registry, target, with_auth};

fn to(registry: &FakeRegistry) -> Behaviour {
    Behaviour::Redirect(format!("{}/v2/team/app/manifests/1", registry.url()))
}

#[tokio::test]
async fn another_host_is_asked_without_the_credentials() {
    let (store, image) = registry();
    let (registry, _) = registry();
    registry.require_basic("u", "p");
    registry.behave(to(&store));
    let probe = ask(&client(), &with_auth(&registry.url(), "u", "p")).await;
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
    let probe = ask(&client(), &with_auth(&registry.url(), "u", "p")).await;
    assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
    assert!(registry.requests().last().unwrap().has_basic("u", "p"));
}

#[tokio::test]
async fn another_hosts_password_challenge_is_not_answered() {
    let (store, _) = registry();
    let (registry, _) = registry();
    registry.require_basic("u", "p");
    registry.behave(to(&store));
    store.require_basic("u", "p");
    let probe = ask(&client(), &with_auth(&registry.url(), "u", "p")).await;
    assert_eq!(probe.outcome, Outcome::Unauthorized);
    assert!(probe.detail.contains(&store.url()), "{}", probe.detail);
    assert_eq!(authorizations(&store), [None]);
}

/// The registry is put aside for as long as it asks for. A host that it redirected one image to can't ask
/// for that in its name, nor can that host's token service.
#[tokio::test]
async fn another_host_cannot_put_the_registry_aside() {
    let limited = Behaviour::RateLimited {
        retry_after: Some("300".into()),
    };
    let retry_after = None;
    let (store, _) = registry();
    let (registry, _) = registry();
    registry.behave(to(&store));
    store.behave(limited.clone());
    let probe = ask(&client(), &target(&registry.url())).await;
    assert_eq!(probe.outcome, Outcome::RateLimited { retry_after });
    store.behave_well();
    let tokens = TokenService::start(TokenOptions::default()).unwrap();
    tokens.behave(limited);
    store.require_token(&tokens);
    let probe = ask(&client(), &target(&registry.url())).await;
    assert_eq!(probe.outcome, Outcome::RateLimited { retry_after });
}

/// As containerd pulls it: a mirror that answers 307 to a registry which gives anybody a token.
#[tokio::test]
async fn a_token_behind_a_redirect_is_got_anonymously() {
    let (upstream, image) = registry();
    let (mirror, _) = registry();
    mirror.require_basic("u", "hunter2");
    mirror.behave(to(&upstream));
    let service = TokenService::start(TokenOptions::default()).unwrap();
    upstream.require_token(&service);
    let client = client();
    let asked = with_auth(&mirror.url(), "u", "hunter2");
    for tokens in [1, 1] {
        let probe = ask(&client, &asked).await;
        assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
        assert_eq!(service.recording().all().len(), tokens);
    }
    // Nobody but the mirror sees who asks, and the mirror sees nobody's token.
    assert_eq!(service.recording().all()[0].authorization(), None);
    for sent in authorizations(&upstream).iter().flatten() {
        assert!(sent.starts_with("Bearer fake-token-"), "{sent}");
    }
    for sent in authorizations(&mirror).iter().flatten() {
        assert!(sent.starts_with("Basic "), "{sent}");
    }

    // One that was revoked meanwhile is asked for anew.
    service.revoke();
    let probe = ask(&client, &asked).await;
    assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
    assert_eq!(service.recording().all().len(), 2);
}

#[tokio::test]
async fn a_token_that_opens_nothing_behind_a_redirect_ends_it() {
    let (upstream, _) = registry();
    let (mirror, _) = registry();
    mirror.behave(to(&upstream));
    // Anonymous clients get a token here, but it gives no access.
    let service = TokenService::start(TokenOptions {
        credentials: Some(("u".into(), "hunter2".into())),
        ..TokenOptions::default()
    })
    .unwrap();
    upstream.require_token(&service);
    let probe = ask(&client(), &with_auth(&mirror.url(), "u", "hunter2")).await;
    assert_eq!(probe.outcome, Outcome::Unauthorized, "{}", probe.detail);
    assert!(probe.detail.contains("credentials are not sent there"));
    let asked = service.recording().all();
    assert_eq!((asked.len(), asked[0].authorization()), (1, None));

    // What its token service fails at is this image's trouble.
    service.behave(Behaviour::Status(http::StatusCode::BAD_REQUEST));
    let probe = ask(&client(), &target(&mirror.url())).await;
    assert_eq!(cause(&probe), Some(Cause::TokenService), "{}", probe.detail);
    assert!(!is_registrys(&probe));
}

fn authorizations(registry: &FakeRegistry) -> Vec<Option<String>> {
    let requests = registry.requests();
    let sent = requests.iter().map(|request| request.authorization());
    sent.map(|value| value.map(str::to_owned)).collect()
}

#[tokio::test]
async fn circles_and_dead_ends_are_named() {
    let (registry, _) = registry();
    let client = client();
    registry.behave(Behaviour::RedirectLoop);
    let probe = ask(&client, &target(&registry.url())).await;
    assert_eq!(cause(&probe), Some(Cause::Redirect), "{}", probe.detail);
    assert_eq!(probe.requests, 1);

    registry.behave(Behaviour::Redirect("ftp://x/y".into()));
    let probe = ask(&client, &target(&registry.url())).await;
    assert_eq!(cause(&probe), Some(Cause::Redirect), "{}", probe.detail);

    let mut gone = FakeRegistry::start().unwrap();
    gone.stop().await;
    registry.behave(to(&gone));
    let probe = ask(&client, &target(&registry.url())).await;
    assert_eq!(cause(&probe), Some(Cause::Refused), "{}", probe.detail);
    assert!(probe.detail.contains(&gone.host()), "{}", probe.detail);
}

#[tokio::test]
async fn two_registries_that_point_at_each_other_end() {
    let (one, _) = registry();
    let (two, _) = registry();
    one.behave(to(&two));
    two.behave(to(&one));
    let probe = ask(&client(), &target(&one.url())).await;
    assert_eq!(cause(&probe), Some(Cause::Redirect), "{}", probe.detail);
    assert_eq!(probe.requests, 2);
}
