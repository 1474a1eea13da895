//! Five nodes, of which the second fails.

use std::sync::atomic::Ordering;

use crate::world::{Change, Pod, TreeNode, World};

fn five() -> Vec<TreeNode> {
    (1..=5)
        .map(|n| TreeNode::new(&format!("node-{n}")))
        .collect()
}

/// Starts the Pods one after another, as soon as the one before has had its turn: which node is the first, and
/// which the second, is then known.
async fn started_in_order(world: &World, nodes: &[TreeNode], change: &Change) -> Vec<Pod> {
    let mut pods = Vec::new();
    for node in nodes {
        let pod = node.start(world, change.clone());
        pod.until("at its end or waiting for a failure", |progress| {
            progress.is_done() || progress.to_string().contains("did not work")
        })
        .await;
        pods.push(pod);
    }
    pods
}

#[tokio::test]
async fn the_second_of_five_fails_and_three_are_not_touched() {
    let world = World::new();
    let nodes = five();
    nodes[1].behaviour.is_broken.store(true, Ordering::SeqCst);
    let change = Change::install("0.1.0");
    let mut pods = started_in_order(&world, &nodes, &change).await;

    // The first stays, the second is rolled back, three are untouched.
    assert_eq!(nodes[0].installed().as_deref(), Some("0.1.0"));
    assert!(nodes[1].is_untouched());
    let tried: Vec<usize> = nodes.iter().map(TreeNode::changes).collect();
    assert_eq!(tried, [1, 1, 0, 0, 0]);
    for node in &nodes[2..] {
        assert!(node.is_untouched(), "{}", node.name);
    }
    assert!(pods[0].is_ready());
    for pod in &pods[1..] {
        assert!(!pod.is_ready());
    }
    let marks = world.marks();
    assert_eq!(marks.len(), 1, "{marks:?}");
    let (_, text) = marks.first_key_value().unwrap();
    assert!(
        text.ends_with("node node-2: kubelet did not work through the shim"),
        "{text}"
    );
    assert_eq!(world.holder(), None);

    // Pods deleted and drained, the DaemonSet deleted: nothing is undone, and nothing begun.
    for pod in &mut pods {
        pod.terminate();
    }
    for pod in pods {
        pod.ended().await;
    }
    assert_eq!(nodes[0].installed().as_deref(), Some("0.1.0"));
    assert!(nodes[1..].iter().all(TreeNode::is_untouched));

    // Pods that come back find the mark, and the first node finds itself done without the Lease.
    let versions = world.lease().unwrap()["metadata"]["resourceVersion"].clone();
    let pods = started_in_order(&world, &nodes, &change).await;
    assert_eq!(
        world.lease().unwrap()["metadata"]["resourceVersion"],
        versions
    );
    let tried: Vec<usize> = nodes.iter().map(TreeNode::changes).collect();
    assert_eq!(tried, [1, 1, 0, 0, 0]);

    // The reason is gone and somebody takes the mark away: everybody goes on by himself.
    nodes[1].behaviour.is_broken.store(false, Ordering::SeqCst);
    world.clear_marks();
    for pod in &pods {
        pod.until_ready().await;
    }
    for node in &nodes {
        assert_eq!(node.installed().as_deref(), Some("0.1.0"), "{}", node.name);
    }
    assert_eq!(world.most_at_once.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn all_at_once_is_one_after_another_and_an_upgrade_and_the_way_back_are_too() {
    let world = World::new();
    let nodes = five();
    for change in [
        Change::install("0.1.0"),
        Change::install("0.2.0"),
        Change::Uninstall,
    ] {
        let mut pods: Vec<Pod> = nodes
            .iter()
            .map(|node| node.start(&world, change.clone()))
            .collect();
        for pod in &pods {
            pod.until_ready().await;
        }
        for node in &nodes {
            match &change {
                Change::Install(version) => {
                    assert_eq!(node.installed().as_ref(), Some(version), "{}", node.name);
                }
                Change::Uninstall => assert!(node.is_untouched(), "{}", node.name),
            }
        }
        for pod in &mut pods {
            pod.terminate();
        }
        for pod in pods {
            pod.ended().await;
        }
    }
    assert_eq!(world.most_at_once.load(Ordering::SeqCst), 1);
    assert!(nodes.iter().all(|node| node.changes() == 3));
    // Five nodes wanted the same Lease: writes that came second were refused.
    let refused = world.server.writes();
    assert!(
        refused
            .iter()
            .all(|write| matches!(write.status.as_u16(), 200 | 201 | 409))
    );
}

/// Another version is somebody's decision, and what failed stays marked.
#[tokio::test]
async fn another_version_goes_on_where_the_one_before_has_failed() {
    let world = World::new();
    let nodes = five();
    nodes[1].behaviour.is_broken.store(true, Ordering::SeqCst);
    let old = started_in_order(&world, &nodes, &Change::install("0.1.0")).await;
    nodes[1].behaviour.is_broken.store(false, Ordering::SeqCst);
    // Those of the old version are still there while the new ones come, as during a rollout.
    let new: Vec<Pod> = nodes
        .iter()
        .map(|node| node.start(&world, Change::install("0.2.0")))
        .collect();
    for pod in &new {
        pod.until_ready().await;
    }
    for node in &nodes {
        assert_eq!(node.installed().as_deref(), Some("0.2.0"), "{}", node.name);
    }
    assert_eq!(world.marks().len(), 1);
    for pod in &old[1..] {
        pod.until_waiting_for_a_failure().await;
    }
    assert_eq!(world.most_at_once.load(Ordering::SeqCst), 1);
}
