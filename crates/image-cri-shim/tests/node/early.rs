//! A pull that begins while registries are still asked who has the image.

use std::time::Duration;

use testkit::docker_registry::DockerRegistry;
use testkit::fake_registry::{Behaviour, FakeRegistry};
use testkit::images::Image;
use testkit::recording::Recording;
use testkit::wait;

use crate::world::{World, registry_with};

fn config(better: &str, other: &str) -> String {
    format!(
        "registries: [{{address: '{better}', priority: 900}}, {{address: '{other}'}}]\nprobeTimeout: 60s"
    )
}

/// containerd's requests for blobs, in the order of their paths.
fn blobs(recording: &Recording) -> Vec<String> {
    let asked = recording
        .matching(|request| request.is_from_containerd() && request.path.contains("/blobs/"));
    let mut paths: Vec<_> = asked.into_iter().map(|request| request.path).collect();
    paths.sort_unstable();
    paths
}

#[tokio::test]
async fn the_next_image_of_a_repository_is_pulled_while_others_are_asked() {
    let (first, second) = (Image::new("first"), Image::new("second"));
    let mut better = DockerRegistry::plain().await.unwrap();
    let last = registry_with(&first, "team/app", "1").await;
    last.push(&second, "team/app", "2").await.unwrap();
    let config = config(&better.url(), &last.url());
    let world = World::start(&config, &[&better, &last]).await;
    assert_eq!(world.pull("ghcr.io/team/app:1").await, first.id());
    last.recording().clear();
    better.set_black_hole(true);
    let client = world.client();
    let pull = tokio::spawn(async move { client.pull("ghcr.io/team/app:2", None).await });
    // The better one has not answered: containerd pulls already.
    wait::until("containerd has asked for a blob", || async {
        (!blobs(last.recording()).is_empty()).then_some(())
    })
    .await;
    better.stop().await;
    pull.await.unwrap().unwrap();
    assert_eq!(
        world.id_of("ghcr.io/team/app:2").await.as_deref(),
        Some(second.id())
    );
    let asked = blobs(last.recording());
    let mut once = asked.clone();
    once.dedup();
    assert_eq!(asked, once, "one pull, not two");
    let matched = world
        .shim
        .wait_for_log("image=ghcr.io/team/app:2 action=PullImage matched_registry=")
        .await;
    assert!(matched.contains(&format!("={} ", last.host())), "{matched}");
}

#[tokio::test]
async fn an_early_pull_is_called_off_when_a_better_registry_has_the_image() {
    let (first, theirs) = (Image::new("first"), Image::new("theirs"));
    let ours = Image::new("ours");
    let better = DockerRegistry::plain().await.unwrap();
    better.push(&ours, "team/app", "2").await.unwrap();
    let last = FakeRegistry::start().unwrap();
    last.add(&first, "team/app", "1");
    last.add(&theirs, "team/app", "2");
    let config = config(&better.url(), &last.url());
    let world = World::start(&config, &[&better]).await;
    world.containerd.allow_http(&last.host()).unwrap();
    assert_eq!(world.pull("ghcr.io/team/app:1").await, first.id());
    // What was begun early would never end.
    last.recording().clear();
    last.behave_for_blobs("team/app", Behaviour::Stalled);
    better.set_delay(Duration::from_secs(5));
    let client = world.client();
    let pull = tokio::spawn(async move { client.pull("ghcr.io/team/app:2", None).await });
    wait::until("containerd has asked for a blob", || async {
        (!blobs(last.recording()).is_empty()).then_some(())
    })
    .await;
    better.set_delay(Duration::ZERO);
    pull.await.unwrap().unwrap();
    assert_eq!(
        world.id_of("ghcr.io/team/app:2").await.as_deref(),
        Some(ours.id())
    );
    let list = world.containerd.client().list().await.unwrap();
    assert!(list.iter().all(|image| image.id != theirs.id()), "{list:?}");
    // The repository comes from the better one now, and its next image is begun with there.
    assert_eq!(world.pull("ghcr.io/team/app:2").await, ours.id());
}

#[tokio::test]
async fn an_early_pull_that_was_done_leaves_no_image_that_another_registry_has_better() {
    let (first, theirs) = (Image::new("first"), Image::new("theirs"));
    let ours = Image::new("ours");
    let better = DockerRegistry::plain().await.unwrap();
    let last = registry_with(&first, "team/app", "1").await;
    for tag in ["2", "3"] {
        better.push(&ours, "team/app", tag).await.unwrap();
        last.push(&theirs, "team/app", tag).await.unwrap();
    }
    let config = config(&better.url(), &last.url());
    for (tag, is_there_before) in [("2", false), ("3", true)] {
        // The repository's last image came from the last one.
        let world = World::start(&config, &[&better, &last]).await;
        assert_eq!(world.pull("ghcr.io/team/app:1").await, first.id());
        let name = format!("ghcr.io/team/app:{tag}");
        let at_last = format!("{}/team/app:{tag}", last.host());
        let containerd = world.containerd.client();
        if is_there_before {
            containerd.pull(&at_last, None).await.unwrap();
            last.recording().clear();
        }
        better.set_delay(Duration::from_secs(10));
        let (client, pulled) = (world.client(), name.clone());
        let pull = tokio::spawn(async move { client.pull(&pulled, None).await });
        wait::until("the early pull to be done", || async {
            let manifests = last.recording().count(|request| {
                request.is_from_containerd() && request.path.ends_with(&format!("/manifests/{tag}"))
            });
            let status = containerd.status(&at_last).await.unwrap();
            (manifests > 0 && status.is_some()).then_some(())
        })
        .await;
        better.set_delay(Duration::ZERO);
        pull.await.unwrap().unwrap();
        assert_eq!(world.id_of(&name).await.as_deref(), Some(ours.id()));
        let stays = containerd.status(&at_last).await.unwrap();
        assert_eq!(stays.is_some(), is_there_before);
        if !is_there_before {
            // As kubelet's garbage collection does it.
            containerd.remove(ours.id()).await.unwrap();
            assert_eq!(world.id_of(&name).await, None);
        }
    }
}
