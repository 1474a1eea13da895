//! Five nodes, of which the second fails; and all that happens to Pods.

use crate::node::Node;
use crate::world::World;

pub(crate) async fn nodes() {
    let world = World::start().await;
    let mut nodes = Vec::new();
    for number in 1..=5 {
        nodes.push(Node::boot(&world, number).await);
    }
    let first = world.program(0);
    let starts =
        |nodes: &[Node]| -> Vec<String> { nodes.iter().map(Node::start_of_kubelet).collect() };
    let before = starts(&nodes);

    step("the second of five fails");
    nodes[1].kubelet_refuses(true);
    nodes[0].start_pod(&first, "install");
    nodes[0].until_ready().await;
    nodes[1].start_pod(&first, "install");
    let mark = world.until_marked().await;
    assert!(
        mark.contains(" node node-2: ") && mark.contains("The shim is removed"),
        "{mark}"
    );
    for node in &nodes[2..] {
        node.start_pod(&first, "install");
    }
    for node in &nodes[1..] {
        node.until_readiness("waiting: ").await;
        node.until_readiness(" node node-2: ").await;
        assert!(node.readiness().starts_with("HTTP/1.1 503"));
    }
    // The first stays, the second is rolled back, three are untouched.
    let one_of_five = async || {
        nodes[0].has(&first);
        for node in &nodes[1..] {
            node.is_untouched().await;
        }
    };
    one_of_five().await;
    let failed = starts(&nodes);
    assert_eq!(failed[2..], before[2..]);
    assert_eq!(
        world.lease()["spec"]["holderIdentity"],
        serde_json::Value::Null
    );

    step("Pods are drained, deleted, killed, and come back: nothing is undone, nothing begun");
    for (number, node) in nodes.iter().enumerate() {
        if number % 2 == 0 {
            node.terminate_pod();
        } else {
            node.kill_pod();
        }
    }
    one_of_five().await;
    let written = world.lease()["metadata"]["resourceVersion"].clone();
    for node in &nodes {
        node.start_pod(&first, "install");
    }
    nodes[0].until_ready().await;
    for node in &nodes[1..] {
        node.until_readiness(" node node-2: ").await;
    }
    one_of_five().await;
    assert_eq!(world.lease()["metadata"]["resourceVersion"], written);
    assert_eq!(starts(&nodes), failed);

    step("the reason is gone, and somebody takes the mark away");
    nodes[1].kubelet_refuses(false);
    world.clear_marks();
    for node in &nodes {
        node.until_ready().await;
        node.has(&first);
    }
    let installed = starts(&nodes);

    step("an upgrade whose second node fails: it has the old version again");
    let second = world.program(1);
    nodes[1].refuse_version(&second);
    nodes[0].start_pod(&second, "install");
    nodes[0].until_ready().await;
    nodes[1].start_pod(&second, "install");
    let mark = world.until_marked().await;
    assert!(
        mark.contains(" node node-2: ") && mark.contains("before serves again"),
        "{mark}"
    );
    for node in &nodes[2..] {
        node.start_pod(&second, "install");
        node.until_readiness(" node node-2: ").await;
    }
    nodes[0].has(&second);
    for node in &nodes[1..] {
        node.has(&first);
    }
    // Nobody's kubelet has been restarted for any of that.
    assert_eq!(starts(&nodes), installed);

    step("the next version goes on by itself");
    nodes[1].refuse_no_version();
    let third = world.program(2);
    for node in &nodes {
        node.start_pod(&third, "install");
    }
    for node in &nodes {
        node.until_ready().await;
        node.has(&third);
    }
    assert_eq!(starts(&nodes), installed);

    step("uninstall");
    for node in &nodes {
        node.start_pod(&third, "uninstall");
    }
    for node in &nodes {
        node.until_ready().await;
        node.is_untouched().await;
    }
}

fn step(what: &str) {
    println!("{what}");
}
