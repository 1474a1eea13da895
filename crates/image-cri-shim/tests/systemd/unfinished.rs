//! `install` after a run that did not come to its end: what is on the disk is not what runs.

use testkit::wait;

use super::bare::{Bare, PROGRAM, SHIM};

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

/// This kubelet makes no image call, so no install is believed to work.
const LED_AND_NEVER_WORKING: &str = "install --restart-kubelet --timeout 5s";

#[tokio::test(flavor = "multi_thread")]
async fn a_first_install_that_was_killed_while_it_waited_is_put_back_by_the_next() {
    let node = Bare::boot(|_| ()).await;
    let property = |unit: &str, name: &str| node.machine.property(unit, name).unwrap();
    let before = property("kubelet.service", "InvocationID");
    node.sh(&format!(
        "systemd-run --unit=first {PROGRAM} install --restart-kubelet"
    ));
    wait::until("kubelet to be restarted", || async {
        (property("kubelet.service", "InvocationID") != before).then_some(())
    })
    .await;
    node.sh("systemctl kill --signal=KILL first");
    // It has questions for the shim, too: only without it is it kubelet that is connected.
    wait::until("the first install to be gone", || async {
        (property("first.service", "ActiveState") == "failed").then_some(())
    })
    .await;
    node.until_dialed(SHIM, true).await;
    let said = node.fails(&format!("{PROGRAM} {LED_AND_NEVER_WORKING}"));
    assert!(said.contains("nothing to change"), "{said}");
    assert!(said.contains("The shim is removed"), "{said}");
    node.is_left();
    node.until_dialed(SHIM, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_serves_on_only_where_it_is_not_what_failed() {
    let node = Bare::boot(|_| ()).await;
    node.sh(&format!("{PROGRAM} install"));
    node.sh("systemctl restart kubelet");
    node.until_dialed(SHIM, true).await;
    let old = node.main_pid();

    // It is refused, so the one of before is still what kubelet has.
    node.sh(ANOTHER);
    node.write(CONFIG, "timeout: soon\n");
    node.fails(&format!("{PROGRAM} install"));
    let said = node.fails(&format!("{PROGRAM} {LED_AND_NEVER_WORKING}"));
    assert!(
        said.contains("the shim that ran before serves on"),
        "{said}"
    );
    assert_eq!(node.main_pid(), old);

    // It takes over, and kubelet does not work through it: the one of before is gone.
    node.write(CONFIG, "registries: []\n");
    let said = node.fails(&format!("{PROGRAM} {LED_AND_NEVER_WORKING}"));
    assert!(said.contains("has taken over"), "{said}");
    assert!(!said.contains("serves on"), "{said}");
    assert!(said.contains("The shim is removed"), "{said}");
    node.until_dialed(SHIM, false).await;
}
