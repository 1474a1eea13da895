//! Many requests at once.

use futures_util::future::join_all;
use testkit::images::Image;

use crate::world::{World, probes, registry_with, with_fake_runtime};

#[tokio::test]
async fn two_hundred_pulls_of_one_image_ask_each_registry_once() {
    let image = Image::new("popular");
    let empty = testkit::docker_registry::DockerRegistry::plain()
        .await
        .unwrap();
    let full = registry_with(&image, "team/app", "1").await;
    let config = format!(
        "registries: [{{address: '{}', priority: 900}}, {{address: '{}'}}]",
        empty.url(),
        full.url()
    );
    let world = World::start(&config, &[&empty, &full]).await;
    // What one pull leaves open (connections that are kept) is no leak.
    world.pull("ghcr.io/team/app:1").await;
    let before = world.shim.open_fds().unwrap();
    world.client().remove("ghcr.io/team/app:1").await.unwrap();
    full.push(&Image::new("another"), "team/other", "1")
        .await
        .unwrap();
    empty.recording().clear();
    full.recording().clear();
    let client = world.client();
    let pulls = (0..200).map(|_| client.pull("ghcr.io/team/other:1", None));
    for pulled in join_all(pulls).await {
        pulled.unwrap();
    }
    assert_eq!((probes(&empty), probes(&full)), (1, 1));
    let after = testkit::wait::within(testkit::wait::TIMEOUT, async || {
        let now = world.shim.open_fds().unwrap();
        (now <= before).then_some(now)
    });
    assert!(
        after.await.is_some(),
        "{before} before, {:?} after",
        world.shim.open_fds()
    );
}

#[tokio::test]
async fn an_image_that_nobody_has_is_asked_for_once_too() {
    let empty = testkit::docker_registry::DockerRegistry::plain()
        .await
        .unwrap();
    let (shim, runtime) = with_fake_runtime(&format!("address: {}", empty.url())).await;
    let client = shim.client();
    let pulls = (0..200).map(|_| client.pull("ghcr.io/team/app:1", None));
    for pulled in join_all(pulls).await {
        pulled.unwrap();
    }
    assert_eq!(probes(&empty), 1);
    assert!(!runtime.requests().is_empty());
}
