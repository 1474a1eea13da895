//! What the units may do, as systemd judges it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use testkit::systemd::Machine;
use testkit::wait;

use super::node::Node;

/// What `systemd-analyze security` may say at most, of 10.
pub(crate) const HIGHEST_EXPOSURE: f64 = 5.0;

/// How exposed systemd says that a unit is.
pub(crate) fn exposure(machine: &Machine, unit: &str) -> f64 {
    let command = ["systemd-analyze", "security", "--no-pager", unit];
    let report = machine.run(&command).unwrap();
    let verdict = report.lines().last().unwrap_or_default();
    verdict
        .split_once(": ")
        .and_then(|(_, level)| level.split_whitespace().next()?.parse().ok())
        .unwrap_or_else(|| panic!("no level in {verdict:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_units_may_do_what_they_need_and_little_more() {
    let node = Node::boot("debug: false\n").await;
    for unit in ["image-cri-shim.service", "image-cri-shim-bypass.service"] {
        let level = exposure(&node.machine, unit);
        assert!(level <= HIGHEST_EXPOSURE, "{unit}: {level}");
    }
    // It still reads its config again, and writes where it keeps its state.
    let config = node.machine.path("/etc/image-cri-shim.yaml");
    fs::write(
        &config,
        "metricsAddress: off\nregistries: [{address: \"http://127.0.0.1:1\"}]\n",
    )
    .unwrap();
    wait::until("the new config to be in force", || async {
        let status = node.machine.run(&["image-cri-shim", "status"]).ok()?;
        status.contains("127.0.0.1:1").then_some(())
    })
    .await;
    let state = node.machine.path("/var/lib/image-cri-shim");
    assert_eq!(
        fs::metadata(&state).unwrap().permissions().mode() & 0o777,
        0o700
    );
}
