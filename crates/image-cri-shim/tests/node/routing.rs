//! Which registry an image comes from.

use testkit::certs::Ca;
use testkit::containerd::Containerd;
use testkit::docker_registry::DockerRegistry;
use testkit::images::Image;
use testkit::shim::{Options, Shim};

use crate::world::{BINARY, World, probes, registry_with};

/// Registries that all have `team/app:1`, each with other content.
async fn three() -> (Vec<DockerRegistry>, Vec<String>) {
    let mut registries = Vec::new();
    let mut ids = Vec::new();
    for seed in ["first", "second", "third"] {
        let image = Image::new(seed);
        registries.push(registry_with(&image, "team/app", "1").await);
        ids.push(image.id().to_owned());
    }
    (registries, ids)
}

/// Where `team/app:1` comes from under `config`, in which `{0}`, `{1}`, `{2}` are the registries.
async fn winner(config: &str) -> (usize, String) {
    let (registries, ids) = three().await;
    let mut config = config.to_owned();
    for (n, registry) in registries.iter().enumerate() {
        config = config.replace(&format!("{{{n}}}"), &registry.url());
    }
    let all: Vec<_> = registries.iter().collect();
    let world = World::start(&config, &all).await;
    let id = world.pull("docker.io/team/app:1").await;
    let at = ids.iter().position(|known| *known == id).unwrap();
    // The line comes through a pipe, a little after the answer.
    world.shim.wait_for_log("action=PullImage").await;
    (at, world.shim.log())
}

#[tokio::test]
async fn the_highest_priority_wins() {
    let (at, log) = winner(
        "registries: [{address: '{0}', priority: 10}, {address: '{1}', priority: 700}, {address: '{2}'}]",
    )
    .await;
    assert_eq!(at, 1, "{log}");
    let line = log
        .lines()
        .find(|line| line.contains("priority match:"))
        .unwrap();
    assert!(
        line.contains("priority match: image=docker.io/team/app:1 action=PullImage matched_registry=127.0.0.1:")
            && line.contains("priority=700 result=127.0.0.1:"),
        "{line}"
    );
}

#[tokio::test]
async fn a_clamped_negative_priority_is_the_lowest_and_zero_is_the_default() {
    let (at, log) = winner(
        "registries: [{address: '{0}', priority: -5}, {address: '{1}', priority: 0}, {address: '{2}', priority: 499}]",
    )
    .await;
    assert_eq!(at, 1, "{log}");
    assert!(log.contains("-5 is out of range; 0 is used"), "{log}");
}

#[tokio::test]
async fn too_high_a_priority_is_ten_thousand() {
    let (at, log) = winner(
        "registries: [{address: '{0}', priority: 9999}, {address: '{1}', priority: 1000000}, {address: '{2}', priority: 10000}]",
    )
    .await;
    // A tie at 10000 then, which the lower port wins.
    assert_ne!(at, 0, "{log}");
    assert!(
        log.contains("1000000 is out of range; 10000 is used"),
        "{log}"
    );
}

#[tokio::test]
async fn the_offline_registry_comes_first_by_default_and_in_a_tie() {
    let (at, _) =
        winner("address: '{2}'\nregistries: [{address: '{0}', priority: 999}, {address: '{1}'}]")
            .await;
    assert_eq!(at, 2);
    let (at, _) =
        winner("address: '{2}'\nregistries: [{address: '{0}', priority: 1000}, {address: '{1}'}]")
            .await;
    assert_eq!(at, 2);
}

#[tokio::test]
async fn offline_priority_lowers_and_raises_it() {
    let (at, _) = winner("address: '{2}'\nofflinePriority: 1\nregistries: [{address: '{0}'}, {address: '{1}', priority: 2}]").await;
    assert_eq!(at, 0);
    let (at, _) = winner(
        "address: '{2}'\nofflinePriority: 5000\nregistries: [{address: '{0}', priority: 4999}]",
    )
    .await;
    assert_eq!(at, 2);
}

#[tokio::test]
async fn ties_on_one_host_go_by_port() {
    let (registries, ids) = three().await;
    let list: Vec<_> = registries
        .iter()
        .map(|r| format!("{{address: '{}'}}", r.url()))
        .collect();
    let all: Vec<_> = registries.iter().collect();
    let world = World::start(&format!("registries: [{}]", list.join(", ")), &all).await;
    let id = world.pull("quay.io/team/app:1").await;
    let lowest = (0..3)
        .min_by_key(|at| registries[*at].address().port())
        .unwrap();
    assert_eq!(id, ids[lowest]);
}

#[tokio::test]
async fn a_registry_with_a_path_is_asked_below_it() {
    let image = Image::new("below a path");
    let registry = registry_with(&image, "proxy/cache/library/app", "1").await;
    let config = format!(
        "registries: [{{address: '{}/proxy/cache'}}]",
        registry.url()
    );
    let world = World::start(&config, &[&registry]).await;
    assert_eq!(world.pull("app:1").await, image.id());
    assert_eq!(
        registry.recording().count(
            |r| r.path == "/v2/proxy/cache/library/app/manifests/1" && !r.is_from_containerd()
        ),
        1
    );
}

#[tokio::test]
async fn a_private_registry_by_its_credentials() {
    let image = Image::new("private");
    let registry = DockerRegistry::with_password("admin", "pass:word")
        .await
        .unwrap();
    registry.push(&image, "team/app", "1").await.unwrap();
    let config = format!("address: {}\nauth: 'admin:pass:word'", registry.url());
    let world = World::start(&config, &[&registry]).await;
    assert_eq!(world.pull("ghcr.io/team/app:1").await, image.id());
    assert!(
        !world.shim.log().contains("pass:word"),
        "{}",
        world.shim.log()
    );
}

#[tokio::test]
async fn a_tls_registry_by_its_ca() {
    let ca = Ca::new().unwrap();
    let cert = ca.issue(&["127.0.0.1"]).unwrap();
    let image = Image::new("by tls");
    let registry = DockerRegistry::with_tls(&cert).await.unwrap();
    registry.push(&image, "team/app", "1").await.unwrap();
    let containerd = Containerd::start().await.unwrap();
    containerd.allow_ca(&registry.host(), &ca.pem()).unwrap();
    let ca_file = containerd.dir().join("ca-of-the-test.pem");
    std::fs::write(&ca_file, ca.pem()).unwrap();
    let config = |tls: &str| format!("registries: [{{address: '{}'{tls}}}]", registry.url());
    let with_ca = config(&format!(", caFile: {}", ca_file.display()));
    let mut shim = Shim::start(&with_ca, Options::new(BINARY, containerd.socket()))
        .await
        .unwrap();
    shim.client()
        .pull("ghcr.io/team/app:1", None)
        .await
        .unwrap();
    let status = shim.client().status("ghcr.io/team/app:1").await.unwrap();
    assert_eq!(status.unwrap().id, image.id());
    // Without its CA it is not believed, and the log says what to do.
    shim.write_config(&config("")).unwrap();
    shim.restart().await.unwrap();
    let _ = shim.client().pull("invalid.test/team/app:1", None).await;
    let line = shim.wait_for_log("circuit open: ").await;
    assert!(line.contains("set caFile for this registry"), "{line}");
}

#[tokio::test]
async fn digests_are_pinned() {
    let (right, wrong) = (Image::new("the right one"), Image::new("another one"));
    // The better registry has other content under the tag, the worse one has what was pinned.
    let better = registry_with(&wrong, "team/app", "1").await;
    let worse = registry_with(&right, "team/app", "1").await;
    let config = format!(
        "registries: [{{address: '{}', priority: 900}}, {{address: '{}'}}]",
        better.url(),
        worse.url()
    );
    let world = World::start(&config, &[&better, &worse]).await;
    let digest = &right.manifest_digest;
    assert_eq!(
        world.pull(&format!("ghcr.io/team/app@{digest}")).await,
        right.id()
    );
    assert_eq!(
        world.pull(&format!("ghcr.io/team/app:1@{digest}")).await,
        right.id()
    );
    assert_eq!(world.pull("ghcr.io/team/app:1").await, wrong.id());
}

#[tokio::test]
async fn all_spellings_of_a_name_are_one_image() {
    let image = Image::new("spellings");
    let registry = registry_with(&image, "library/app", "1").await;
    let world = World::start(&format!("address: {}", registry.url()), &[&registry]).await;
    assert_eq!(world.pull("app:1").await, image.id());
    for spelling in [
        "docker.io/app:1",
        "index.docker.io/library/app:1",
        "library/app:1",
    ] {
        assert_eq!(
            world.id_of(spelling).await.as_deref(),
            Some(image.id()),
            "{spelling}"
        );
        assert_eq!(world.pull(spelling).await, image.id());
    }
    assert_eq!(probes(&registry), 1);
}

#[tokio::test]
async fn both_versions_of_the_api_are_routed() {
    use testkit::cri_client::ApiVersion;
    let image = Image::new("old api");
    let registry = registry_with(&image, "team/app", "1").await;
    let world = World::start(&format!("address: {}", registry.url()), &[&registry]).await;
    let old = world.client().with_version(ApiVersion::V1Alpha2);
    old.pull("ghcr.io/team/app:1", None).await.unwrap();
    assert_eq!(
        old.status("ghcr.io/team/app:1").await.unwrap().unwrap().id,
        image.id()
    );
    assert_eq!(old.version().await.unwrap().runtime_name, "containerd");
    old.remove("ghcr.io/team/app:1").await.unwrap();
    assert_eq!(world.id_of("ghcr.io/team/app:1").await, None);
}

#[tokio::test]
async fn a_redirected_image_is_pulled_from_the_target() {
    let image = Image::new("redirected");
    let registry = registry_with(&image, "docker-mirror/nats", "2.10.26-alpine").await;
    let config = format!(
        "imageRedirMapping: [{{src: docker.io/, to: '{}/docker-mirror/'}}]",
        registry.url()
    );
    let world = World::start(&config, &[&registry]).await;
    assert_eq!(world.pull("nats:2.10.26-alpine").await, image.id());
    world.client().remove("nats:2.10.26-alpine").await.unwrap();
    assert_eq!(world.id_of("nats:2.10.26-alpine").await, None);
}
