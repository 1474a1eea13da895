//! `install` after a run that did not come to its end: what is on the disk is not what runs.

use super::bare::{Bare, PROGRAM};

/// As after an upgrade: another program of the same behaviour.
const ANOTHER: &str = "printf more >>/opt/image-cri-shim";
const CONFIG: &str = "/etc/image-cri-shim.yaml";

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_that_was_refused_is_tried_again_until_it_is_done() {
    let node = Bare::boot(|_| ()).await;
    node.sh(&format!("{PROGRAM} install"));
    let old = node.main_pid();
    node.sh(&format!("{PROGRAM} install --check"));

    node.write(CONFIG, "timeout: soon\n");
    node.sh(ANOTHER);
    for _ in 0..2 {
        let said = node.fails(&format!("{PROGRAM} install"));
        assert!(said.contains("can't take over"), "{said}");
        assert_eq!(node.main_pid(), old);
        let checked = node.sh(&format!("{PROGRAM} install --check || echo $?"));
        assert!(
            checked.contains("the program before the one that is installed")
                && checked.ends_with("3\n"),
            "{checked}"
        );
    }
    node.write(CONFIG, "registries: []\n");
    node.sh(&format!("{PROGRAM} install"));
    assert_ne!(node.main_pid(), old);
    node.sh(&format!("{PROGRAM} install --check"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_was_killed_before_the_hand_over_is_finished() {
    let node = Bare::boot(|_| ()).await;
    node.sh(&format!("{PROGRAM} install"));
    let old = node.main_pid();
    node.sh(ANOTHER);
    // A run on the tree writes what the killed one has written: the files, and nothing more. Another name of `/` is such a
    // tree.
    node.sh(&format!("{PROGRAM} install --root /etc/.."));
    assert_eq!(node.main_pid(), old);
    let said = node.sh(&format!("{PROGRAM} install"));
    assert!(said.contains("has taken over"), "{said}");
    assert_ne!(node.main_pid(), old);
    let new = node.main_pid();
    node.sh(&format!("{PROGRAM} install"));
    assert_eq!(node.main_pid(), new);
}
