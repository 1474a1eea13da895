//! Plain, TLS, and loopback registries that do not say.

use registry::Cause;
use testkit::certs::Ca;
use testkit::fake_registry::FakeRegistry;
use testkit::images::Image;

use crate::setup::{REPOSITORY, ask, cause, client, found, registry, target};

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
