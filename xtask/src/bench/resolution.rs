//! Resolving alone: pulls whose runtime answers at once, beside plain requests to the same registries.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use testkit::fake_registry::FakeRegistry;
use testkit::fake_runtime::FakeRuntime;
use testkit::images::Image;
use testkit::shim::{Options, Shim};

use super::report::Report;

const ROUND_TRIP: Duration = Duration::from_millis(20);
const ROUNDS: usize = 21;

/// Five registries at 20 ms, the image on the last.
pub(super) async fn measure(report: &mut Report, binary: &Path) -> Result<()> {
    let runtime = FakeRuntime::start().await?;
    let mut registries = Vec::new();
    for _ in 0..5 {
        registries.push(FakeRegistry::start()?);
    }
    let last = registries
        .last()
        .ok_or_else(|| anyhow!("five registries"))?;
    let image = Image::new("bench resolution");
    for n in 0..2 * ROUNDS {
        last.add(&image, "team/app", &format!("t{n}"));
    }
    for registry in &registries {
        registry.set_delay(ROUND_TRIP);
    }
    let hole = FakeRegistry::start()?;
    hole.set_black_hole(true);

    let sequential = sequential(&registries).await?;
    report.value("5 plain GETs one after another", sequential, "ms", None);
    let shim = shim(binary, &runtime, registries.iter()).await?;
    // Connections are there after the first, as they are on a node at work.
    timed_pull(&shim, "t0").await?;
    let mut cold = Vec::new();
    let mut remembered = Vec::new();
    for n in 1..ROUNDS {
        cold.push(timed_pull(&shim, &format!("t{n}")).await?);
        remembered.push(timed_pull(&shim, &format!("t{n}")).await?);
    }
    let cold = median(&mut cold);
    report.value("resolution cold, 5 registries at 20 ms", cold, "ms", None);
    report.value("in round trips", cold / 20.0, "×", Some(1.25));
    report.value("resolution remembered", median(&mut remembered), "ms", None);

    let with_hole = self::shim(binary, &runtime, std::iter::once(&hole).chain(&registries)).await?;
    let first = timed_pull(&with_hole, "t0").await?;
    let mut later = Vec::new();
    for n in ROUNDS..2 * ROUNDS {
        later.push(timed_pull(&with_hole, &format!("t{n}")).await?);
    }
    report.value("with a black hole on top, first pull", first, "ms", None);
    report.value(
        "with a black hole on top, later pulls",
        median(&mut later),
        "ms",
        None,
    );
    Ok(())
}

async fn sequential(registries: &[FakeRegistry]) -> Result<f64> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut times = Vec::new();
    for n in 0..ROUNDS {
        let started = Instant::now();
        for registry in registries {
            let url = format!("{}/v2/team/app/manifests/t{n}", registry.url());
            client.get(url).send().await?.bytes().await?;
        }
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(&mut times))
}

async fn shim<'a>(
    binary: &Path,
    runtime: &FakeRuntime,
    registries: impl Iterator<Item = &'a FakeRegistry>,
) -> Result<Shim> {
    let entries: Vec<_> = registries
        .zip((1..=10).rev())
        .map(|(registry, priority)| {
            format!("{{address: '{}', priority: {priority}}}", registry.url())
        })
        .collect();
    let config = format!("registries: [{}]", entries.join(", "));
    Shim::start(&config, Options::new(binary, runtime.socket())).await
}

async fn timed_pull(shim: &Shim, tag: &str) -> Result<f64> {
    let started = Instant::now();
    let pulled = shim
        .client()
        .pull(&format!("ghcr.io/team/app:{tag}"), None)
        .await;
    pulled.map_err(|error| anyhow!("pull: {error:?}"))?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}
