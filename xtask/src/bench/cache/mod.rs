//! The node cache beside `docker-registry` as a pull-through proxy and beside a direct pull, in one run.
//!
//! | module | what it measures |
//! |---|---|
//! | [`throughput`] | hits and misses: MiB/s, CPU, first bytes, memory |
//! | [`cold`] | containerd pulls over a link that limits each connection |
//! | [`many`] | start and memory with 10,000 images in the store |
//! | [`client`] | downloads as a runtime makes them, on threads |

mod client;
mod cold;
mod many;
mod throughput;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use testkit::docker_registry::{DockerRegistry, RegistryOptions};
use testkit::node_cache::NodeCache;

use super::report::Report;

const MIB: f64 = 1024.0 * 1024.0;

/// Measures all of it.
pub(super) async fn measure(report: &mut Report, binary: &Path) -> Result<()> {
    throughput::measure(report, binary).await?;
    eprintln!("\n== cold pulls over a slow link");
    cold::measure(report, binary).await?;
    eprintln!("\n== {} images", many::IMAGES);
    many::measure(report, binary).await
}

/// A registry and two ways past it: each has nothing yet.
struct Sides {
    upstream: DockerRegistry,
    proxy: DockerRegistry,
    cache: NodeCache,
}

/// One of the ways.
#[derive(Clone, Copy)]
struct Side {
    name: &'static str,
    address: SocketAddr,
    pid: u32,
}

impl Sides {
    /// The two ways lead to `upstream` by `address`.
    async fn start(binary: &Path, upstream: DockerRegistry, address: SocketAddr) -> Result<Self> {
        let url = format!("http://{address}");
        let proxy = DockerRegistry::start(RegistryOptions {
            mirror_of: Some(url.clone()),
            ..RegistryOptions::default()
        });
        let config = format!("fallbackToOrigin: false\nregistries: [{{address: '{url}'}}]");
        Ok(Self {
            upstream,
            proxy: proxy.await.context("docker-registry as a proxy")?,
            cache: NodeCache::start(binary, &config).await?,
        })
    }

    fn direct(&self) -> Result<Side> {
        side("direct", self.upstream.backend()?, self.upstream.pid())
    }

    fn proxy(&self) -> Result<Side> {
        side("docker-registry", self.proxy.backend()?, self.proxy.pid())
    }

    fn cache(&self) -> Result<Side> {
        side("cache", self.cache.address(), self.cache.pid())
    }
}

fn side(name: &'static str, address: SocketAddr, pid: Option<u32>) -> Result<Side> {
    let pid = pid.context("it does not run")?;
    Ok(Side { name, address, pid })
}
