//! Units, the socket that kubelet dials, and the running shim.

use std::fs;

use rustix::process::Signal;

use crate::world::World;

const UNIT: &str = "image-cri-shim.service";

#[tokio::test]
async fn the_shim_is_stopped_and_a_bypass_is_in_force() {
    let world = World::new().await;
    world.unit(UNIT, &[("ActiveState", "inactive"), ("SubState", "dead")]);
    world.turn("image-cri-shim/bypass.sock");
    let page = world.doctor().await;
    page.bad(
        "unit",
        "is not running: inactive (dead)",
        "systemctl start image-cri-shim",
    );
    assert!(page.text.contains("a bypass is in force"), "{}", page.text);
}

#[tokio::test]
async fn the_shim_is_masked() {
    let world = World::new().await;
    world.unit(
        UNIT,
        &[("LoadState", "masked"), ("ActiveState", "inactive")],
    );
    world.turn("image-cri-shim/bypass.sock");
    let page = world.doctor().await;
    page.bad(
        "unit",
        "is masked",
        "systemctl unmask image-cri-shim && systemctl start image-cri-shim",
    );
}

#[tokio::test]
async fn the_link_was_turned_by_hand() {
    let world = World::running().await;
    world.turn("/run/containerd/containerd.sock");
    let page = world.doctor().await;
    page.bad(
        "link",
        "leads to /run/containerd/containerd.sock",
        "systemctl restart image-cri-shim-link.service",
    );
}

#[tokio::test]
async fn the_link_is_gone() {
    let world = World::running().await;
    fs::remove_file(world.place("/run/image-cri-shim.sock")).unwrap();
    let page = world.doctor().await;
    page.bad(
        "link",
        "is not there",
        "systemd-tmpfiles --create image-cri-shim.conf",
    );
}

#[tokio::test]
async fn the_shim_hangs() {
    let mut world = World::running().await;
    world.shim.signal(Signal::STOP).unwrap();
    let page = world.doctor_with(&["--live", "--timeout", "1s"]).await;
    world.shim.signal(Signal::CONT).unwrap();
    page.bad(
        "daemon",
        "but is stuck: no answer within 1s",
        "systemctl restart image-cri-shim",
    );
}

#[tokio::test]
async fn the_bypass_would_not_be_there() {
    let world = World::running().await;
    world.unit(
        "image-cri-shim-bypass.socket",
        &[("ActiveState", "inactive")],
    );
    let page = world.doctor().await;
    page.bad(
        "bypass.unit",
        "while the shim is down, kubelet has no runtime",
        "systemctl enable --now image-cri-shim-bypass.socket",
    );
}
