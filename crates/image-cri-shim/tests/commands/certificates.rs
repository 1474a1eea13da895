//! What the node's runtime is told about certificates is where `resolve` looks, and what it advises.

use testkit::certs::Ca;
use testkit::fake_registry::FakeRegistry;

use crate::world::run;

#[tokio::test]
async fn the_runtime_s_own_files_count() {
    let cert = Ca::new().unwrap().issue(&["127.0.0.1"]).unwrap();
    let registry = FakeRegistry::start_tls(&cert).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (socket, advice) in [
        ("run/containerd/containerd.sock", "/etc/containerd/certs.d/"),
        (
            "run/k3s/containerd/containerd.sock",
            "/etc/rancher/k3s/registries.yaml",
        ),
        ("run/k0s/containerd.sock", "/etc/k0s/containerd.d/certs.d/"),
        ("var/run/crio/crio.sock", "/etc/containers/certs.d/"),
    ] {
        let config = dir.path().join("config.yaml");
        let text = format!(
            "cri: {}\nregistries: [{{address: '{}'}}]\n",
            dir.path().join(socket).display(),
            registry.url()
        );
        std::fs::write(&config, text).unwrap();
        let output = run(&config, &["resolve", "quay.io/team/app:1"]).await;
        assert!(output.text().contains(advice), "{}", output.text());
    }
}
