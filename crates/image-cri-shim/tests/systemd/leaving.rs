//! `uninstall` on a running node, also on one that has become another since `install`.

use super::bare::{Bare, PROGRAM, SHIM};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_become_another_can_be_left() {
    let node = Bare::boot(|_| ()).await;
    node.sh(&format!("{PROGRAM} install"));
    node.sh("systemctl restart kubelet");
    node.until_dialed(SHIM, true).await;
    // Another kind's unit and a second runtime have come: an install would not know which are used.
    node.write(
        "/etc/systemd/system/k3s-agent.service",
        "[Service]\nExecStart=/usr/local/bin/k3s agent\n",
    );
    node.sh("mkdir -p /run/crio && ln -s /run/containerd/containerd.sock /run/crio/crio.sock");
    node.fails(&format!("{PROGRAM} install"));
    let said = node.fails(&format!("{PROGRAM} uninstall"));
    assert!(said.contains("systemctl restart kubelet.service"), "{said}");
    node.sh(&format!("{PROGRAM} uninstall --restart-kubelet"));
    node.is_left();
    node.until_dialed(SHIM, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_kubelet_any_more_can_be_left() {
    let node = Bare::boot(|_| ()).await;
    node.sh(&format!("{PROGRAM} install"));
    node.sh("systemctl restart kubelet");
    node.until_dialed(SHIM, true).await;
    // As k3s's own script leaves a node, which knows nothing of us; but for a process that it has missed.
    node.sh("systemd-run --unit=missed /usr/bin/kubelet --image-service-endpoint=unix:///run/image-cri-shim.sock");
    node.sh("systemctl disable --now kubelet && rm /usr/lib/systemd/system/kubelet.service && systemctl daemon-reload");
    node.until_dialed(SHIM, true).await;
    let said = node.fails(&format!("{PROGRAM} uninstall --restart-kubelet"));
    assert!(
        said.contains("something is still connected to the shim"),
        "{said}"
    );
    node.sh("systemctl stop missed");
    let said = node.sh(&format!("{PROGRAM} uninstall --restart-kubelet"));
    assert!(said.contains("no kubelet to lead back"), "{said}");
    node.is_left();
}
