//! What all nodes share: an API server, a containerd, and the way from the nodes' networks to it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use testkit::containerd::Containerd;
use testkit::fake_api_server::FakeApiServer;
use testkit::relay::Relay;
use testkit::wait;

pub(crate) const NAMESPACE: &str = "image-cri-shim-installer";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/image-cri-shim-installer/leases/image-cri-shim-node-installer";
/// How long all nodes together may take, on a machine that is busy with other tests.
pub(crate) const LONG: Duration = Duration::from_secs(420);

pub(crate) struct World {
    pub(crate) server: FakeApiServer,
    pub(crate) containerd: Containerd,
    /// By which nodes reach the API server.
    pub(crate) relay: Relay,
    /// The program of the Pods, by version; and what they find as their service account.
    pub(crate) files: TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        let server = FakeApiServer::start().unwrap();
        Self {
            relay: Relay::to(server.address()).unwrap(),
            server,
            containerd: Containerd::start().await.unwrap(),
            files: tempfile::tempdir().unwrap(),
        }
    }

    /// The program of a version: a byte more is another one.
    pub(crate) fn program(&self, version: u8) -> PathBuf {
        let path = self.files.path().join(format!("program-{version}"));
        if !path.exists() {
            let mut bytes = std::fs::read(env!("CARGO_BIN_EXE_image-cri-shim")).unwrap();
            bytes.extend(std::iter::repeat_n(0, version.into()));
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        path
    }

    pub(crate) fn lease(&self) -> Value {
        self.server.get(LEASE).unwrap_or_default()
    }

    pub(crate) fn clear_marks(&self) {
        self.server.clear_marks(LEASE);
    }

    pub(crate) async fn until_marked(&self) -> String {
        let marks = wait::within(LONG, || async {
            self.server.marks(LEASE).into_values().next()
        });
        marks.await.expect("a node to fail")
    }
}

/// Everything below a folder, but for what is written all the time.
pub(crate) fn snapshot(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    use std::os::unix::fs::MetadataExt;

    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_dir() {
                folders.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                let target = std::fs::read_link(&path).unwrap();
                target.into_os_string().into_encoded_bytes()
            } else {
                std::fs::read(&path).unwrap()
            };
            all.insert(path, (metadata.mode(), content));
        }
    }
    all
}
