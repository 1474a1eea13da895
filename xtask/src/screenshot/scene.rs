//! What the pictures show: a site with its registries, one of them unreachable, and some pulls.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};
use testkit::containerd::Containerd;
use testkit::fake_registry::{Behaviour, FakeRegistry};
use testkit::images::Image;
use testkit::netns::{self, BLACK_HOLE};
use testkit::shim::{Options, Shim};
use tokio::net::{TcpListener, TcpStream};

use super::ADDRESS;

/// A pull that goes on while the pictures are taken.
const BLOB_DELAY: Duration = Duration::from_secs(120);

/// All that was started. Dropping it ends it.
pub(crate) struct Scene {
    shim: Shim,
    _containerd: Containerd,
    _registries: Vec<FakeRegistry>,
}

/// A registry: its name, its address in the network, how long it takes to answer, what it has.
struct Place {
    host: &'static str,
    address: &'static str,
    delay_ms: u64,
    /// Repository, tag, and how long its content takes.
    images: &'static [(&'static str, &'static str, u64)],
}

const HUB: Place = Place {
    host: "sealos.hub:5000",
    address: "127.0.1.1:5000",
    delay_ms: 2,
    images: &[
        ("library/nginx", "1.27", 240),
        ("library/redis", "7", 0),
        ("library/node", "22", 0),
    ],
};
const HARBOR: Place = Place {
    host: "harbor.corp",
    address: "127.0.1.2:80",
    delay_ms: 16,
    images: &[
        ("proxy-cache/library/postgres", "17", 620),
        ("proxy-cache/library/redis", "7", 310),
        ("proxy-cache/team/api", "2.4.1", 190),
    ],
};
const TEAM: Place = Place {
    host: "registry.team.corp",
    address: "127.0.1.3:80",
    delay_ms: 9,
    images: &[],
};
const MIRROR: Place = Place {
    host: "eu.mirror.example",
    address: "127.0.1.4:80",
    delay_ms: 38,
    images: &[("docker/bitnami/kafka", "3.9", 880)],
};
const QUAY: Place = Place {
    host: "quay.io",
    address: "127.0.1.5:80",
    delay_ms: 60,
    images: &[("prometheus/prometheus", "v3.1.0", 700)],
};
const GITHUB: Place = Place {
    host: "ghcr.io",
    address: "127.0.1.6:80",
    delay_ms: 60,
    images: &[],
};

const CONFIG: &str = "
address: http://sealos.hub:5000
auth: admin:passw0rd
registries:
  - {address: http://harbor.corp/proxy-cache, priority: 800}
  - {address: http://registry.team.corp, priority: 700}
  - {address: http://away.example, priority: 600}
imageRedirMapping:
  - {src: docker.io/bitnami/, to: http://eu.mirror.example/docker/bitnami/}
";

impl Scene {
    /// Starts everything. Inside a network of its own only.
    pub(crate) async fn set(binary: &Path) -> Result<Self> {
        let places = [HUB, HARBOR, TEAM, MIRROR, QUAY, GITHUB];
        let mut names = vec![("away.example", BLACK_HOLE)];
        for place in &places {
            let name = place.host.split(':').next().unwrap_or_default();
            let address = place.address.split(':').next().unwrap_or_default();
            names.push((name, address));
        }
        netns::call(&names)?;
        let containerd = Containerd::start().await?;
        let mut registries = Vec::new();
        for place in &places {
            registries.push(place.open().await?);
            let url = format!("http://{}", place.host);
            containerd.write_hosts(place.host, &format!("[host.\"{url}\"]\n"))?;
        }
        registries[0].require_basic("admin", "passw0rd");
        // It has the manifest, and lost what it names.
        registries[0].behave_for_blobs(
            "library/redis",
            Behaviour::Status(http::StatusCode::NOT_FOUND),
        );
        registries[0].behave_for_blobs("library/node", Behaviour::Slow(BLOB_DELAY));
        registries[2].require_basic("somebody", "else");
        let socket = usual_socket(containerd.socket())?;
        let config = format!("{CONFIG}metricsAddress: {ADDRESS}\n");
        let shim = Shim::start(&config, Options::new(binary, socket)).await?;
        Ok(Self {
            shim,
            _containerd: containerd,
            _registries: registries,
        })
    }

    /// Pulls what there is to see, and one thing that doesn't end.
    pub(crate) async fn play(&self) -> Result<()> {
        for (image, is_there) in [
            ("nginx:1.27", true),
            ("postgres:17", true),
            ("redis:7", true),
            ("ghcr.io/team/api:2.4.1", true),
            ("quay.io/prometheus/prometheus:v3.1.0", true),
            ("bitnami/kafka:3.9", true),
            ("nginx:1.27", true),
            ("ghcr.io/team/worker:2.4.1", false),
        ] {
            let pulled = self.shim.client().pull(image, None).await;
            if is_there {
                pulled.with_context(|| format!("{image}\n{}", self.shim.log()))?;
            }
        }
        let client = self.shim.client();
        tokio::spawn(async move { client.pull("node:22", None).await });
        Ok(())
    }
}

/// Lets the socket be where people know it, in mounts of our own.
fn usual_socket(socket: &Path) -> Result<&'static Path> {
    let usual = Path::new("/run/containerd/containerd.sock");
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None)?;
    fs::create_dir("/run/containerd")?;
    symlink(socket, usual)?;
    Ok(usual)
}

impl Place {
    /// Starts it and lets its address lead there.
    async fn open(&self) -> Result<FakeRegistry> {
        let registry = FakeRegistry::start()?;
        registry.set_delay(Duration::from_millis(self.delay_ms));
        for (repository, tag, milliseconds) in self.images {
            registry.add(
                &Image::new(&format!("{repository} at {}", self.host)),
                repository,
                tag,
            );
            let slow = Behaviour::Slow(Duration::from_millis(*milliseconds));
            registry.behave_for_blobs(repository, slow);
        }
        let listener = TcpListener::bind(self.address).await?;
        tokio::spawn(forward(listener, registry.address()));
        Ok(registry)
    }
}

/// Gives every connection to `to`.
async fn forward(listener: TcpListener, to: SocketAddr) {
    while let Ok((mut client, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut server = TcpStream::connect(to).await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        });
    }
}
