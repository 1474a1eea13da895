//! Hits and misses over loopback, where nothing but the programs themselves is in the way.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use testkit::docker_registry::DockerRegistry;
use testkit::images::{Blob, digest, noise};
use testkit::shim::cpu_time;

use super::client::{Download, downloads};
use super::sizes::Sizes;
use super::{MIB, Side, Sides};
use crate::bench::report::Report;
use crate::bench::start::mib;

const REPOSITORY: &str = "team/app";
/// One turn of one side; what takes longer is not fit for comparison.
const TURN_TIMEOUT: Duration = Duration::from_secs(120);
/// The sides take turns this often, so that a slow spell of the machine hits all.
const TURNS: usize = 2;

/// What one side took for some downloads.
#[derive(Default)]
struct Took {
    bytes: u64,
    time: Duration,
    cpu: Duration,
    first_bytes: Vec<Duration>,
}

impl Took {
    fn add(&mut self, side: Side, paths: &[String], clients: usize) -> Result<()> {
        let (cpu, started) = (cpu_time(side.pid)?, Instant::now());
        let all = downloads(side.address, paths, clients, TURN_TIMEOUT).context(side.name)?;
        self.time += started.elapsed();
        self.cpu += cpu_time(side.pid)? - cpu;
        self.bytes += all.iter().map(|done| done.bytes).sum::<u64>();
        self.first_bytes
            .extend(all.iter().map(|done: &Download| done.first_byte));
        Ok(())
    }

    fn per_second(&self) -> f64 {
        self.bytes as f64 / MIB / self.time.as_secs_f64()
    }

    fn cpu_per_gib(&self) -> f64 {
        self.cpu.as_secs_f64() * 1024.0 / (self.bytes as f64 / MIB)
    }

    fn first_byte(&mut self) -> f64 {
        self.first_bytes.sort_unstable();
        let middle = self.first_bytes.get(self.first_bytes.len() / 2);
        middle.copied().unwrap_or_default().as_secs_f64() * 1e3
    }
}

pub(super) async fn measure(report: &mut Report, binary: &Path, sizes: Sizes) -> Result<()> {
    let upstream = DockerRegistry::plain().await?;
    let pusher = upstream.pusher()?;
    let hit = blob("hit", sizes.hit);
    let small = blob("small", 4096);
    for blob in [&hit, &small] {
        pusher.push_blob(blob, REPOSITORY).await?;
    }
    let mut misses = Vec::new();
    for number in 0..sizes.misses {
        let blob = blob(&format!("miss {number}"), sizes.miss);
        pusher.push_blob(&blob, REPOSITORY).await?;
        misses.push(path(&blob.digest));
    }
    let address = upstream.backend()?;
    let sides = Sides::start(binary, upstream, address).await?;
    let all = [sides.direct()?, sides.proxy()?, sides.cache()?];
    // Nothing else is to run meanwhile, so the clients may block this thread.
    misses_of(report, all, &misses, sizes)?;
    hits_of(report, all, &path(&hit.digest), &path(&small.digest), sizes)?;
    for side in all {
        let what = format!("{}: RSS at its highest, all that over", side.name);
        let goal = (side.name == "cache").then_some(64.0);
        report.value(what, peak(side.pid)?, "MB", goal);
    }
    Ok(())
}

/// Each blob once from each side; from the two caches that is the first time.
fn misses_of(report: &mut Report, sides: [Side; 3], paths: &[String], sizes: Sizes) -> Result<()> {
    let mut took: [Took; 3] = Default::default();
    for path in paths {
        for (side, took) in sides.into_iter().zip(&mut took) {
            took.add(side, std::slice::from_ref(path), 1)?;
        }
    }
    let [direct, proxy, cache] = &mut took;
    let what = format!("miss, layers of {} MiB", sizes.miss >> 20);
    for (side, took) in sides.iter().zip([&*direct, &*proxy, &*cache]) {
        let name = format!("{what}: {}", side.name);
        report.value(name, took.per_second(), "MiB/s", None);
    }
    let share = cache.per_second() / direct.per_second();
    report.at_least("… cache as a share of direct", share, "×", 1.0);
    for (side, took) in sides.iter().zip([direct, proxy, cache]) {
        let name = format!("miss, first byte: {}", side.name);
        report.value(name, took.first_byte(), "ms", None);
    }
    Ok(())
}

/// One large layer again and again, by one client and by many; and a small one for the time to its first byte.
fn hits_of(
    report: &mut Report,
    sides: [Side; 3],
    large: &str,
    small: &str,
    sizes: Sizes,
) -> Result<()> {
    // What comes first is a miss, and the first read of a file may come from the disk.
    for side in sides {
        Took::default().add(side, &vec![large.to_owned(); 2], 1)?;
        Took::default().add(side, &[small.to_owned()], 1)?;
    }
    let mut gib = 0.0;
    for (clients, each) in [(1, sizes.hits_alone), (sizes.clients, sizes.clients)] {
        let paths = vec![large.to_owned(); each];
        let mut took: [Took; 3] = Default::default();
        for _ in 0..TURNS {
            for (side, took) in sides.into_iter().zip(&mut took) {
                took.add(side, &paths, clients)?;
            }
        }
        let [direct, proxy, cache] = &took;
        gib += cache.bytes as f64 / MIB / 1024.0;
        let what = format!("hit, {clients} at once");
        for (side, took) in sides.iter().zip([direct, proxy, cache]) {
            let name = format!("{what}: {}", side.name);
            report.value(name, took.per_second(), "MiB/s", None);
            let name = format!("{what}, CPU per GiB: {}", side.name);
            report.value(name, took.cpu_per_gib(), "s", None);
        }
        let share = cache.per_second() / proxy.per_second();
        report.at_least("… cache as a share of docker-registry", share, "×", 1.5);
        let share = cache.cpu_per_gib() / proxy.cpu_per_gib();
        let name = "… its CPU per GiB as a share of docker-registry's";
        report.value(name, share, "×", Some(1.0));
    }
    report.value("hits, in all, per side", gib, "GiB", None);
    let mut took: [Took; 3] = Default::default();
    for (side, took) in sides.into_iter().zip(&mut took) {
        took.add(side, &vec![small.to_owned(); sizes.small_hits], 1)?;
    }
    for (side, took) in sides.iter().zip(&mut took) {
        let name = format!("hit, first byte: {}", side.name);
        report.value(name, took.first_byte(), "ms", None);
    }
    Ok(())
}

fn blob(seed: &str, length: usize) -> Blob {
    let content = noise(seed, length);
    Blob {
        digest: digest(&content),
        content: content.into(),
    }
}

fn path(digest: &str) -> String {
    format!("/v2/{REPOSITORY}/blobs/{digest}?ns=images.test")
}

/// Resident memory of a process at its highest, in MB.
fn peak(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("no VmHWM in /proc/<pid>/status")?;
    let kib = line.split_whitespace().next().unwrap_or_default().parse()?;
    Ok(mib(kib))
}
