//! Images from a mirror under the names that were asked for: in containerd, where they outlive the shim, and
//! in the answers of the shim in front of runtimes that can't keep them.

use bytes::Bytes;
use prost::Message;
use testkit::containerd::Containerd;
use testkit::cri_api::{Image as CriImage, ListImagesRequest, ListImagesResponse};
use testkit::docker_registry::DockerRegistry;
use testkit::images::Image;
use tokio::process::Command;

use crate::world::{World, registry_with, with_fake_runtime};

const ORIGINAL: &str = "docker.io/library/nginx:1.27";

async fn world(image: &Image, config: &str) -> (World, DockerRegistry) {
    let registry = registry_with(image, "library/nginx", "1.27").await;
    let config = format!("address: {}\n{config}", registry.url());
    let world = World::start(&config, &[&registry]).await;
    (world, registry)
}

/// What containerd itself, without the shim, has under a name.
async fn id_at(containerd: &Containerd, name: &str) -> Option<String> {
    let status = containerd.client().status(name).await.unwrap();
    status.map(|image| image.id)
}

/// containerd's own client, in the namespace of the CRI; what it prints.
async fn ctr(containerd: &Containerd, args: &[&str]) -> String {
    let mut command = Command::new(&containerd.tools().ctr);
    command.arg("-a").arg(containerd.socket());
    let output = command.args(["-n", "k8s.io"]).args(args).output().await;
    let output = output.unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// All names that containerd has, without those that are image IDs.
async fn names(containerd: &Containerd) -> Vec<String> {
    let list = ctr(containerd, &["images", "ls", "-q"]).await;
    let names = list.lines().filter(|name| !name.starts_with("sha256:"));
    names.map(str::to_owned).collect()
}

fn at_digest(name: &str, image: &Image) -> String {
    format!("{name}@{}", image.manifest_digest)
}

#[tokio::test]
async fn they_outlive_the_shim_and_a_restart_of_containerd() {
    let image = Image::new("original names");
    let (mut world, registry) = world(&image, "").await;
    assert_eq!(world.pull("nginx:1.27").await, image.id());
    world.shim.kill().unwrap();
    let by_digest = at_digest("docker.io/library/nginx", &image);
    for _ in 0..2 {
        for name in [ORIGINAL, "nginx:1.27", &by_digest] {
            let id = id_at(&world.containerd, name).await;
            assert_eq!(id.as_deref(), Some(image.id()), "{name}");
        }
        let list = world.containerd.client().list().await.unwrap();
        assert_eq!(list.len(), 1);
        let mirrors = format!("{}/library/nginx:1.27", registry.host());
        for tag in [ORIGINAL, &mirrors] {
            assert!(list[0].repo_tags.iter().any(|t| t == tag), "{list:?}");
        }
        assert!(list[0].repo_digests.contains(&by_digest), "{list:?}");
        world.containerd.restart().await.unwrap();
    }
}

#[tokio::test]
async fn a_name_with_a_digest_is_known_by_the_digest_only() {
    let image = Image::new("by digest");
    let (world, _registry) = world(&image, "").await;
    let name = at_digest("nginx:1.27", &image);
    assert_eq!(world.pull(&name).await, image.id());
    let by_digest = at_digest("docker.io/library/nginx", &image);
    let id = id_at(&world.containerd, &by_digest).await;
    assert_eq!(id.as_deref(), Some(image.id()));
    assert_eq!(id_at(&world.containerd, ORIGINAL).await, None);
}

#[tokio::test]
async fn a_removal_by_any_name_or_by_id_leaves_no_name_behind() {
    let image = Image::new("removed");
    let (world, registry) = world(&image, "").await;
    let mirrors = format!("{}/library/nginx:1.27", registry.host());
    let by_digest = at_digest("docker.io/library/nginx", &image);
    for name in ["nginx:1.27", &mirrors, &by_digest, image.id()] {
        for through_the_shim in [true, false] {
            world.pull("nginx:1.27").await;
            assert!(!names(&world.containerd).await.is_empty());
            let client = if through_the_shim {
                world.client()
            } else {
                world.containerd.client()
            };
            client.remove(name).await.unwrap();
            assert_eq!(
                names(&world.containerd).await,
                Vec::<String>::new(),
                "{name}"
            );
            assert_eq!(world.id_of("nginx:1.27").await, None);
        }
    }
}

#[tokio::test]
async fn a_name_moves_with_a_pull_of_that_very_name_and_keeps_its_labels() {
    let (old, new) = (Image::new("old"), Image::new("new"));
    let (world, first) = world(&old, "").await;
    world.pull("nginx:1.27").await;
    let pinned = "io.cri-containerd.pinned=pinned";
    ctr(&world.containerd, &["images", "label", ORIGINAL, pinned]).await;
    ctr(
        &world.containerd,
        &["images", "tag", ORIGINAL, "example.com/foreign:1"],
    )
    .await;
    // Another mirror, with another image.
    let second = registry_with(&new, "library/nginx", "1.27").await;
    world.containerd.allow_http(&second.host()).unwrap();
    let config = format!(
        "registries: [{{address: '{}', priority: 900}}, {{address: '{}'}}]",
        second.url(),
        first.url()
    );
    world.shim.write_config(&config).unwrap();
    world
        .shim
        .wait_for_log("reloaded shim auth configuration")
        .await;
    assert_eq!(world.pull("nginx:1.27").await, new.id());
    let at = |name: &'static str| id_at(&world.containerd, name);
    assert_eq!(at(ORIGINAL).await.as_deref(), Some(new.id()));
    // What others named is theirs.
    assert_eq!(at("example.com/foreign:1").await.as_deref(), Some(old.id()));
    let by_digest = at_digest("docker.io/library/nginx", &new);
    let id = id_at(&world.containerd, &by_digest).await;
    assert_eq!(id.as_deref(), Some(new.id()));
    let listed = ctr(&world.containerd, &["images", "ls"]).await;
    let line = listed
        .lines()
        .find(|line| line.starts_with(ORIGINAL))
        .unwrap();
    assert!(line.contains(pinned), "{line}");
}

#[tokio::test]
async fn original_names_can_be_turned_off() {
    let image = Image::new("off");
    let (world, registry) = world(&image, "originalNames: false").await;
    assert_eq!(world.pull("nginx:1.27").await, image.id());
    let host = registry.host();
    for name in names(&world.containerd).await {
        assert!(name.starts_with(&host), "{name}");
    }
}

#[tokio::test]
async fn the_mirrors_names_can_be_dropped() {
    let image = Image::new("only the original");
    let (world, _registry) = world(&image, "keepMirrorNames: false").await;
    assert_eq!(world.pull("nginx:1.27").await, image.id());
    let mut expected = [
        ORIGINAL.to_owned(),
        at_digest("docker.io/library/nginx", &image),
    ];
    expected.sort();
    assert_eq!(names(&world.containerd).await, expected);
    let list = world.containerd.client().list().await.unwrap();
    assert_eq!(list[0].repo_tags, [ORIGINAL]);
    // And once more: it is there already.
    assert_eq!(world.pull("nginx:1.27").await, image.id());
    assert_eq!(names(&world.containerd).await, expected);
}

#[tokio::test]
async fn an_image_that_is_removed_meanwhile_is_not_named() {
    let image = Image::new("gone");
    let registry = registry_with(&image, "team/app", "1").await;
    for looks in [0, 1] {
        let (shim, runtime) = with_fake_runtime(&format!("address: {}", registry.url())).await;
        runtime.keep_names();
        runtime.vanish(&format!("{}/team/app:1", registry.host()), looks);
        shim.client()
            .pull("ghcr.io/team/app:1", None)
            .await
            .unwrap();
        assert_eq!(
            runtime.names(),
            Vec::<String>::new(),
            "gone after {looks} looks"
        );
        assert_eq!(
            runtime.count("Create"),
            2 * looks,
            "not named, or no longer"
        );
    }
}

fn tags(images: &[CriImage]) -> Vec<&str> {
    let tags = images.iter().flat_map(|image| &image.repo_tags);
    tags.map(String::as_str).collect()
}

#[tokio::test]
async fn a_runtime_that_cant_keep_them_shows_them_in_its_answers() {
    let image = Image::new("shown");
    let registry = registry_with(&image, "team/app", "1").await;
    let config = format!("address: {}", registry.url());
    let (mut shim, runtime) = with_fake_runtime(&config).await;
    runtime.add_image("quay.io/other:1");
    shim.client()
        .pull("ghcr.io/team/app:1", None)
        .await
        .unwrap();
    let mirrors = format!("{}/team/app:1", registry.host());
    let expected = [mirrors.as_str(), "ghcr.io/team/app:1", "quay.io/other:1"];
    // Also by a shim that has just started.
    for _ in 0..2 {
        let client = shim.client();
        assert_eq!(tags(&client.list().await.unwrap()), expected);
        let status = client.status("ghcr.io/team/app:1").await.unwrap().unwrap();
        assert_eq!(status.repo_tags, expected[..2]);
        let filtered = client.list_filtered(Some("ghcr.io/team/app:1")).await;
        filtered.unwrap();
        let requests = runtime.requests();
        let asked = ListImagesRequest::decode(&requests.last().unwrap().message[..]).unwrap();
        let asked = asked.filter.unwrap().image.unwrap().image;
        assert_eq!(asked, mirrors, "the runtime is asked for what it knows");
        shim.restart().await.unwrap();
    }
    // A stream has one message for each image.
    let path = shim.client().path("ImageService", "StreamImages");
    let messages = shim.client().stream(&path, Bytes::new()).await.unwrap();
    assert_eq!(messages.len(), 2);
    let images: Vec<CriImage> = messages
        .iter()
        .flat_map(|message| ListImagesResponse::decode(&message[..]).unwrap().images)
        .collect();
    assert_eq!(tags(&images), expected);
    shim.write_config(&format!("{config}\noriginalNames: false"))
        .unwrap();
    shim.restart().await.unwrap();
    let list = shim.client().list().await.unwrap();
    assert_eq!(tags(&list), [mirrors.as_str(), "quay.io/other:1"]);
}
