//! Plain, TLS, and loopback registries that do not say.

use registry::{Cause, Outcome};
use testkit::certs::Ca;
use testkit::fake_registry::{Behaviour, FakeRegistry};
use testkit::images::Image;

use crate::setup::{
    REPOSITORY, Target, ask, cause, client, found, is_found, registry, target, with_auth,
};

#[tokio::test]
async fn a_loopback_registry_without_scheme_is_tried_both_ways_once() {
    let (registry, image) = registry();
    let client = client();
    // `127.0.0.1:port`: TLS, which it does not speak, then plain.
    let first = ask(&client, &target(&registry.host())).await;
    assert_eq!(
        (&first.outcome, first.requests),
        (&found(&image), 2),
        "{}",
        first.detail
    );
    let second = ask(&client, &target(&registry.host())).await;
    assert_eq!((second.outcome, second.requests), (found(&image), 1));
}

#[tokio::test]
async fn a_loopback_registry_with_any_certificate_is_taken_as_the_runtime_takes_it() {
    let cert = Ca::new().unwrap().issue(&["elsewhere.example"]).unwrap();
    let registry = FakeRegistry::start_tls(&cert).unwrap();
    let image = Image::new("app");
    registry.add(&image, REPOSITORY, "1");
    let client = client();
    for _ in 0..2 {
        let probe = ask(&client, &target(&registry.host())).await;
        assert_eq!(
            (&probe.outcome, probe.requests),
            (&found(&image), 1),
            "{}",
            probe.detail
        );
    }
    // With a scheme it is held to it.
    let probe = ask(&client, &target(&registry.url())).await;
    assert_eq!(cause(&probe), Some(Cause::Tls), "{}", probe.detail);
}

#[tokio::test]
async fn plain_registries_see_no_tls_and_tls_registries_nothing_plain() {
    let (registry, _) = registry();
    let client = client();
    let probe = ask(&client, &target(&format!("https://{}", registry.host()))).await;
    assert_eq!(cause(&probe), Some(Cause::Tls));
    assert!(probe.detail.contains("write http://"), "{}", probe.detail);
    assert!(registry.recording().is_empty());

    let cert = Ca::new().unwrap().issue(&["127.0.0.1"]).unwrap();
    let secure = FakeRegistry::start_tls(&cert).unwrap();
    let probe = ask(&client, &target(&format!("http://{}", secure.host()))).await;
    assert!(cause(&probe).is_some(), "{probe:?}");
    assert!(secure.recording().is_empty());
}

#[tokio::test]
async fn a_scheme_that_stopped_working_is_forgotten() {
    let (mut plain, image) = registry();
    let client = client();
    let address = plain.host();
    let probe = ask(&client, &target(&address)).await;
    assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
    plain.stop().await;
    let probe = ask(&client, &target(&address)).await;
    assert_eq!(cause(&probe), Some(Cause::Refused), "{}", probe.detail);
    plain.start_again().unwrap();
    let probe = ask(&client, &target(&address)).await;
    assert_eq!((probe.outcome, probe.requests), (found(&image), 2));
}

/// `insecure = true` of CRI-O: TLS with any certificate, and plain HTTP where there is no TLS.
fn as_crio_has_it(address: &str) -> Target {
    let mut asked = with_auth(address, "u", "hunter2");
    asked.registry.tls.insecure_skip_verify = true;
    asked.registry.tls.or_plain = true;
    asked
}

#[tokio::test]
async fn where_the_runtime_falls_back_to_plain_http_so_do_probes_without_credentials() {
    let (plain, image) = registry();
    let client = client();
    let asked = as_crio_has_it(&format!("https://{}", plain.host()));
    for requests in [2, 1] {
        let probe = ask(&client, &asked).await;
        assert_eq!(
            (&probe.outcome, probe.requests),
            (&found(&image), requests),
            "{}",
            probe.detail
        );
    }
    plain.require_basic("u", "hunter2");
    let probe = ask(&client, &asked).await;
    assert_eq!(probe.outcome, Outcome::Unauthorized, "{}", probe.detail);
    assert!(probe.detail.contains("write http://"), "{}", probe.detail);
    assert!(plain.requests().iter().all(|r| r.authorization().is_none()));

    let cert = Ca::new().unwrap().issue(&["elsewhere.example"]).unwrap();
    let secure = FakeRegistry::start_tls(&cert).unwrap();
    secure.add(&image, REPOSITORY, "1");
    secure.require_basic("u", "hunter2");
    let probe = ask(&client, &as_crio_has_it(&secure.url())).await;
    assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
}

/// A token that was got over TLS, for a password, is not sent when the registry is found without TLS.
#[tokio::test]
async fn what_was_got_over_tls_never_travels_in_the_clear() {
    let cert = Ca::new().unwrap().issue(&["127.0.0.1"]).unwrap();
    let (plain, _) = registry();
    let secure = FakeRegistry::start_tls(&cert).unwrap();
    secure.require_basic("u", "hunter2");
    let to_plain = format!("{}/v2/team/app/manifests/1", plain.url());
    secure.behave(Behaviour::Redirect(to_plain));
    let client = client();
    let mut asked = with_auth(&secure.url(), "u", "hunter2");
    asked.registry.tls.insecure_skip_verify = true;
    for _ in 0..2 {
        assert!(is_found(&ask(&client, &asked).await));
    }
    assert!(
        secure
            .requests()
            .iter()
            .any(|r| r.has_basic("u", "hunter2"))
    );
    // Another entry of the same host and port that means plain HTTP knows nothing of it.
    plain.require_basic("u", "hunter2");
    let other = target(&plain.url());
    assert_eq!(ask(&client, &other).await.outcome, Outcome::Unauthorized);
    assert!(plain.requests().iter().all(|r| r.authorization().is_none()));
}
