//! `install` on a running node whose administrator has settings of his own.

use testkit::tree::put;

use super::bare::{Bare, PROGRAM, SHIM};

const DEFAULTS: &str = "/etc/default/image-cri-shim";

#[tokio::test(flavor = "multi_thread")]
async fn what_the_administrator_has_set_stays_in_force() {
    let node = Bare::boot(|tree| {
        // A second file of variables, as a drop-in for proxies adds one.
        let proxy = "/etc/systemd/system/kubelet.service.d/http-proxy.conf";
        let text = "[Service]\nEnvironmentFile=-/etc/environment\n";
        put(tree, proxy, text, 0o644);
        let environment = "HTTPS_PROXY=http://127.0.0.1:3128\n";
        put(tree, "/etc/environment", environment, 0o644);
        let extra = "KUBELET_EXTRA_ARGS=--node-ip=10.0.0.1\n";
        put(tree, "/etc/default/kubelet", extra, 0o644);
        put(tree, DEFAULTS, "HARBOR_TOKEN=x\n", 0o600);
    })
    .await;
    node.sh(&format!("{PROGRAM} install"));
    node.sh("systemctl restart kubelet");
    node.until_dialed(SHIM, true).await;
    let of = |unit: &str, file: &str| {
        let pid = format!("$(systemctl show --value --property=MainPID {unit})");
        node.sh(&format!("tr '\\0' '\\n' < /proc/{pid}/{file}"))
    };
    let flags = of("kubelet", "cmdline");
    assert!(flags.contains("--node-ip=10.0.0.1\n"), "{flags}");
    let variables = of("image-cri-shim", "environ");
    assert!(variables.contains("HARBOR_TOKEN=x\n"), "{variables}");
    assert!(
        variables.contains("IMAGE_CRI_SHIM_RUNTIME=/run/containerd/containerd.sock\n"),
        "{variables}"
    );
    // Another line for the shim is nothing for `install` to do, and stays.
    node.sh(&format!("echo OTHER=y >> {DEFAULTS}"));
    node.sh(&format!("{PROGRAM} install --check"));
    node.sh(&format!("{PROGRAM} install"));
    let text = node.sh(&format!("cat {DEFAULTS}"));
    assert!(
        text.starts_with("HARBOR_TOKEN=x\n") && text.ends_with("OTHER=y\n"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_on_which_no_runtime_answers_is_told() {
    let node = Bare::boot(|_| ()).await;
    let said = |options: &str| node.sh(&format!("{PROGRAM} install --dry-run {options} 2>&1"));
    let none = said("--runtime unix:///run/none.sock");
    assert!(
        none.contains("warning: no container runtime answers at /run/none.sock: "),
        "{none}"
    );
    let found = said("");
    assert!(!found.contains("warning"), "{found}");
}
