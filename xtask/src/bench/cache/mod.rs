//! The node cache beside `docker-registry` as a pull-through proxy and beside a direct pull, in one run.
//!
//! | module | what it measures |
//! |---|---|
//! | [`throughput`] | hits and misses: MiB/s, CPU, first bytes, memory |
//! | [`cold`] | containerd pulls over a link that limits each connection |
//! | [`many`] | start and memory with 10,000 images in the store |
//! | [`client`] | downloads as a runtime makes them, on threads |
//! | [`sizes`] | how much is measured |

mod client;
mod cold;
mod many;
mod sizes;
mod throughput;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use testkit::docker_registry::{DockerRegistry, RegistryOptions};
use testkit::node_cache::NodeCache;

use self::sizes::Sizes;
use super::report::Report;

const MIB: f64 = 1024.0 * 1024.0;

/// Measures all of it. A part that fails is named at the end; the others are measured all the same.
pub(super) async fn measure(report: &mut Report, binary: &Path) -> Result<()> {
    parts(report, binary, Sizes::FULL).await
}

/// Goes through all of it with small sizes, to see that it works.
pub(super) async fn smoke(report: &mut Report, binary: &Path) -> Result<()> {
    parts(report, binary, Sizes::SMOKE).await
}

async fn parts(report: &mut Report, binary: &Path, sizes: Sizes) -> Result<()> {
    let mut failed = Vec::new();
    let mut note = |part: &str, done: Result<()>| {
        if let Err(error) = done {
            eprintln!("{part}: {error:#}");
            failed.push(part.to_owned());
        }
    };
    eprintln!("\n== hits and misses");
    let done = throughput::measure(report, binary, sizes).await;
    note("hits and misses", done);
    eprintln!("\n== cold pulls over a slow link");
    let done = cold::measure(report, binary, sizes).await;
    note("cold pulls", done);
    eprintln!("\n== {} images", sizes.images);
    let done = many::measure(report, binary, sizes).await;
    note("many images", done);
    if failed.is_empty() {
        return Ok(());
    }
    bail!("could not be measured: {}; why is above", failed.join(", "))
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
