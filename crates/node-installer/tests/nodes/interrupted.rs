//! Pods and nodes that end while their node is being changed, and an API server that is not there.

use std::sync::atomic::Ordering;

use node_installer::Progress;
use testkit::fake_api_server::ApiFault;
use testkit::wait;

use crate::world::{Change, TreeNode, World};

fn change() -> Change {
    Change::install("0.1.0")
}

/// Starts `node`, whose change stops in the middle.
async fn in_the_middle(world: &World, node: &TreeNode) -> crate::world::Pod {
    node.behaviour.stops.store(true, Ordering::SeqCst);
    let pod = node.start(world, change());
    world.until_held_by(&node.name).await;
    wait::until("the change to begin", || async {
        (node.changes() > 0).then_some(())
    })
    .await;
    pod
}

#[tokio::test]
async fn sigterm_in_the_middle_finishes_the_change_and_gives_the_lease_back() {
    let world = World::new();
    let node = TreeNode::new("node-1");
    let mut pod = in_the_middle(&world, &node).await;
    pod.terminate();
    assert_eq!(world.holder().as_deref(), Some("node-1"));
    node.behaviour.go_on.notify_one();
    pod.ended().await;
    assert_eq!(node.installed().as_deref(), Some("0.1.0"));
    assert_eq!(world.holder(), None);
}

#[tokio::test]
async fn sigterm_while_waiting_ends_at_once_and_leaves_the_lease_alone() {
    let world = World::new();
    let (first, second) = (TreeNode::new("node-1"), TreeNode::new("node-2"));
    let _first = in_the_middle(&world, &first).await;
    let mut pod = second.start(&world, change());
    pod.until("waiting", |progress| {
        progress.to_string() == "waiting: node node-1 is being changed"
    })
    .await;
    pod.terminate();
    pod.ended().await;
    assert!(second.is_untouched());
    assert_eq!(world.holder().as_deref(), Some("node-1"));
}

/// A node that loses its power in the middle may have lost it by what was changed: it counts as failed, nobody goes
/// on with the same change, and it goes on by itself when it is back.
#[tokio::test]
async fn a_node_that_dies_in_the_middle_counts_as_failed_until_it_is_back() {
    let world = World::new();
    let (first, second) = (TreeNode::new("node-1"), TreeNode::new("node-2"));
    let pod = in_the_middle(&world, &first).await;
    pod.kill().await;
    let waiting = second.start(&world, change());
    waiting
        .until("sure that node-1 is silent", |progress| {
            progress
                .to_string()
                .contains("node node-1 has begun and gives no sign of life")
        })
        .await;
    assert_eq!(world.holder().as_deref(), Some("node-1"));
    assert!(second.is_untouched());
    // It is back: what was begun is finished, and then it is the other's turn.
    first.behaviour.stops.store(false, Ordering::SeqCst);
    let back = first.start(&world, change());
    back.until_ready().await;
    waiting.until_ready().await;
    assert_eq!(first.installed().as_deref(), Some("0.1.0"));
    assert_eq!(second.installed().as_deref(), Some("0.1.0"));
    assert_eq!(world.most_at_once.load(Ordering::SeqCst), 1);
}

/// The node never comes back. Somebody has looked, and deletes the Lease.
#[tokio::test]
async fn a_lease_that_is_deleted_is_made_anew() {
    let world = World::new();
    let (first, second) = (TreeNode::new("node-1"), TreeNode::new("node-2"));
    in_the_middle(&world, &first).await.kill().await;
    let waiting = second.start(&world, change());
    waiting
        .until("waiting", |progress| {
            matches!(progress, Progress::Waiting(_))
        })
        .await;
    world.delete_lease();
    waiting.until_ready().await;
    assert_eq!(world.holder(), None);
}

/// Another change goes on past a node that died with the one before, which is marked.
#[tokio::test]
async fn another_change_goes_past_a_dead_node() {
    let world = World::new();
    let (first, second) = (TreeNode::new("node-1"), TreeNode::new("node-2"));
    in_the_middle(&world, &first).await.kill().await;
    let pod = second.start(&world, Change::install("0.2.0"));
    pod.until_ready().await;
    assert_eq!(second.installed().as_deref(), Some("0.2.0"));
    let marks = world.marks();
    let (_, text) = marks.first_key_value().unwrap();
    assert!(
        text.ends_with("node node-1: it had begun and gave no sign of life"),
        "{text}"
    );
}

#[tokio::test]
async fn without_an_api_server_nothing_begins_and_what_has_begun_ends() {
    let mut world = World::new();
    let (first, second) = (TreeNode::new("node-1"), TreeNode::new("node-2"));
    let pod = in_the_middle(&world, &first).await;
    world.server.stop().await;
    let waiting = second.start(&world, change());
    waiting
        .until("without an answer", |progress| {
            progress
                .to_string()
                .starts_with("waiting: the Lease can't be read")
        })
        .await;
    first.behaviour.go_on.notify_one();
    wait::until("the change to end", || async {
        (world.at_once.load(Ordering::SeqCst) == 0).then_some(())
    })
    .await;
    assert!(second.is_untouched());
    assert!(!pod.is_ready());
    world.server.restart().unwrap();
    pod.until_ready().await;
    waiting.until_ready().await;
    assert_eq!(second.installed().as_deref(), Some("0.1.0"));
    assert_eq!(world.most_at_once.load(Ordering::SeqCst), 1);
}

/// A node that has what is wanted needs nobody to say so.
#[tokio::test]
async fn a_node_that_is_done_is_ready_without_an_api_server() {
    let world = World::new();
    let node = TreeNode::new("node-1");
    let mut pod = node.start(&world, change());
    pod.until_ready().await;
    pod.terminate();
    pod.ended().await;
    let before = node.snapshot();
    world.server.set_fault(Some(ApiFault::Status(503)));
    let pod = node.start(&world, change());
    pod.until_ready().await;
    assert_eq!(node.changes(), 1);
    assert_eq!(node.snapshot(), before);
}
