//! Pulls on a real containerd.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use futures_util::future::try_join_all;
use testkit::containerd::Containerd;
use testkit::docker_registry::DockerRegistry;
use testkit::images::Image;
use testkit::shim::{Options, Shim};

use super::report::Report;
use super::{calls, start};

const ROUND_TRIP: Duration = Duration::from_millis(20);
const PULLS: usize = 15;

/// The calls of the module `calls` on an image that was pulled through the shim.
pub(super) async fn calls(
    report: &mut Report,
    binary: &Path,
    containerd: &Containerd,
) -> Result<()> {
    let registry = registry(containerd).await?;
    registry
        .push(&Image::new("bench calls"), "team/app", "1")
        .await?;
    let config = format!("address: {}", registry.url());
    let shim = Shim::start(&config, Options::new(binary, containerd.socket())).await?;
    // The same name for both sides: what the runtime knows it as. Through the shim it is then a
    // name that the rules apply to, and has an alias.
    let name = format!("{}/team/app:1", registry.host());
    pull(&shim, &name).await?;
    calls::measure(report, "containerd", containerd.socket(), &shim, &name).await
}

/// Pulls of an image that only the last of five registries has, each 20 ms away; beside direct pulls
/// from that one.
pub(super) async fn five_registries(
    report: &mut Report,
    binary: &Path,
    containerd: &Containerd,
) -> Result<()> {
    let mut registries = Vec::new();
    for _ in 0..5 {
        registries.push(registry(containerd).await?);
    }
    let last = registries
        .last()
        .ok_or_else(|| anyhow!("five registries"))?;
    for n in 0..PULLS {
        for side in ["direct", "shim"] {
            let image = Image::new(&format!("bench {side} {n}"));
            last.push(&image, &format!("team/{side}"), &n.to_string())
                .await?;
        }
    }
    for registry in &registries {
        registry.set_delay(ROUND_TRIP);
    }
    let entries: Vec<_> = registries
        .iter()
        .zip((1..=5).rev())
        .map(|(registry, priority)| {
            format!("{{address: '{}', priority: {priority}}}", registry.url())
        })
        .collect();
    let config = format!("registries: [{}]", entries.join(", "));
    let shim = Shim::start(&config, Options::new(binary, containerd.socket())).await?;
    let direct_client = containerd.client();
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for n in 0..PULLS {
        let started = Instant::now();
        let name = format!("{}/team/direct:{n}", last.host());
        let pulled = direct_client.pull(&name, None).await;
        pulled.map_err(|error| anyhow!("direct pull: {error:?}"))?;
        direct.push(started.elapsed());
        let started = Instant::now();
        pull(&shim, &format!("ghcr.io/team/shim:{n}")).await?;
        through.push(started.elapsed());
    }
    let (direct, through) = (median(&mut direct), median(&mut through));
    report.value("pull direct, 20 ms round trips", direct, "ms", None);
    report.value(
        "pull through 5 registries, image on the last",
        through,
        "ms",
        None,
    );
    report.value("ratio of the two", through / direct, "×", Some(1.25));
    Ok(())
}

/// Memory after 200 pulls at once.
pub(super) async fn two_hundred(
    report: &mut Report,
    binary: &Path,
    containerd: &Containerd,
) -> Result<()> {
    let registry = registry(containerd).await?;
    let image = Image::new("bench two hundred");
    for n in 0..200 {
        registry.push(&image, "team/app", &format!("t{n}")).await?;
    }
    let config = format!("address: {}", registry.url());
    let shim = Shim::start(&config, Options::new(binary, containerd.socket())).await?;
    let pulls = (0..200).map(|n| pull_owned(&shim, format!("ghcr.io/team/app:t{n}")));
    let started = Instant::now();
    try_join_all(pulls).await?;
    report.value(
        "200 pulls at once",
        started.elapsed().as_secs_f64() * 1e3,
        "ms",
        None,
    );
    let rss = start::mib(shim.rss_kib()?);
    report.value("RSS after 200 pulls at once", rss, "MB", Some(20.0));
    Ok(())
}

async fn registry(containerd: &Containerd) -> Result<DockerRegistry> {
    let registry = DockerRegistry::plain().await?;
    containerd.allow_http(&registry.host())?;
    Ok(registry)
}

async fn pull_owned(shim: &Shim, name: String) -> Result<()> {
    pull(shim, &name).await
}

async fn pull(shim: &Shim, name: &str) -> Result<()> {
    let pulled = shim.client().pull(name, None).await;
    pulled.map_err(|error| anyhow!("pull of {name} through the shim: {error:?}"))?;
    Ok(())
}

/// In milliseconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    middle.as_secs_f64() * 1e3
}
