//! A config that `install` has brought, and that the running shim merges the ConfigMap into: it stays the install's own, so
//! that it is followed, and that no password stays on the node in the end.

use testkit::fake_api_server::FakeApiServer;
use testkit::relay::Relay;
use testkit::tree::put;
use testkit::wait;

use super::bare::{Bare, PROGRAM};

const CONFIG: &str = "/etc/image-cri-shim.yaml";
/// The way to the API server, by the address that the kubeconfig names.
const API_SOCKET: &str = "[Socket]\nListenStream=127.0.0.1:6443\n";
const API_SERVICE: &str =
    "[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd /run/api/relay.sock\n";

fn config(registry: &str) -> String {
    format!(
        "metricsAddress: off\nimage: /srv/shim\nregistries: [{{address: \"http://{registry}\"}}]\n"
    )
}

async fn until_config_has(node: &Bare, text: &str) {
    wait::until(&format!("{text} in the config"), || async {
        let config = std::fs::read_to_string(node.machine.path(CONFIG)).ok()?;
        config.contains(text).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_that_the_shim_has_merged_is_followed_and_removed() {
    let server = FakeApiServer::start().unwrap();
    server.apply_config_map(
        "registries:\n- address: http://from-the-map.example\n  auth: robot:s3cret\n",
    );
    let relay = Relay::to(server.address()).unwrap();
    let kubeconfig = server
        .kubeconfig()
        .replace(&server.address(), "127.0.0.1:6443");
    let node = Bare::boot_with(
        |tree| {
            put(tree, "/etc/kubernetes/admin.conf", &kubeconfig, 0o600);
            put(
                tree,
                "/usr/lib/systemd/system/api.socket",
                API_SOCKET,
                0o644,
            );
            put(
                tree,
                "/usr/lib/systemd/system/api.service",
                API_SERVICE,
                0o644,
            );
            put(tree, "/opt/one.yaml", &config("one.example"), 0o600);
            put(tree, "/opt/two.yaml", &config("two.example"), 0o600);
        },
        &[(relay.path(), "/run/api")],
    )
    .await;
    node.sh("systemctl start api.socket");
    node.sh(&format!("{PROGRAM} install --config /opt/one.yaml"));
    until_config_has(&node, "s3cret").await;
    // Where the same is wanted, nothing is to be done.
    node.sh(&format!("{PROGRAM} install --config /opt/one.yaml --check"));
    // Nor where none is brought, as in the commands that doctor prints.
    let said = node.sh(&format!("{PROGRAM} install"));
    assert!(said.contains("nothing to change"), "{said}");
    until_config_has(&node, "s3cret").await;

    // The next config comes, and gets the ConfigMap merged into it, too.
    let said = node.sh(&format!("{PROGRAM} install --config /opt/two.yaml"));
    assert!(said.contains("wrote /etc/image-cri-shim.yaml"), "{said}");
    until_config_has(&node, "s3cret").await;
    node.sh(&format!("{PROGRAM} install --config /opt/two.yaml --check"));
    wait::until("the last good config", || async {
        let kept = [
            "/srv/shim/last-good.yaml",
            "/var/lib/image-cri-shim/last-good.yaml",
        ];
        kept.iter().all(|path| node.exists(path)).then_some(())
    })
    .await;

    let said = node.sh(&format!("{PROGRAM} uninstall"));
    assert!(!said.contains("somebody has edited"), "{said}");
    assert!(!node.exists(CONFIG));
    assert!(!node.exists("/srv/shim"));
    node.is_left();
    let traces = node.sh("grep -rls s3cret /etc /srv /var /usr/local || true");
    assert_eq!(traces, "");
}
