//! Where credentials go on a pull through the cache, and where they never go, whatever registries say.

use testkit::certs::Ca;
use testkit::fake_registry::{Behaviour, FakeRegistry, TokenOptions, TokenService};
use testkit::images::Image;
use testkit::recording::Recording;

use crate::world::{NAME, REPOSITORY, Served};

const USER: &str = "hugo";
const PASSWORD: &str = "hunter2";

/// The config's entry for a registry, with credentials.
fn entry(url: &str, more: &str) -> String {
    format!("{{address: '{url}', auth: '{USER}:{PASSWORD}'{more}}}")
}

/// A host that the config names, so that it may be on this machine, and that no image is asked of.
const NAMED: &str = ", {address: 'http://localhost:1', mirrorOf: [nothing.test]}";

fn tokens() -> TokenService {
    TokenService::start(TokenOptions {
        credentials: Some((USER.to_owned(), PASSWORD.to_owned())),
        ..TokenOptions::default()
    })
    .unwrap()
}

fn has_credentials(recording: &Recording) -> bool {
    let all = recording.all();
    let mut sent = all.iter().filter_map(|request| request.authorization());
    sent.any(|sent| sent.starts_with("Basic "))
}

/// Pulls an image's manifest and all of its blobs; the statuses.
async fn pull(cache: &Served, image: &Image) -> Vec<u16> {
    let mut paths = vec![format!("/v2/{NAME}/manifests/1")];
    for blob in &image.blobs {
        paths.push(format!("/v2/{NAME}/blobs/{}", blob.digest));
    }
    let mut statuses = Vec::new();
    for path in paths {
        statuses.push(cache.get(&path).await.status);
    }
    statuses
}

#[tokio::test]
async fn they_go_to_the_token_service_of_the_registrys_own_host() {
    let (registry, image) = registry();
    let service = tokens();
    registry.require_token(&service);
    let cache = Served::start(&entry(&registry.url(), "")).await;
    assert_eq!(pull(&cache, &image).await, [200, 200, 200]);
    assert!(has_credentials(service.recording()));
    assert!(!has_credentials(registry.recording()));
}

#[tokio::test]
async fn they_never_go_to_a_plain_token_service_on_another_host() {
    let (registry, image) = registry();
    let service = tokens();
    let realm = service.realm().replace("127.0.0.1", "localhost");
    registry.behave(Behaviour::Challenge(format!(
        "Bearer realm=\"{realm}\",service=\"fake-registry\""
    )));
    let cache = Served::start(&(entry(&registry.url(), "") + NAMED)).await;
    assert!(!pull(&cache, &image).await.contains(&200));
    assert!(!service.recording().is_empty());
    assert!(!has_credentials(service.recording()));
    assert!(!has_credentials(registry.recording()));
}

#[tokio::test]
async fn they_never_go_from_a_tls_registry_to_a_plain_realm() {
    let ca = Ca::new().unwrap();
    let registry = FakeRegistry::start_tls(&ca.issue(&["127.0.0.1"]).unwrap()).unwrap();
    let image = Image::new("over TLS");
    registry.add(&image, REPOSITORY, "1");
    let service = tokens();
    registry.require_token(&service);
    // The same host, so that nothing but the scheme is in the way.
    let skip = ", insecureSkipVerify: true";
    let cache = Served::start(&entry(&registry.url(), skip)).await;
    assert!(!pull(&cache, &image).await.contains(&200));
    assert!(!registry.requests().is_empty());
    assert!(!service.recording().is_empty());
    assert!(!has_credentials(service.recording()));
}

#[tokio::test]
async fn they_never_go_to_a_realm_that_was_reached_by_a_redirect() {
    // The registry sends us on to another one, which wants a token.
    let (other, image) = registry();
    let service = tokens();
    other.require_token(&service);
    let (mirror, _) = registry();
    mirror.require_basic(USER, PASSWORD);
    mirror.behave(Behaviour::Redirect(format!(
        "{}/v2/{REPOSITORY}/manifests/1",
        other.url()
    )));
    let cache = Served::start(&entry(&mirror.url(), "")).await;
    assert_ne!(pull(&cache, &image).await[0], 200);
    assert!(has_credentials(mirror.recording()));
    assert!(!service.recording().is_empty());
    for recording in [service.recording(), other.recording()] {
        assert!(!has_credentials(recording));
    }

    // The token service itself sends us on to another one.
    let (registry, image) = self::registry();
    let (first, second) = (tokens(), tokens());
    registry.require_token(&first);
    first.behave(Behaviour::Redirect(second.realm().to_owned()));
    let cache = Served::start(&entry(&registry.url(), "")).await;
    assert!(!pull(&cache, &image).await.contains(&200));
    assert!(has_credentials(first.recording()));
    assert!(!has_credentials(second.recording()));
}

#[tokio::test]
async fn a_storage_hosts_401_gets_nothing() {
    let (registry, image) = registry();
    let (storage, _) = self::registry();
    storage.require_basic(USER, PASSWORD);
    registry.require_basic(USER, PASSWORD);
    let layer = &image.blobs[0].digest;
    registry.behave_for_blobs(
        REPOSITORY,
        Behaviour::Redirect(format!("{}/v2/{REPOSITORY}/blobs/{layer}", storage.url())),
    );
    let cache = Served::start(&entry(&registry.url(), "")).await;
    let statuses = pull(&cache, &image).await;
    assert_eq!(statuses[0], 200);
    assert_ne!(statuses[1], 200);
    assert!(has_credentials(registry.recording()));
    assert!(!storage.requests().is_empty());
    assert!(
        storage
            .requests()
            .iter()
            .all(|r| r.authorization().is_none())
    );
}

fn registry() -> (FakeRegistry, Image) {
    let registry = FakeRegistry::start().unwrap();
    let image = Image::new("whose credentials go where");
    registry.add(&image, REPOSITORY, "1");
    (registry, image)
}
