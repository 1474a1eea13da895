//! Whether a registry lives, whatever it has.

use std::time::Duration;

use http::StatusCode;
use registry::{Cause, Client, ClientOptions, Ping};
use testkit::certs::Ca;
use testkit::docker_registry::DockerRegistry;
use testkit::fake_registry::{Behaviour, FakeRegistry, TokenOptions, TokenService};
use testkit::wait::until;

use crate::setup::{ask, client, options, registry, target, with_auth};

async fn ping(client: &Client, address: &str) -> Ping {
    let target = with_auth(address, "u", "p");
    client.ping(&target.registry, target.deadline).await
}

#[tokio::test]
async fn every_http_answer_below_500_is_life() {
    let (registry, _) = registry();
    let client = client();
    for (status, outcome) in [
        (200, Ok(())),
        (307, Ok(())),
        (404, Ok(())),
        (429, Ok(())),
        (500, Err(Cause::Status(500))),
        (503, Err(Cause::Status(503))),
    ] {
        registry.behave(Behaviour::Status(StatusCode::from_u16(status).unwrap()));
        let ping = ping(&client, &registry.url()).await;
        assert_eq!((ping.outcome, ping.requests), (outcome, 1), "{status}");
    }
    for request in registry.requests() {
        assert_eq!((request.method.as_str(), &*request.path), ("GET", "/v2/"));
        assert_eq!(request.authorization(), None);
    }
}

#[tokio::test]
async fn a_challenge_is_life_and_is_not_answered() {
    let (registry, _) = registry();
    let service = TokenService::start(TokenOptions::default()).unwrap();
    registry.require_token(&service);
    let ping = ping(&client(), &registry.url()).await;
    assert_eq!((ping.outcome, ping.requests), (Ok(()), 1));
    assert!(service.recording().is_empty());
}

#[tokio::test]
async fn silence_and_refusal_are_no_life() {
    let (mut registry, _) = registry();
    let client = client();
    registry.set_black_hole(true);
    let quick = target(&registry.url());
    let silent = client
        .ping(&quick.registry, Duration::from_millis(200))
        .await;
    assert_eq!(silent.outcome, Err(Cause::Timeout), "{}", silent.detail);
    registry.stop().await;
    let refused = ping(&client, &registry.url()).await;
    assert_eq!(refused.outcome, Err(Cause::Refused), "{}", refused.detail);
    let cert = Ca::new().unwrap().issue(&["127.0.0.1"]).unwrap();
    let secure = FakeRegistry::start_tls(&cert).unwrap();
    let untrusted = ping(&client, &secure.url()).await;
    assert_eq!(untrusted.outcome, Err(Cause::Tls), "{}", untrusted.detail);
}

#[tokio::test]
async fn it_does_not_wait_behind_questions_that_hang() {
    let (registry, _) = registry();
    registry.behave_for("team/app", Behaviour::BlackHole);
    let client = Client::new(ClientOptions {
        concurrency_per_registry: 1,
        ..options()
    });
    let hanging = {
        let (client, target) = (client.clone(), target(&registry.url()));
        tokio::spawn(async move { ask(&client, &target).await })
    };
    until("the slot is taken", || async {
        (!registry.requests().is_empty()).then_some(())
    })
    .await;
    let ping = ping(&client, &registry.url()).await;
    assert_eq!(ping.outcome, Ok(()), "{}", ping.detail);
    hanging.abort();
}

#[tokio::test]
async fn a_loopback_registry_without_scheme_is_found_by_either() {
    let (registry, _) = registry();
    let client = client();
    let first = ping(&client, &registry.host()).await;
    assert_eq!(
        (first.outcome, first.requests),
        (Ok(()), 2),
        "{}",
        first.detail
    );
    let second = ping(&client, &registry.host()).await;
    assert_eq!((second.outcome, second.requests), (Ok(()), 1));
}

#[tokio::test]
async fn a_real_registry_lives() {
    let registry = DockerRegistry::with_password("u", "x").await.unwrap();
    let ping = ping(&client(), &registry.url()).await;
    assert_eq!(ping.outcome, Ok(()));
    assert_eq!(ping.detail, "answers /v2/ with 401");
}
