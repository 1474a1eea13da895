//! ImageStatus and RemoveImage: by the name that was asked for, without the network.

use testkit::docker_registry::DockerRegistry;
use testkit::images::Image;

use crate::world::{World, registry_with, with_fake_runtime};

const NAME: &str = "ghcr.io/team/app:1";

async fn pulled() -> (World, DockerRegistry, Image) {
    let image = Image::new("local");
    let registry = registry_with(&image, "team/app", "1").await;
    let world = World::start(&format!("address: {}", registry.url()), &[&registry]).await;
    assert_eq!(world.pull(NAME).await, image.id());
    registry.recording().clear();
    (world, registry, image)
}

#[tokio::test]
async fn an_image_is_present_with_every_registry_stopped_and_after_a_restart() {
    let (mut world, mut registry, image) = pulled().await;
    registry.stop().await;
    assert_eq!(world.id_of(NAME).await.as_deref(), Some(image.id()));
    world.shim.restart().await.unwrap();
    assert_eq!(world.id_of(NAME).await.as_deref(), Some(image.id()));
    // Also without what it remembers, and after it was killed.
    world.shim.kill().unwrap();
    std::fs::remove_dir_all(world.shim.state_dir()).unwrap();
    world.shim.start_again().await.unwrap();
    assert_eq!(world.id_of(NAME).await.as_deref(), Some(image.id()));
    registry.start_again().await.unwrap();
    assert!(registry.recording().is_empty(), "{:?}", registry.requests());
}

#[tokio::test]
async fn an_image_is_present_after_its_registry_has_left_the_config() {
    let (mut world, _registry, image) = pulled().await;
    world.shim.write_config("").unwrap();
    world.shim.restart().await.unwrap();
    assert_eq!(world.id_of(NAME).await.as_deref(), Some(image.id()));
}

#[tokio::test]
async fn an_image_is_removed_by_the_name_it_was_asked_for() {
    let (world, mut registry, _image) = pulled().await;
    registry.stop().await;
    world.client().remove(NAME).await.unwrap();
    assert_eq!(world.id_of(NAME).await, None);
    assert_eq!(world.containerd.client().list().await.unwrap(), []);
    // What is not there is removed as the runtime says.
    world.client().remove(NAME).await.unwrap();
    registry.start_again().await.unwrap();
    assert!(registry.recording().is_empty(), "{:?}", registry.requests());
}

#[tokio::test]
async fn image_ids_pass_through() {
    let (world, registry, image) = pulled().await;
    assert_eq!(world.id_of(image.id()).await.as_deref(), Some(image.id()));
    let bare = image.id().trim_start_matches("sha256:");
    assert_eq!(world.id_of(bare).await.as_deref(), Some(image.id()));
    world.client().remove(image.id()).await.unwrap();
    assert_eq!(world.id_of(NAME).await, None);
    assert!(registry.recording().is_empty(), "{:?}", registry.requests());
}

#[tokio::test]
async fn an_absent_image_is_the_runtimes_own_not_present() {
    let (world, registry, _image) = pulled().await;
    assert_eq!(world.id_of("ghcr.io/team/other:1").await, None);
    assert!(registry.recording().is_empty(), "{:?}", registry.requests());
}

#[tokio::test]
async fn a_routed_image_costs_one_call_to_the_runtime() {
    let image = Image::new("one call");
    let registry = registry_with(&image, "team/app", "1").await;
    let (shim, runtime) = with_fake_runtime(&format!("address: {}", registry.url())).await;
    shim.client().pull(NAME, None).await.unwrap();
    runtime.clear_requests();
    assert!(shim.client().status(NAME).await.unwrap().is_some());
    assert_eq!(runtime.requests().len(), 1);
}
