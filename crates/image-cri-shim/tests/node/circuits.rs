//! Registries that fail and are mended, seen through the whole shim.

use http::StatusCode;
use rustix::process::Signal;
use testkit::fake_registry::{Behaviour, FakeRegistry};
use testkit::images::Image;

use crate::world::with_fake_runtime;

/// A registry that has `team/app` with these tags.
fn registry(tags: usize) -> FakeRegistry {
    let registry = FakeRegistry::start().unwrap();
    let image = Image::new("app");
    for n in 0..tags {
        registry.add(&image, "team/app", &format!("t{n}"));
    }
    registry
}

#[tokio::test]
async fn one_bad_image_takes_no_registry_from_the_node() {
    let registry = registry(130);
    let failing = Behaviour::Status(StatusCode::INTERNAL_SERVER_ERROR);
    registry.behave_for("team/bad", failing);
    let config = format!("address: {}", registry.url());
    let (shim, _runtime) = with_fake_runtime(&config).await;
    let client = shim.client();
    client.pull("ghcr.io/team/bad:1", None).await.unwrap();
    for n in 0..130 {
        let name = format!("ghcr.io/team/app:t{n}");
        client.pull(&name, None).await.unwrap();
        let line = shim.wait_for_log(&format!("image={name} ")).await;
        assert!(line.contains("priority match: "), "{line}");
    }
    assert_eq!(shim.log_lines("circuit open: "), [""; 0]);
}

#[tokio::test]
async fn after_a_hangup_signal_every_registry_is_asked_anew() {
    let mut registry = registry(2);
    // Trials ask no sooner than that: what closes the circuit here is the signal alone.
    let retry_after = Some("300".to_owned());
    registry.behave_for("team/app", Behaviour::RateLimited { retry_after });
    let config = format!("address: {}", registry.url());
    let (mut shim, _runtime) = with_fake_runtime(&config).await;
    shim.client()
        .pull("ghcr.io/team/app:t0", None)
        .await
        .unwrap();
    shim.wait_for_log("circuit open: ").await;
    registry.behave_well();
    shim.signal(Signal::HUP).unwrap();
    shim.wait_for_log("SIGHUP: every registry is asked anew")
        .await;
    let name = "ghcr.io/team/app:t1";
    shim.client().pull(name, None).await.unwrap();
    let line = shim.wait_for_log(&format!("image={name} ")).await;
    assert!(line.contains("priority match: "), "{line}");
    registry.stop().await;
}
