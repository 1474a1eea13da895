//! Clients of an API server.

use std::path::PathBuf;

use cluster::{ClientProvider, KubeconfigCandidates};
use tempfile::TempDir;
use testkit::fake_api_server::FakeApiServer;

/// Clients by the server's kubeconfig, which is in the folder.
pub(crate) fn clients(server: &FakeApiServer) -> (ClientProvider, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kubeconfig");
    std::fs::write(&file, server.kubeconfig()).unwrap();
    (ClientProvider::new(only(file)), dir)
}

/// This kubeconfig is the only one.
pub(crate) fn only(file: PathBuf) -> KubeconfigCandidates {
    KubeconfigCandidates {
        kubeconfig: vec![file],
        ..KubeconfigCandidates::default()
    }
}
