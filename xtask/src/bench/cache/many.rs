//! A store with many images: how long the cache takes to start on it, and what it takes in memory.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::fake_registry::FakeRegistry;
use testkit::images::Image;
use testkit::node_cache::NodeCache;
use testkit::shim::rss_kib;

use super::client::{download, downloads};
use crate::bench::report::Report;
use crate::bench::start::mib;

pub(super) const IMAGES: usize = 10_000;
const REPOSITORIES: usize = 100;
/// So many ask at once that the disk is never waited for alone.
const CLIENTS: usize = 16;
const STARTS: usize = 5;

pub(super) async fn measure(report: &mut Report, binary: &Path) -> Result<()> {
    let registry = FakeRegistry::start()?;
    let (mut manifests, mut blobs) = (Vec::new(), Vec::new());
    for number in 0..IMAGES {
        let image = Image::new(&format!("many {number}"));
        let repository = format!("team/app-{}", number % REPOSITORIES);
        let tag = format!("t{number}");
        registry.add(&image, &repository, &tag);
        manifests.push(format!("/v2/{repository}/manifests/{tag}?ns=images.test"));
        for blob in &image.blobs {
            let digest = &blob.digest;
            blobs.push(format!("/v2/{repository}/blobs/{digest}?ns=images.test"));
        }
    }
    let config = format!(
        "fallbackToOrigin: false\nregistries: [{{address: '{}'}}]",
        registry.url()
    );
    // In memory, where there is a place for it: filling the store is not what is measured.
    let memory = Path::new("/dev/shm");
    let mut cache = match memory.is_dir() {
        true => NodeCache::start_in(binary, &config, memory).await?,
        false => NodeCache::start(binary, &config).await?,
    };
    let started = Instant::now();
    downloads(cache.address(), &manifests, CLIENTS)?;
    downloads(cache.address(), &blobs, CLIENTS)?;
    let filled = started.elapsed().as_secs_f64();
    report.value(
        format!("filling the store with {IMAGES} images"),
        filled,
        "s",
        None,
    );
    cache.stop().await?;
    drop(registry);

    let path = blobs.first().context("no images")?;
    let mut times: Vec<Duration> = Vec::new();
    let mut buffer = vec![0; 4096];
    for _ in 0..STARTS {
        cache.stop().await?;
        let started = Instant::now();
        cache.start_again().await?;
        download(cache.address(), path, &mut buffer)?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    let median = times.get(STARTS / 2).copied().unwrap_or_default();
    let what = format!("{IMAGES} images: exec to the first blob");
    report.value(what, median.as_secs_f64() * 1e3, "ms", None);
    let pid = cache.pid().context("it does not run")?;
    let what = format!("{IMAGES} images: RSS after the start");
    report.value(what, mib(rss_kib(pid)?), "MB", Some(64.0));

    let started = Instant::now();
    let listed = tokio::process::Command::new(binary)
        .args(["cache", "ls", "--json", "--socket"])
        .arg(cache.command_socket())
        .arg("--file")
        .arg(cache.config_file())
        .output()
        .await?;
    let took = started.elapsed().as_secs_f64();
    let images: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout)?;
    ensure!(images.len() == IMAGES, "{} images are listed", images.len());
    report.value(format!("{IMAGES} images: cache ls"), took * 1e3, "ms", None);
    let what = format!("{IMAGES} images: RSS after cache ls");
    report.value(what, mib(rss_kib(pid)?), "MB", None);
    Ok(())
}
