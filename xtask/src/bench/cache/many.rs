//! A store with many images: how long the cache takes to start on it, and what it takes in memory.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::fake_registry::FakeRegistry;
use testkit::images::Image;
use testkit::node_cache::NodeCache;
use testkit::shim::rss_kib;

use super::client::{Client, downloads};
use super::sizes::Sizes;
use crate::bench::report::Report;
use crate::bench::start::mib;

const REPOSITORIES: usize = 100;
/// So many ask at once that the disk is never waited for alone.
const CLIENTS: usize = 16;
/// Filling the store is not what is measured; where it takes longer, that is said.
const FILL_TIMEOUT: Duration = Duration::from_secs(180);
/// What the store of all images takes, and as much again.
const ROOM_EACH: u64 = 64 << 10;

pub(super) async fn measure(report: &mut Report, binary: &Path, sizes: Sizes) -> Result<()> {
    let registry = FakeRegistry::start()?;
    let (mut manifests, mut blobs) = (Vec::new(), Vec::new());
    for number in 0..sizes.images {
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
    let images = sizes.images;
    let config = format!(
        "fallbackToOrigin: false\nregistries: [{{address: '{}'}}]",
        registry.url()
    );
    // In memory, where there is a place for it: filling the store is not what is measured.
    let memory = Path::new("/dev/shm");
    let has_room = rustix::fs::statvfs(memory)
        .is_ok_and(|fs| fs.f_bavail * fs.f_frsize > sizes.images as u64 * ROOM_EACH);
    let mut cache = match has_room {
        true => NodeCache::start_in(binary, &config, memory).await?,
        false => NodeCache::start(binary, &config).await?,
    };
    let started = Instant::now();
    downloads(cache.address(), &manifests, CLIENTS, FILL_TIMEOUT)?;
    downloads(cache.address(), &blobs, CLIENTS, FILL_TIMEOUT)?;
    let filled = started.elapsed().as_secs_f64();
    report.value(
        format!("filling the store with {images} images"),
        filled,
        "s",
        None,
    );
    cache.stop().await?;
    drop(registry);

    let path = blobs.first().context("no images")?;
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..sizes.starts {
        cache.stop().await?;
        let started = Instant::now();
        cache.start_again().await?;
        Client::new(cache.address()).download(path)?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let what = format!("{images} images: exec to the first blob");
    report.value(what, median.as_secs_f64() * 1e3, "ms", None);
    let pid = cache.pid().context("it does not run")?;
    let what = format!("{images} images: RSS after the start");
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
    let listed: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout)?;
    ensure!(listed.len() == images, "{} images are listed", listed.len());
    report.value(format!("{images} images: cache ls"), took * 1e3, "ms", None);
    let what = format!("{images} images: RSS after cache ls");
    report.value(what, mib(rss_kib(pid)?), "MB", None);
    Ok(())
}
