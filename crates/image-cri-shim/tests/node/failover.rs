//! Pulls that fail at the best source.

use http::StatusCode;
use testkit::certs::Ca;
use testkit::containerd::Containerd;
use testkit::cri_api::RpcStatus;
use testkit::docker_registry::DockerRegistry;
use testkit::fake_registry::FakeRegistry;
use testkit::images::Image;
use testkit::shim::{Options, Shim};
use testkit::wait;

use crate::world::{BINARY, World, probes, registry_with, with_fake_runtime};

#[tokio::test]
async fn a_mirror_that_fails_blobs_is_passed_over_and_not_asked_again() {
    let image = Image::new("half-synced");
    let mirror = registry_with(&image, "team/app", "1").await;
    mirror.fail("/blobs/", StatusCode::NOT_FOUND);
    let good = registry_with(&image, "team/app", "1").await;
    let config = format!(
        "registries: [{{address: '{}', priority: 900}}, {{address: '{}'}}]\ncache: {{negativeTTL: 1h}}",
        mirror.url(),
        good.url()
    );
    let world = World::start(&config, &[&mirror, &good]).await;
    assert_eq!(world.pull("ghcr.io/team/app:1").await, image.id());
    let matched = world.shim.wait_for_log("priority match:").await;
    assert!(
        matched.contains(&format!("tried: {}: pull failed: ", mirror.url())),
        "{matched}"
    );
    assert!(
        matched.contains(&format!("matched_registry={} ", good.host())),
        "{matched}"
    );
    world.client().remove("ghcr.io/team/app:1").await.unwrap();
    mirror.recording().clear();
    assert_eq!(world.pull("ghcr.io/team/app:1").await, image.id());
    assert!(mirror.recording().is_empty(), "{:?}", mirror.requests());
}

#[tokio::test]
async fn the_origin_is_tried_when_every_mirror_fails() {
    let image = Image::new("at the origin");
    let mirror = registry_with(&image, "team/app", "1").await;
    mirror.fail("/blobs/", StatusCode::INTERNAL_SERVER_ERROR);
    let origin = registry_with(&image, "team/app", "1").await;
    let world = World::start(&format!("address: {}", mirror.url()), &[&mirror, &origin]).await;
    let name = format!("{}/team/app:1", origin.host());
    assert_eq!(world.pull(&name).await, image.id());
    let tags = world
        .containerd
        .client()
        .list()
        .await
        .unwrap()
        .remove(0)
        .repo_tags;
    assert_eq!(tags, [name]);
}

#[tokio::test]
async fn a_registry_that_only_the_runtime_can_talk_to_is_the_last_resort() {
    // The runtime knows its CA, the shim does not; the origin doesn't exist.
    let ca = Ca::new().unwrap();
    let image = Image::new("by the runtime alone");
    let registry = DockerRegistry::with_tls(&ca.issue(&["127.0.0.1"]).unwrap())
        .await
        .unwrap();
    registry.push(&image, "team/app", "1").await.unwrap();
    let containerd = Containerd::start().await.unwrap();
    containerd.allow_ca(&registry.host(), &ca.pem()).unwrap();
    let mut gone = DockerRegistry::plain().await.unwrap();
    containerd.allow_http(&gone.host()).unwrap();
    gone.stop().await;
    let config = format!("address: {}", registry.url());
    let shim = Shim::start(&config, Options::new(BINARY, containerd.socket()))
        .await
        .unwrap();
    let name = format!("{}/team/app:1", gone.host());
    shim.client().pull(&name, None).await.unwrap();
    assert_eq!(
        shim.client().status(&name).await.unwrap().unwrap().id,
        image.id()
    );
    assert_eq!(
        probes(&registry),
        0,
        "no request comes through a handshake that fails"
    );
}

#[tokio::test]
async fn cancelling_a_pull_cancels_it_in_the_runtime() {
    let image = Image::new("cancelled");
    let registry = registry_with(&image, "team/app", "1").await;
    let (shim, runtime) = with_fake_runtime(&format!("address: {}", registry.url())).await;
    runtime.hang("PullImage");
    let client = shim.client();
    let pull = tokio::spawn(async move { client.pull("ghcr.io/team/app:1", None).await });
    wait::until("the runtime has the pull", async || {
        runtime
            .requests()
            .iter()
            .any(|request| request.path.ends_with("/PullImage"))
            .then_some(())
    })
    .await;
    pull.abort();
    wait::until("the runtime sees the cancellation", async || {
        (runtime.cancellations() > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_pull_that_hangs_ends_with_timeout_and_the_next_goes_elsewhere() {
    let image = Image::new("hanging");
    let (first, second) = (
        registry_with(&image, "team/app", "1").await,
        registry_with(&image, "team/app", "1").await,
    );
    let config = format!(
        "timeout: 5s\nregistries: [{{address: '{}', priority: 900}}, {{address: '{}'}}]",
        first.url(),
        second.url()
    );
    let (shim, runtime) = with_fake_runtime(&config).await;
    runtime.hang("PullImage");
    let error = shim
        .client()
        .pull("ghcr.io/team/app:1", None)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(4), "{error:?}");
    runtime.answer("PullImage");
    runtime.clear_requests();
    shim.client()
        .pull("ghcr.io/team/app:1", None)
        .await
        .unwrap();
    let asked = String::from_utf8_lossy(&runtime.requests()[0].message).into_owned();
    assert!(asked.contains(&second.host()), "{asked}");
}

#[tokio::test]
async fn a_silent_registry_does_not_hold_up_the_next_that_has_the_image() {
    let image = Image::new("beside a silent one");
    let [broken, good, silent] = [(); 3].map(|()| FakeRegistry::start().unwrap());
    for registry in [&broken, &good] {
        registry.add(&image, "team/app", "1");
    }
    silent.set_black_hole(true);
    // Without a memory too: nothing but this pull itself knows then what has failed.
    for cache in ["", "cache: {imageCacheSize: -1}"] {
        let config = format!(
            "probeTimeout: 1h\nregistries: [{{address: '{}', priority: 900}}, {{address: '{}', priority: 800}}, {{address: '{}'}}]\n{cache}",
            broken.url(),
            good.url(),
            silent.url()
        );
        let (shim, runtime) = with_fake_runtime(&config).await;
        let status = RpcStatus {
            code: 5,
            message: "blob unknown".to_owned(),
            details: Vec::new(),
        };
        runtime.fail(&format!("{}/team/app:1", broken.host()), status);
        let client = shim.client();
        let pulled = wait::within(wait::TIMEOUT, || async {
            Some(client.pull("ghcr.io/team/app:1", None).await)
        });
        pulled.await.expect("an answer").unwrap();
        let line = shim.wait_for_log("priority match:").await;
        assert!(line.contains(&format!("result={}", good.host())), "{line}");
    }
}

#[tokio::test]
async fn a_registry_that_is_back_while_a_pull_fails_is_used_and_no_call_hangs() {
    let image = Image::new("back in time");
    // Without a memory too: then the rest would be asked again and again.
    for cache in ["", "cache: {imageCacheSize: -1}"] {
        let [mut back, broken, silent] = [(); 3].map(|()| FakeRegistry::start().unwrap());
        for registry in [&back, &broken] {
            registry.add(&image, "team/app", "1");
        }
        back.stop().await;
        silent.set_black_hole(true);
        let config = format!(
            "probeTimeout: 1h\nregistries: [{{address: '{}', priority: 900}}, {{address: '{}', priority: 800}}, {{address: '{}'}}]\n{cache}",
            back.url(),
            broken.url(),
            silent.url()
        );
        let (shim, runtime) = with_fake_runtime(&config).await;
        let status = RpcStatus {
            code: 2,
            message: "blob unknown".to_owned(),
            details: Vec::new(),
        };
        runtime.fail(&format!("{}/team/app:1", broken.host()), status);
        runtime.hang("PullImage");
        let client = shim.client();
        let pull = tokio::spawn(async move { client.pull("ghcr.io/team/app:1", None).await });
        wait::until("the runtime has the pull", async || {
            (runtime.count("PullImage") > 0).then_some(())
        })
        .await;
        back.start_again().unwrap();
        shim.wait_for_log("circuit closed").await;
        runtime.answer("PullImage");
        let pulled = tokio::time::timeout(wait::TIMEOUT, pull).await;
        pulled.expect("an answer").unwrap().unwrap();
        let line = shim.wait_for_log("priority match:").await;
        assert!(line.contains(&format!("result={}", back.host())), "{line}");
    }
}

#[tokio::test]
async fn a_place_that_a_pull_has_failed_from_is_tried_again_when_nothing_else_is_left() {
    let image = Image::new("mended");
    let mirror = registry_with(&image, "team/app", "1").await;
    let mut gone = DockerRegistry::plain().await.unwrap();
    gone.stop().await;
    let name = format!("{}/team/app:1", gone.host());
    for fallback in [true, false] {
        let config = format!(
            "address: {}\nfallbackToOrigin: {fallback}\ncache: {{negativeTTL: 1h}}",
            mirror.url()
        );
        let world = World::start(&config, &[&mirror, &gone]).await;
        mirror.fail("/blobs/", StatusCode::TOO_MANY_REQUESTS);
        world.client().pull(&name, None).await.unwrap_err();
        mirror.fail_nothing();
        assert_eq!(world.pull(&name).await, image.id());
    }
}

#[tokio::test]
async fn a_runtime_that_is_starting_is_no_failure_of_a_registry() {
    let image = Image::new("at both");
    let (first, second) = (
        registry_with(&image, "team/app", "1").await,
        registry_with(&image, "team/app", "1").await,
    );
    let config = format!(
        "registries: [{{address: '{}', priority: 900}}, {{address: '{}'}}]",
        first.url(),
        second.url()
    );
    let (shim, runtime) = with_fake_runtime(&config).await;
    let starting = RpcStatus {
        code: 2,
        message: "server is not initialized yet".to_owned(),
        details: Vec::new(),
    };
    runtime.fail("PullImage", starting);
    let client = shim.client();
    let error = client.pull("ghcr.io/team/app:1", None).await.unwrap_err();
    assert_eq!(error.message(), "server is not initialized yet");
    assert_eq!(runtime.count("PullImage"), 1, "one question is enough");
    runtime.answer("PullImage");
    client.pull("ghcr.io/team/app:1", None).await.unwrap();
    let line = shim.wait_for_log("priority match:").await;
    assert!(line.contains(&format!("result={}", first.host())), "{line}");
}
