//! A real docker-registry.

use registry::Outcome;
use testkit::certs::Ca;
use testkit::docker_registry::DockerRegistry;
use testkit::images::Image;

use crate::setup::{REPOSITORY, ask, client, found, target, with_auth};

#[tokio::test]
async fn has_what_was_pushed_and_nothing_else() {
    let registry = DockerRegistry::plain().await.unwrap();
    let image = Image::new("app");
    registry.push(&image, REPOSITORY, "1").await.unwrap();
    let client = client();
    let probe = ask(&client, &target(&registry.url())).await;
    assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
    let mut other = target(&registry.url());
    other.name.reference = "2".into();
    assert_eq!(ask(&client, &other).await.outcome, Outcome::NotFound);
    let index = Image::index("multi", testkit::images::Format::Docker);
    registry.push(&index, REPOSITORY, "2").await.unwrap();
    assert_eq!(ask(&client, &other).await.outcome, found(&index));
}

#[tokio::test]
async fn asks_for_a_password_by_basic() {
    let registry = DockerRegistry::with_password("u", "p:w").await.unwrap();
    let image = Image::new("app");
    registry.push(&image, REPOSITORY, "1").await.unwrap();
    let client = client();
    let right = with_auth(&registry.url(), "u", "p:w");
    assert_eq!(ask(&client, &right).await.outcome, found(&image));
    assert_eq!(ask(&client, &right).await.requests, 1);
    let wrong = with_auth(&registry.url(), "u", "x");
    assert_eq!(ask(&client, &wrong).await.outcome, Outcome::Unauthorized);
    let none = target(&registry.url());
    assert_eq!(ask(&client, &none).await.outcome, Outcome::Unauthorized);
}

#[tokio::test]
async fn is_trusted_by_its_ca() {
    let ca = Ca::new().unwrap();
    let cert = ca.issue(&["127.0.0.1"]).unwrap();
    let registry = DockerRegistry::with_tls(&cert).await.unwrap();
    let image = Image::new("app");
    registry.push(&image, REPOSITORY, "1").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, ca.pem()).unwrap();
    let mut target = target(&registry.url());
    target.registry.tls.ca_file = Some(ca_file);
    let probe = ask(&client(), &target).await;
    assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
}
