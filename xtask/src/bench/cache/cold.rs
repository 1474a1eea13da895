//! Cold pulls by a real containerd over a link that limits each connection.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use testkit::containerd::Containerd;
use testkit::docker_registry::DockerRegistry;
use testkit::images::Image;
use testkit::slow_link::{Link, SlowLink};

use super::Sides;
use crate::bench::report::Report;

const RATE: u64 = 20 << 20;
const ROUND_TRIP: Duration = Duration::from_millis(20);
/// One layer: with several, a runtime has several connections of its own.
const LAYER: usize = 160 << 20;
const TURNS: usize = 3;

pub(super) async fn measure(report: &mut Report, binary: &Path) -> Result<()> {
    let containerd = Containerd::start().await?;
    let upstream = DockerRegistry::plain().await?;
    // Each pull gets an image of its own: containerd would know the layers of another.
    for side in ["direct", "proxied", "cached"] {
        for turn in 0..TURNS {
            let image = Image::sized(&format!("cold {side} {turn}"), LAYER);
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
    for turn in 0..TURNS {
        for (side, times) in &mut times {
            let name = format!("{side}.test/team/{side}:{turn}");
            let started = Instant::now();
            let pulled = client.pull(&name, None).await;
            pulled.map_err(|error| anyhow!("pull of {name}: {error:?}"))?;
            times.push(started.elapsed().as_secs_f64());
        }
    }
    let mut median = |side: &str| -> Result<f64> {
        let found = times.iter_mut().find(|(name, _)| *name == side);
        let (_, times) = found.context("no such side")?;
        times.sort_by(f64::total_cmp);
        times.get(TURNS / 2).copied().context("no pull")
    };
    let (direct, proxied, cached) = (median("direct")?, median("proxied")?, median("cached")?);
    let what = "cold pull of a 160 MiB layer, 20 MiB/s per connection, 20 ms";
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
