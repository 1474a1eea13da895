//! ImageStatus and RemoveImage: by the name that was asked for, without the network.

use prost::Message;
use testkit::cri_api::{ContainerConfig, CreateContainerRequest, ImageSpec, RpcStatus};
use testkit::cri_client::ApiVersion;
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

/// As CRI-O has it without `unqualified-search-registries`, and with several.
#[tokio::test]
async fn a_short_name_that_the_runtime_refuses_is_not_present_or_found_in_another_spelling() {
    let image = Image::new("short");
    let registry = registry_with(&image, "library/app", "1").await;
    let (shim, runtime) = with_fake_runtime(&format!("address: {}", registry.url())).await;
    let refusal = RpcStatus {
        code: 2,
        message: "short-name \"app:1\" did not resolve to an alias".to_owned(),
        details: Vec::new(),
    };
    runtime.refuse_name("app:1", refusal.clone());
    let client = shim.client();
    // Or kubelet would never come to the pull.
    assert_eq!(client.status("app:1").await.unwrap(), None);
    client.remove("app:1").await.unwrap();
    let id = runtime.add_image("docker.io/library/app:1");
    let status = client.status("app:1").await.unwrap();
    assert_eq!(status.map(|image| image.id), Some(id));
    client.remove("app:1").await.unwrap();
    assert_eq!(client.list().await.unwrap(), []);
    client.pull("app:1", None).await.unwrap();
    assert!(client.status("app:1").await.unwrap().is_some());
    // What came from the registry is there by its name there, also for a shim that has forgotten it.
    client.remove("app:1").await.unwrap();
    assert_eq!(client.list().await.unwrap(), []);
    let id = runtime.add_image(&format!("{}/library/app:1", registry.host()));
    let status = client.status("app:1").await.unwrap();
    assert_eq!(status.map(|image| image.id), Some(id));
    // When the runtime refuses every spelling, the caller is told what it says of his own.
    client.remove("app:1").await.unwrap();
    for name in [
        "docker.io/library/app:1".to_owned(),
        format!("{}/library/app:1", registry.host()),
    ] {
        let mut other = refusal.clone();
        other.message = format!("not {name}");
        runtime.refuse_name(&name, other);
    }
    let error = client.status("app:1").await.unwrap_err();
    assert_eq!(error.message(), refusal.message);
}

#[tokio::test]
async fn a_container_is_created_by_the_name_of_an_image_that_came_from_a_mirror() {
    let image = Image::new("created");
    let registry = registry_with(&image, "team/app", "1").await;
    let (shim, runtime) = with_fake_runtime(&format!("address: {}", registry.url())).await;
    shim.client().pull(NAME, None).await.unwrap();
    let mirrors = format!("{}/team/app:1", registry.host());
    let id = runtime.add_image(&mirrors);
    runtime.add_image("quay.io/own:1");
    for version in [ApiVersion::V1, ApiVersion::V1Alpha2] {
        let client = shim.client().with_version(version);
        let path = client.path("RuntimeService", "CreateContainer");
        for (asked, expected) in [
            (NAME, mirrors.as_str()),
            ("quay.io/own:1", "quay.io/own:1"),
            ("quay.io/none:1", "quay.io/none:1"),
            (&id, &id),
        ] {
            runtime.clear_requests();
            let request = create_request(asked);
            let mut message = request.encode_to_vec();
            message.extend([0xa2, 0x06, 1, b'u']); // field 100, not known
            let created = client
                .unary(&path, message.into(), Default::default())
                .await;
            assert_eq!(created.is_ok(), asked != "quay.io/none:1", "{created:?}");
            let requests = runtime.requests();
            let sent = requests.last().unwrap();
            assert_eq!(sent.path, path);
            assert!(sent.message.ends_with(&[0xa2, 0x06, 1, b'u']));
            let sent = CreateContainerRequest::decode(&sent.message[..]).unwrap();
            let mut expected_request = request.clone();
            let config = expected_request.config.as_mut().unwrap();
            expected.clone_into(&mut config.image.as_mut().unwrap().image);
            assert_eq!(sent, expected_request);
            if asked == id {
                assert_eq!(requests.len(), 1, "an ID is not looked for");
            }
        }
    }
}

fn create_request(image: &str) -> CreateContainerRequest {
    let spec = ImageSpec {
        image: image.to_owned(),
        user_specified_image: NAME.to_owned(),
        ..ImageSpec::default()
    };
    CreateContainerRequest {
        pod_sandbox_id: "sandbox".to_owned(),
        config: Some(ContainerConfig {
            image: Some(spec),
            command: vec!["/app".to_owned()],
            ..ContainerConfig::default()
        }),
        sandbox_config: Some(b"\x0a\x00".to_vec()),
    }
}
