//! A look at a registry as a whole: its certificate, its clock, and whether it takes the credentials.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use registry::{Admission, Cause, Client, Examination};
use testkit::certs::Ca;
use testkit::docker_registry::DockerRegistry;
use testkit::fake_registry::{Behaviour, FakeRegistry, TokenOptions, TokenService};

use crate::setup::{Target, client, registry, target, with_auth};

async fn examine(client: &Client, target: &Target) -> Examination {
    client.examine(&target.registry, target.deadline).await
}

#[tokio::test]
async fn a_password_is_accepted_refused_or_wanted() {
    let registry = DockerRegistry::with_password("u", "hunter2").await.unwrap();
    let right = examine(&client(), &with_auth(&registry.url(), "u", "hunter2")).await;
    assert_eq!(right.ping.outcome, Ok(()));
    assert_eq!(right.ping.detail, "answers /v2/ with 401");
    assert_eq!(right.admission, Admission::Accepted);
    let wrong = examine(&client(), &with_auth(&registry.url(), "u", "hunter3")).await;
    let Admission::Refused { detail } = wrong.admission else {
        panic!("{wrong:?}");
    };
    assert!(detail.contains("are refused") && !detail.contains("hunter"));
    let none = examine(&client(), &target(&registry.url())).await;
    assert_eq!(none.admission, Admission::Wanted);
}

#[tokio::test]
async fn a_token_service_is_asked_who_we_are_and_for_no_repository() {
    let (registry, _) = registry();
    let open = examine(&client(), &with_auth(&registry.url(), "u", "p")).await;
    assert_eq!(open.admission, Admission::Open);
    let service = TokenService::start(TokenOptions {
        credentials: Some(("u".to_owned(), "hunter2".to_owned())),
        ..TokenOptions::default()
    });
    let service = service.unwrap();
    registry.require_token(&service);
    let none = examine(&client(), &target(&registry.url())).await;
    assert_eq!(none.admission, Admission::Anonymous);
    assert!(service.recording().is_empty());
    let wrong = examine(&client(), &with_auth(&registry.url(), "u", "x")).await;
    assert!(
        matches!(wrong.admission, Admission::Refused { .. }),
        "{wrong:?}"
    );
    let right = examine(&client(), &with_auth(&registry.url(), "u", "hunter2")).await;
    assert_eq!(right.admission, Admission::Accepted, "{right:?}");
}

#[tokio::test]
async fn certificate_and_clock_are_told() {
    let ca = Ca::new().unwrap();
    let cert = ca.issue(&["127.0.0.1"]).unwrap();
    let registry = FakeRegistry::start_tls(&cert).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, ca.pem()).unwrap();
    let mut trusting = target(&registry.url());
    trusting.registry.tls.ca_file = Some(file);
    let seen = examine(&client(), &trusting).await;
    assert_eq!(seen.ping.outcome, Ok(()), "{seen:?}");
    assert!(seen.certificate.is_some_and(|der| der.len() > 100));
    let date = seen.date.unwrap();
    let off = date.duration_since(SystemTime::now()).unwrap_or_default();
    assert!(off < Duration::from_secs(2), "{off:?}");
    // Plain HTTP has none.
    let (plain, _) = self::registry();
    let seen = examine(&client(), &target(&plain.url())).await;
    assert_eq!(seen.certificate, None);
}

#[tokio::test]
async fn no_life() {
    let (mut registry, _) = registry();
    registry.behave(Behaviour::Status(StatusCode::BAD_GATEWAY));
    let ill = examine(&client(), &target(&registry.url())).await;
    assert_eq!(ill.ping.outcome, Err(Cause::Status(502)));
    registry.set_black_hole(true);
    let mut quick = target(&registry.url());
    quick.deadline = Duration::from_millis(200);
    let silent = examine(&client(), &quick).await;
    assert_eq!(silent.ping.outcome, Err(Cause::Timeout), "{silent:?}");
    assert!(matches!(silent.admission, Admission::Unknown { .. }));
    registry.stop().await;
    let refused = examine(&client(), &target(&registry.url())).await;
    assert_eq!(refused.ping.outcome, Err(Cause::Refused), "{refused:?}");
}
