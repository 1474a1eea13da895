//! A node of the Go program of the same name, with what stands for it: it serves kubelet again when the shim leaves, or does
//! not come.

use std::path::Path;

use testkit::tree::put;

use super::bare::{Bare, LINK, PROGRAM, SHIM, enable};

const UNIT: &str = "/etc/systemd/system/image-cri-shim.service";
const UNIT_TEXT: &str = "[Service]\nExecStart=/usr/bin/image-cri-shim -f /etc/image-cri-shim.yaml\nRestart=always\n\
     [Install]\nWantedBy=multi-user.target\n";
const CONFIG: &str = "shim: /run/image-cri-shim.sock\ncri: /run/containerd/containerd.sock\n\
     address: http://sealos.hub:5000\nforce: true\ndebug: false\nimage: /var/lib/image-cri-shim\ntimeout: 15m\n\
     auth: admin:passw0rd\n";
/// By a file of the cluster's own, as sealos leads kubelet there.
const FLAGS: &str = "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///run/image-cri-shim.sock \
     --image-service-endpoint=unix:///run/image-cri-shim.sock\"\n";

/// Listens on the socket that kubelet dials, and keeps who comes.
const GO: &str = r#"#!/usr/bin/perl
use IO::Socket::UNIX;
use IO::Select;
my $path = "/run/image-cri-shim.sock";
unlink $path;
my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 16) or die "$path: $!";
my $all = IO::Select->new($listener);
while (my @ready = $all->can_read) {
    for my $socket (@ready) {
        if ($socket == $listener) {
            $all->add($listener->accept);
        } elsif (!sysread($socket, my $bytes, 4096)) {
            $all->remove($socket);
            close $socket;
        }
    }
}
"#;

fn prepare(tree: &Path) {
    put(tree, "/usr/bin/image-cri-shim", GO, 0o755);
    put(tree, UNIT, UNIT_TEXT, 0o644);
    enable(tree, "image-cri-shim.service", UNIT);
    put(tree, "/etc/image-cri-shim.yaml", CONFIG, 0o600);
    put(tree, "/var/lib/kubelet/kubeadm-flags.env", FLAGS, 0o644);
}

/// The predecessor serves kubelet, and nothing of ours is there.
async fn is_as_before(node: &Bare) {
    serves_by(node, UNIT_TEXT).await;
}

async fn serves_by(node: &Bare, unit: &str) {
    node.until_dialed(LINK, true).await;
    assert_eq!(node.sh(&format!("cat {UNIT}")), unit);
    assert_eq!(node.sh("cat /etc/image-cri-shim.yaml"), CONFIG);
    assert!(
        node.sh("cat /proc/$(systemctl show -P MainPID image-cri-shim)/cmdline")
            .contains("perl")
    );
    assert_eq!(node.sh("systemctl is-enabled image-cri-shim"), "enabled\n");
    assert!(!node.exists("/run/image-cri-shim"));
    node.has_no_files();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_kubelet_again_after_an_uninstall() {
    let node = Bare::boot(prepare).await;
    is_as_before(&node).await;
    let said = node.sh(&format!("{PROGRAM} install"));
    assert!(
        said.contains("found the Go program of the same name"),
        "{said}"
    );
    node.until_dialed(SHIM, true).await;
    let said = node.sh(&format!("{PROGRAM} uninstall"));
    assert!(said.contains("serves kubelet again"), "{said}");
    is_as_before(&node).await;

    // The same with a kubelet that is restarted in the end.
    node.sh(&format!("{PROGRAM} install"));
    node.until_dialed(SHIM, true).await;
    let before = node.machine.property("kubelet.service", "InvocationID");
    node.sh(&format!("{PROGRAM} uninstall --restart-kubelet"));
    let after = node.machine.property("kubelet.service", "InvocationID");
    assert_ne!(before.unwrap(), after.unwrap());
    is_as_before(&node).await;
}

/// As sealos brings it with each run.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_unit_that_came_over_the_shim_s() {
    let newer = format!("{UNIT_TEXT}# newer\n");
    let node = Bare::boot(prepare).await;
    for again in [true, false] {
        node.sh(&format!("{PROGRAM} install"));
        node.until_dialed(SHIM, true).await;
        node.write(UNIT, &newer);
        if again {
            node.sh(&format!("{PROGRAM} install"));
        }
        node.sh(&format!("{PROGRAM} uninstall"));
        serves_by(&node, &newer).await;
        node.write(UNIT, UNIT_TEXT);
    }
    // Taken back: this kubelet makes no image call.
    node.sh(&format!("{PROGRAM} install"));
    node.until_dialed(SHIM, true).await;
    node.write(UNIT, &newer);
    node.fails(&format!("{PROGRAM} install --restart-kubelet --timeout 2s"));
    serves_by(&node, &newer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_kubelet_again_after_an_install_that_failed() {
    let node = Bare::boot(prepare).await;
    // This kubelet makes no image call, so no install is believed to work.
    let said = node.fails(&format!("{PROGRAM} install --restart-kubelet --timeout 2s"));
    assert!(said.contains("The shim is removed"), "{said}");
    is_as_before(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_it_a_kubelet_that_is_told_by_hand_keeps_the_shim() {
    let node =
        Bare::boot(|tree| put(tree, "/var/lib/kubelet/kubeadm-flags.env", FLAGS, 0o644)).await;
    node.sh(&format!("{PROGRAM} install"));
    node.until_dialed(SHIM, true).await;
    let before = node
        .machine
        .property("kubelet.service", "InvocationID")
        .unwrap();
    let said = node.fails(&format!("{PROGRAM} uninstall --restart-kubelet"));
    assert!(
        said.contains("KUBELET_KUBEADM_ARGS in /var/lib/kubelet/kubeadm-flags.env"),
        "{said}"
    );
    let after = node
        .machine
        .property("kubelet.service", "InvocationID")
        .unwrap();
    assert_eq!(before, after);
    node.until_dialed(SHIM, true).await;
    node.sh("rm /var/lib/kubelet/kubeadm-flags.env");
    node.sh(&format!("{PROGRAM} uninstall --restart-kubelet"));
    node.is_left();
}
