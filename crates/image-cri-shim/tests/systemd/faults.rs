//! Faults of the shim, of its bypass, and of people.

use std::path::Path;

use testkit::cri_client::CriClient;
use testkit::wait;

use super::node::{LINK, Node};

const SHIM: &str = "image-cri-shim/shim.sock";
const BYPASS: &str = "image-cri-shim/bypass.sock";
const CLOSED: &str = "image-cri-shim/closed.sock";

/// Writes a program that stands for a broken shim.
fn script(folder: &Path, text: &str) -> std::path::PathBuf {
    let path = folder.join("broken");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_is_killed_stopped_masked_or_restarted() {
    let node = Node::boot("").await;

    let calls = node.call_on();
    let killed = node.main_pid();
    node.systemctl(&["kill", "--signal=KILL", "image-cri-shim.service"]);
    node.until_another_serves(&killed).await;
    calls.end().await;

    // A stop that is asked for refuses nobody: the link turns first.
    let calls = node.call_on();
    node.systemctl(&["stop", "image-cri-shim.service"]);
    node.until_link(BYPASS).await;
    node.systemctl(&["start", "image-cri-shim.service"]);
    node.until_link(SHIM).await;
    node.systemctl(&["restart", "image-cri-shim.service"]);
    node.until_link(SHIM).await;
    calls.end().await;

    let calls = node.call_on();
    node.systemctl(&["mask", "--now", "image-cri-shim.service"]);
    node.until_link(BYPASS).await;
    node.systemctl(&["unmask", "image-cri-shim.service"]);
    node.systemctl(&["start", "image-cri-shim.service"]);
    node.until_link(SHIM).await;
    calls.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_is_ready_and_answers_nobody() {
    let node = Node::boot("").await;
    let stopped = node.main_pid();
    let calls = node.call_on();
    node.systemctl(&["kill", "--signal=STOP", "image-cri-shim.service"]);
    node.until_another_serves(&stopped).await;
    calls.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn binaries_that_are_broken_and_a_good_one_put_back() {
    let node = Node::boot("").await;
    let dir = tempfile::tempdir().unwrap();
    for broken in ["exit 1", "exec sleep 3600"] {
        let calls = node.call_on();
        node.replace_binary(&script(dir.path(), broken));
        node.systemctl(&["kill", "--signal=KILL", "image-cri-shim.service"]);
        node.until_link(BYPASS).await;
        calls.end().await;

        let calls = node.call_on();
        node.replace_binary(Path::new(env!("CARGO_BIN_EXE_image-cri-shim")));
        // One that never gets ready is ended by its start time-out.
        node.until_link(SHIM).await;
        calls.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bypass_s_own_faults() {
    let node = Node::boot("").await;
    // Nobody needs it now.
    let calls = node.call_on();
    for unit in [
        "image-cri-shim-bypass.socket",
        "image-cri-shim-bypass.service",
        "image-cri-shim-link.service",
    ] {
        node.systemctl(&["restart", unit]);
        assert_eq!(node.link(), SHIM, "{unit}");
    }
    let seen = calls.end().await;
    assert_eq!(seen.refused, 0, "{seen:?}");

    node.systemctl(&["stop", "image-cri-shim.service"]);
    node.until_link(BYPASS).await;
    let calls = node.call_on();
    node.systemctl(&["kill", "--signal=KILL", "image-cri-shim-bypass.service"]);
    node.systemctl(&["restart", "image-cri-shim-bypass.service"]);
    node.systemctl(&["restart", "image-cri-shim-bypass.socket"]);
    calls.end().await;

    // Many at once.
    let socket = node.machine.path(LINK);
    let at_once = (0..300).map(|_| {
        let socket = socket.clone();
        tokio::spawn(async move { CriClient::new(&socket).version().await })
    });
    for call in futures_util::future::join_all(at_once).await {
        call.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_must_not_touch_the_outside_has_no_bypass() {
    for config in ["fallbackToOrigin: false\n", "bypass: false\n"] {
        let node = Node::boot(config).await;
        node.systemctl(&["stop", "image-cri-shim.service"]);
        node.until_link(CLOSED).await;
        // Whatever is restarted, nothing leads past the shim.
        for unit in [
            "image-cri-shim-bypass.socket",
            "image-cri-shim-link.service",
        ] {
            node.machine
                .output(&["systemctl", "restart", unit])
                .unwrap();
        }
        node.machine
            .output(&["systemctl", "stop", "image-cri-shim.service"])
            .unwrap();
        assert_eq!(node.link(), CLOSED, "{config}");
        CriClient::new(node.machine.path(LINK))
            .version()
            .await
            .unwrap_err();
        node.systemctl(&["start", "image-cri-shim.service"]);
        node.until_link(SHIM).await;
    }
    // Also from boot on, with a shim that can't start, and where the words stand in another form.
    for config in [
        "{fallbackToOrigin: false, registries: [}\n",
        "\"fallbackToOrigin\": False # as it was\n",
        // Not opened by a typing mistake.
        "'fallbackToOrigin': fasle\n",
    ] {
        let node = Node::boot_with(config, |tree| {
            std::fs::copy("/bin/false", tree.join("usr/bin/image-cri-shim")).unwrap();
        })
        .await;
        assert_eq!(node.link(), CLOSED, "{config}");
    }
    // A comment is no setting.
    let node = Node::boot_with("# fallbackToOrigin: false\n", |tree| {
        std::fs::copy("/bin/false", tree.join("usr/bin/image-cri-shim")).unwrap();
    })
    .await;
    assert_eq!(node.link(), BYPASS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_comes_late_is_waited_for() {
    let mut node = Node::boot_with("", |_| ()).await;
    node.until_link(SHIM).await;
    node.containerd.stop().await.unwrap();
    node.systemctl(&["restart", "image-cri-shim.service"]);
    node.until_link(SHIM).await;
    assert_eq!(
        node.machine
            .property("image-cri-shim.service", "NRestarts")
            .unwrap(),
        "0"
    );
    CriClient::new(node.machine.path(LINK))
        .version()
        .await
        .unwrap_err();
    node.containerd.start_again().await.unwrap();
    wait::until("the runtime to be reached", || async {
        CriClient::new(node.machine.path(LINK)).version().await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_that_is_broken_at_boot() {
    // Half written, and a last good config from before the reboot.
    let node = Node::boot_with("registries: [{address: 'http://b", |tree| {
        let state = tree.join("var/lib/image-cri-shim");
        std::fs::create_dir_all(&state).unwrap();
        let good = "metricsAddress: off\naddress: http://good.example\n\n\
            # Kept by image-cri-shim: the last good config of \"/etc/image-cri-shim.yaml\".\n";
        std::fs::write(state.join("last-good.yaml"), good).unwrap();
    })
    .await;
    node.until_link(SHIM).await;
    let status = |node: &Node| {
        let status = ["image-cri-shim", "status", "--json"];
        node.machine.run(&status).unwrap()
    };
    let shown = status(&node);
    assert!(shown.contains("good.example"), "{shown}");
    assert!(shown.contains("\"error\""), "{shown}");
    CriClient::new(node.machine.path(LINK))
        .version()
        .await
        .unwrap();
    // Mended: taken over without a restart, and kept.
    let before = node.main_pid();
    let mended = "metricsAddress: off\naddress: http://mended.example\n";
    std::fs::write(node.machine.path("/etc/image-cri-shim.yaml"), mended).unwrap();
    wait::until("the mended file to be kept", || async {
        let kept =
            std::fs::read_to_string(node.machine.path("/var/lib/image-cri-shim/last-good.yaml"));
        kept.is_ok_and(|kept| kept.starts_with(mended))
            .then_some(())
    })
    .await;
    let shown = status(&node);
    assert!(shown.contains("mended.example"), "{shown}");
    assert!(!shown.contains("\"error\""), "{shown}");
    assert_eq!(node.main_pid(), before);

    // Without a last good config a site that must stay closed does.
    let closed = "fallbackToOrigin: false\nregistries: [{address: 'http://b";
    let node = Node::boot_with(closed, |_| ()).await;
    wait::until("the shim to refuse", || async {
        let restarts = node.machine.property("image-cri-shim.service", "NRestarts");
        restarts.is_ok_and(|restarts| restarts != "0").then_some(())
    })
    .await;
    assert_eq!(node.link(), CLOSED);
}
