//! Cold pulls by a real containerd over a link that limits each connection.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use testkit::containerd::Containerd;
use testkit::docker_registry::DockerRegistry;
use testkit::images::Image;
use testkit::slow_link::{Link, SlowLink};

use super::Sides;
use super::sizes::Sizes;
use crate::bench::report::Report;

const RATE: u64 = 20 << 20;
const ROUND_TRIP: Duration = Duration::from_millis(20);
/// A pull that takes longer hangs.
const PULL_TIMEOUT: Duration = Duration::from_secs(120);

/// Images have one layer: with several, a runtime has several connections of its own.
pub(super) async fn measure(report: &mut Report, binary: &Path, sizes: Sizes) -> Result<()> {
    let containerd = Containerd::start().await?;
    let upstream = DockerRegistry::plain().await?;
    // Each pull gets an image of its own: containerd would know the layers of another.
    for side in ["direct", "proxied", "cached"] {
        for turn in 0..sizes.cold_turns {
            let image = Image::sized(&format!("cold {side} {turn}"), sizes.cold);
            upstream
                .push(&image, &format!("team/{side}"), &turn.to_string())
                .await?;
        }
    }
    let link = Link {
        rate: RATE,
        round_trip: ROUND_TRIP,
    };
    let slow = SlowLink::start(upstream.backend()?, link)?;
    let sides = Sides::start(binary, upstream, slow.address()).await?;
    let (proxy, cache) = (sides.proxy.backend()?, sides.cache.address());
    let mut times = Vec::new();
    for (side, address) in [
        ("direct", slow.address()),
        ("proxied", proxy),
        ("cached", cache),
    ] {
        containerd.write_hosts(
            &format!("{side}.test"),
            &format!("[host.\"http://{address}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"),
        )?;
        times.push((side, Vec::new()));
    }
    let client = containerd.client();
    for turn in 0..sizes.cold_turns {
        for (side, times) in &mut times {
            let name = format!("{side}.test/team/{side}:{turn}");
            let started = Instant::now();
            let pulled = tokio::time::timeout(PULL_TIMEOUT, client.pull(&name, None)).await;
            let pulled = pulled.with_context(|| format!("{name}: no end of the pull"))?;
            pulled.map_err(|error| anyhow!("pull of {name}: {error:?}"))?;
            let took = started.elapsed().as_secs_f64();
            eprintln!("{side}: {took:.2} s");
            times.push(took);
        }
    }
    let mut median = |side: &str| -> Result<f64> {
        let found = times.iter_mut().find(|(name, _)| *name == side);
        let (_, times) = found.context("no such side")?;
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().context("no pull")
    };
    let (direct, proxied, cached) = (median("direct")?, median("proxied")?, median("cached")?);
    let what = format!(
        "cold pull of a {} MiB layer, 20 MiB/s per connection, 20 ms",
        sizes.cold >> 20
    );
    report.value(format!("{what}: direct"), direct, "s", None);
    report.value(format!("{what}: docker-registry"), proxied, "s", None);
    report.value(format!("{what}: cache"), cached, "s", None);
    report.value(
        "… cache as a share of direct",
        cached / direct,
        "×",
        Some(0.4),
    );
    Ok(())
}
