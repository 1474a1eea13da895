//! The .deb on a node: installed, upgraded while calls go on, removed, purged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::node::{BYPASS, Node, SERVICE, SHIM};
use super::world::{VERSION, packages, printed, second_packages};

/// A folder with two versions of the package, and a third whose program is broken.
fn versions() -> tempfile::TempDir {
    let folder = tempfile::Builder::new()
        .prefix("debs-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap();
    for (from, to) in [(packages(), "1.deb"), (second_packages(), "2.deb")] {
        fs::hard_link(super::world::package(from, ".deb"), folder.path().join(to)).unwrap();
    }
    broken(folder.path());
    folder
}

fn broken(folder: &Path) {
    let tree: PathBuf = folder.join("tree");
    let run = |command: &mut Command| printed(command);
    run(Command::new("dpkg-deb")
        .arg("-R")
        .arg(folder.join("2.deb"))
        .arg(&tree));
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).unwrap();
    fs::write(
        &control,
        text.replace(&format!("{VERSION}-2"), &format!("{VERSION}-3")),
    )
    .unwrap();
    fs::copy("/bin/false", tree.join("usr/bin/image-cri-shim")).unwrap();
    run(Command::new("dpkg-deb")
        .args(["-Znone", "-b"])
        .arg(&tree)
        .arg(folder.join("3.deb")));
    fs::remove_dir_all(&tree).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn installed_upgraded_under_load_removed_and_purged() {
    let versions = versions();
    let kubelet = "KUBELET_EXTRA_ARGS=--v=2\n";
    let node = Node::boot(versions.path(), kubelet, |_| ()).await;
    let before = node.everything();

    node.sh("dpkg -i /packages/1.deb");
    node.until_served().await;
    for unit in [SERVICE, BYPASS] {
        assert_eq!(node.sh(&format!("systemctl is-active {unit}")), "active\n");
        assert_eq!(
            node.sh(&format!("systemctl is-enabled {unit}")),
            "enabled\n"
        );
    }
    assert_eq!(node.sh("dpkg -V image-cri-shim"), "");
    // Kubelet knows nothing of it.
    assert_eq!(node.sh("cat /etc/default/kubelet"), kubelet);
    assert_eq!(
        node.sh("ls /etc/systemd/system/kubelet.service.d 2>/dev/null || true"),
        ""
    );
    assert!(
        node.sh("getent passwd image-cri-shim-cache")
            .contains("/var/lib/image-cri-shim/cache")
    );
    units_are_well_formed(&node);

    // Everything an upgrade might restart.
    let (shim, bypass) = (node.invocation(SERVICE), node.invocation(BYPASS));
    let old = node.main_pid();
    let calls = node.call_on();
    node.sh("dpkg -i /packages/2.deb");
    node.until_served().await;
    let seen = calls.end().await;
    assert_eq!(seen.refused, 0, "{seen:?}");
    assert_eq!(node.invocation(BYPASS), bypass);
    // Handed over, not started anew.
    assert_eq!(node.invocation(SERVICE), shim);
    let new = node.main_pid();
    assert_ne!(new, old);
    assert_eq!(node.sh("dpkg -V image-cri-shim"), "");

    // A new program that is broken: the old one serves on, and the upgrade says so.
    let calls = node.call_on();
    let said = node.sh("dpkg -i /packages/3.deb 2>&1");
    assert!(said.contains("the old one serves on"), "{said}");
    let seen = calls.end().await;
    assert_eq!(seen.refused, 0, "{seen:?}");
    assert_eq!(node.link(), SHIM);
    assert_eq!(node.main_pid(), new);
    node.sh("dpkg -i /packages/2.deb");
    assert_eq!(node.link(), SHIM);
    assert_ne!(node.main_pid(), new);

    // Removed: what it had to say to nobody is gone, what it knows stays.
    node.sh("touch /var/lib/image-cri-shim/aliases; dpkg -r image-cri-shim");
    assert_eq!(node.link(), "");
    assert_eq!(
        node.sh("ls /var/lib/image-cri-shim/aliases"),
        "/var/lib/image-cri-shim/aliases\n"
    );
    // Installed again, it serves again.
    node.sh("dpkg -i /packages/1.deb");
    node.until_served().await;
    node.sh("dpkg -P image-cri-shim");
    let after = node.everything();
    let (gone, new): (Vec<_>, Vec<_>) = (
        before.iter().filter(|line| !after.contains(line)).collect(),
        after.iter().filter(|line| !before.contains(line)).collect(),
    );
    assert!(
        gone.is_empty() && new.is_empty(),
        "gone: {gone:#?}, new: {new:#?}"
    );
    assert_eq!(
        node.sh("systemctl list-units --all --no-legend 'image-cri-shim*'"),
        ""
    );
}

/// systemd has nothing to say about the packaged units but that it is older than two of their settings.
fn units_are_well_formed(node: &Node) {
    let said =
        node.sh("systemd-analyze --man=no verify /usr/lib/systemd/system/image-cri-shim* 2>&1");
    for line in said.lines() {
        let of_newer = ["RestartSteps", "RestartMaxDelaySec"];
        assert!(
            of_newer.iter().any(|setting| line.contains(setting)),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_was_led_to_the_shim_is_led_back_before_a_removal() {
    let versions = versions();
    let kubelet = "KUBELET_EXTRA_ARGS=--v=2\n";
    let node = Node::boot(versions.path(), kubelet, |_| ()).await;
    node.sh("dpkg -i /packages/1.deb");
    node.until_served().await;
    node.sh("image-cri-shim install");
    // The package's own program and units are the ones that are used.
    let copies = "ls -d /usr/local/bin/image-cri-shim /usr/local/lib/image-cri-shim \
        /etc/systemd/system/image-cri-shim* 2>/dev/null || true";
    assert_eq!(node.sh(copies), "");
    assert_eq!(node.sh("dpkg -V image-cri-shim"), "");
    node.sh("systemctl restart kubelet");
    node.until_kubelet_dials_the_shim(true).await;

    // The running kubelet still dials the shim: its settings are led back, and nothing is taken away from it.
    let calls = node.call_on();
    let said = node.fails("dpkg -r image-cri-shim 2>&1");
    assert!(said.contains("restart"), "{said}");
    assert!(said.contains("the package stays"), "{said}");
    assert_eq!(node.sh("cat /etc/default/kubelet"), kubelet);
    assert_eq!(node.link(), SHIM);
    let seen = calls.end().await;
    assert_eq!(seen.refused, 0, "{seen:?}");

    node.sh("systemctl restart kubelet");
    node.until_kubelet_dials_the_shim(false).await;
    node.sh("dpkg -r image-cri-shim");
    assert_eq!(node.link(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_was_led_to_the_shim_by_hand_keeps_it() {
    let versions = versions();
    let kubelet = "KUBELET_EXTRA_ARGS=--image-service-endpoint=unix:///run/image-cri-shim.sock\n";
    let node = Node::boot(versions.path(), kubelet, |_| ()).await;
    node.sh("dpkg -i /packages/1.deb");
    node.until_kubelet_dials_the_shim(true).await;
    let calls = node.call_on();
    let said = node.fails("dpkg -r image-cri-shim 2>&1");
    assert!(said.contains("/etc/default/kubelet:1"), "{said}");
    assert_eq!(node.link(), SHIM);
    // The settings are mended, the running kubelet is not yet.
    node.sh("echo '# image-cri-shim.sock was here' >/etc/default/kubelet");
    let said = node.fails("dpkg -r image-cri-shim 2>&1");
    assert!(said.contains("the package stays"), "{said}");
    assert_eq!(node.link(), SHIM);
    let seen = calls.end().await;
    assert_eq!(seen.refused, 0, "{seen:?}");
    node.sh("systemctl restart kubelet");
    node.until_kubelet_dials_the_shim(false).await;
    node.sh("dpkg -r image-cri-shim");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_of_the_same_name_is_not_overruled() {
    let unit = "etc/systemd/system/image-cri-shim.service";
    let node = Node::boot(packages(), "", |tree| {
        fs::create_dir_all(tree.join(unit).parent().unwrap()).unwrap();
        fs::write(
            tree.join(unit),
            "[Service]\nExecStart=/usr/bin/image-cri-shim\n",
        )
        .unwrap();
    })
    .await;
    let said = node.fails("dpkg -i /packages/*.deb 2>&1");
    assert!(said.contains("is there already"), "{said}");
    assert_eq!(
        node.sh("ls /usr/bin/image-cri-shim 2>/dev/null || true"),
        ""
    );
}
