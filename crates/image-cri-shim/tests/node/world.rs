//! What every test here needs: a containerd, registries it may pull from, and a shim in front of it.

use testkit::containerd::Containerd;
use testkit::cri_client::CriClient;
use testkit::docker_registry::DockerRegistry;
use testkit::fake_runtime::FakeRuntime;
use testkit::images::Image;
use testkit::shim::{Options, Shim};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_image-cri-shim");

/// A real runtime and a shim in front of it.
pub(crate) struct World {
    pub(crate) shim: Shim,
    pub(crate) containerd: Containerd,
}

impl World {
    /// Starts both. containerd may pull from `registries` by plain HTTP.
    pub(crate) async fn start(config: &str, registries: &[&DockerRegistry]) -> Self {
        let containerd = Containerd::start().await.unwrap();
        for registry in registries {
            containerd.allow_http(&registry.host()).unwrap();
        }
        let shim = Shim::start(config, Options::new(BINARY, containerd.socket()))
            .await
            .unwrap();
        Self { shim, containerd }
    }

    pub(crate) fn client(&self) -> CriClient {
        self.shim.client()
    }

    /// Pulls through the shim; gives the ID of what the runtime now has by that name.
    pub(crate) async fn pull(&self, image: &str) -> String {
        let pulled = self.client().pull(image, None).await;
        pulled.unwrap_or_else(|error| panic!("{image}: {error:?}\n{}", self.shim.log()));
        self.id_of(image).await.expect("present after the pull")
    }

    /// What ImageStatus through the shim says.
    pub(crate) async fn id_of(&self, image: &str) -> Option<String> {
        let status = self.client().status(image).await.unwrap();
        status.map(|image| image.id)
    }
}

/// A shim in front of a runtime that can be told what to answer.
pub(crate) async fn with_fake_runtime(config: &str) -> (Shim, FakeRuntime) {
    let runtime = FakeRuntime::start().await.unwrap();
    let shim = Shim::start(config, Options::new(BINARY, runtime.socket()))
        .await
        .unwrap();
    (shim, runtime)
}

/// A plain registry that has `image` as `repository:tag`.
pub(crate) async fn registry_with(image: &Image, repository: &str, tag: &str) -> DockerRegistry {
    let registry = DockerRegistry::plain().await.unwrap();
    registry.push(image, repository, tag).await.unwrap();
    registry
}

/// The metrics at `host:port`.
pub(crate) async fn metrics(address: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The oldest of HTTP: an answer ends with its connection.
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Probes that the shim sent to `registry` for a manifest.
pub(crate) fn probes(registry: &DockerRegistry) -> usize {
    registry
        .recording()
        .count(|request| request.is_manifest() && !request.is_from_containerd())
}
