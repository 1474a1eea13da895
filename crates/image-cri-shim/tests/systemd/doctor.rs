//! What `doctor` prints as a way out is one: each fault is made, named first, and mended by running the printed command.

use std::path::Path;

use serde_json::Value;
use testkit::fake_registry::FakeRegistry;
use testkit::tree::put;
use testkit::wait;

use crate::node::Node;

const FLAG: &str = "--image-service-endpoint=unix:///run/image-cri-shim.sock";

/// A kubelet as far as systemd and doctor look at one.
fn with_kubelet(tree: &Path) {
    let put = |path, text: &str, mode| put(tree, path, text, mode);
    let program = "#!/bin/sh\nwhile :; do sleep 60 & wait; done\n";
    put("usr/bin/kubelet", program, 0o755);
    // Type=exec: `systemctl start` is done when kubelet's own process is seen, not systemd's fork of itself.
    put(
        "etc/systemd/system/kubelet.service",
        "[Service]\nType=exec\nEnvironmentFile=-/etc/default/kubelet\nExecStart=/usr/bin/kubelet --container-runtime-endpoint=unix:///run/containerd/containerd.sock --healthz-port=0 $KUBELET_EXTRA_ARGS\n",
        0o644,
    );
    put(
        "etc/default/kubelet",
        &format!("KUBELET_EXTRA_ARGS={FLAG}\n"),
        0o644,
    );
}

/// What doctor says, as programs read it.
fn doctor(node: &Node) -> Value {
    let output = node.machine.output(&["image-cri-shim", "doctor", "--json"]);
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{output:?}"));
    let status = match report["verdict"].as_str() {
        Some("ok") => 0,
        Some("warn") => 1,
        _ => 2,
    };
    assert_eq!(output.status.code(), Some(status), "{text}");
    report
}

fn first_bad(report: &Value) -> Option<&Value> {
    let mut lines = report["lines"].as_array().unwrap().iter();
    lines.find(|line| line["verdict"] == "bad")
}

#[tokio::test]
async fn the_printed_commands_mend_what_they_stand_under() {
    let registry = FakeRegistry::start().unwrap();
    let config = format!(
        "registries: [{{address: '{}', auth: 'u:hunter2'}}]\n",
        registry.url()
    );
    let node = Node::boot_with(&config, with_kubelet).await;
    node.until_link("image-cri-shim/shim.sock").await;
    node.systemctl(&["start", "kubelet.service"]);
    let well = doctor(&node);
    assert_eq!(first_bad(&well), None, "{well:#}");
    let folder = "/etc/systemd/system/image-cri-shim.service.d";
    for (fault, check) in [
        ("systemctl mask --now image-cri-shim.service", "unit"),
        ("systemctl stop image-cri-shim.service", "unit"),
        ("systemctl stop image-cri-shim-bypass.socket", "bypass.unit"),
        (
            "ln -sfn image-cri-shim/bypass.sock /run/image-cri-shim.sock",
            "link",
        ),
        (
            "ln -sfn /run/containerd/containerd.sock /run/image-cri-shim.sock",
            "link",
        ),
        ("rm /run/image-cri-shim.sock", "link"),
        ("chmod 644 /etc/image-cri-shim.yaml", "permissions"),
        ("chmod 777 /usr/lib/image-cri-shim/link", "permissions"),
        ("systemctl stop kubelet.service", "kubelet.process"),
        (
            "K=/etc/default/kubelet; mv $K $K.0; systemctl restart kubelet; mv $K.0 $K",
            "kubelet.process",
        ),
        (
            "echo IMAGE_CRI_SHIM_RUNTIME=/run/crio/crio.sock > /etc/default/image-cri-shim; echo cri: /run/containerd/containerd.sock >> /etc/image-cri-shim.yaml",
            "runtime.target",
        ),
    ] {
        node.machine.run(&["sh", "-c", fault]).unwrap();
        let report = doctor(&node);
        let bad = first_bad(&report).unwrap_or_else(|| panic!("{fault}: {report:#}"));
        assert_eq!(bad["check"], check, "{fault}: {report:#}");
        let mend = bad["mend"].as_str().unwrap();
        node.machine.run(&["sh", "-c", mend]).unwrap();
        let last = wait::within(wait::TIMEOUT, || {
            let report = doctor(&node);
            std::future::ready(first_bad(&report).is_none().then_some(()))
        })
        .await;
        assert!(last.is_some(), "{fault}, then {mend}: {:#}", doctor(&node));
    }
    // Warnings have a way out, too.
    node.machine
        .run(&["sh", "-c", &format!("mkdir -p {folder}; printf '[Service]\\nWatchdogSec=0\\n' > {folder}/x.conf; systemctl daemon-reload; systemctl restart image-cri-shim")])
        .unwrap();
    let report = doctor(&node);
    let lines = report["lines"].as_array().unwrap();
    let off = lines
        .iter()
        .find(|line| line["check"] == "watchdog")
        .unwrap();
    assert_eq!(off["verdict"], "warn", "{report:#}");
    node.machine
        .run(&["sh", "-c", off["mend"].as_str().unwrap()])
        .unwrap();
    let report = doctor(&node);
    let lines = report["lines"].as_array().unwrap();
    let on = lines
        .iter()
        .find(|line| line["check"] == "watchdog")
        .unwrap();
    assert_eq!(on["verdict"], "ok", "{report:#}");
}
