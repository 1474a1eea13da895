//! Calls one at a time and 32 at once, direct and through the shim.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use futures_util::future::try_join_all;
use prost::Message;
use prost::bytes::Bytes;
use testkit::cri_api::{ImageSpec, ImageStatusRequest};
use testkit::cri_client::CriClient;
use testkit::shim::Shim;

use super::report::Report;

/// An image that the fake backend of the bench has.
pub(super) const FAKE_IMAGE: &str = "registry.example.com/team/image-7:1";

const ONE_AT_A_TIME: usize = 4_000;
const AT_ONCE: usize = 32;
const CALLS_AT_ONCE: usize = 20_000;
/// Direct and shim take turns this often, so that a slow spell of the machine hits both.
const TURNS: usize = 5;

/// One kind of call.
struct Kind {
    name: &'static str,
    path: &'static str,
    message: Bytes,
}

fn kinds(image: &str) -> [Kind; 3] {
    let status = ImageStatusRequest {
        image: Some(ImageSpec {
            image: image.to_owned(),
            ..ImageSpec::default()
        }),
        verbose: false,
    };
    [
        Kind {
            name: "ImageStatus",
            path: "/runtime.v1.ImageService/ImageStatus",
            message: status.encode_to_vec().into(),
        },
        Kind {
            name: "ListImages",
            path: "/runtime.v1.ImageService/ListImages",
            message: Bytes::new(),
        },
        Kind {
            name: "Version",
            path: "/runtime.v1.RuntimeService/Version",
            message: Bytes::new(),
        },
    ]
}

/// What one side (direct or shim) took.
#[derive(Default)]
struct Times {
    alone: Vec<Duration>,
    at_once: Duration,
    at_once_calls: usize,
}

impl Times {
    fn percentile(&mut self, percent: usize) -> f64 {
        self.alone.sort_unstable();
        let at = (self.alone.len() * percent / 100).min(self.alone.len().saturating_sub(1));
        self.alone
            .get(at)
            .copied()
            .unwrap_or_default()
            .as_secs_f64()
            * 1e6
    }

    fn per_second(&self) -> f64 {
        self.at_once_calls as f64 / self.at_once.as_secs_f64()
    }
}

/// Measures the three calls against `backend` and against `shim` in front of it.
pub(super) async fn measure(
    report: &mut Report,
    backend: &str,
    socket: &Path,
    shim: &Shim,
    image: &str,
) -> Result<()> {
    let direct = CriClient::new(socket);
    let through = shim.client();
    for kind in kinds(image) {
        let (mut plain, mut shimmed) = (Times::default(), Times::default());
        let mut cpu = Duration::ZERO;
        for client in [&direct, &through] {
            alone(client, &kind, 200, &mut Times::default()).await?;
        }
        for _ in 0..TURNS {
            alone(&direct, &kind, ONE_AT_A_TIME / TURNS, &mut plain).await?;
            alone(&through, &kind, ONE_AT_A_TIME / TURNS, &mut shimmed).await?;
            at_once(&direct, &kind, CALLS_AT_ONCE / TURNS, &mut plain).await?;
            let before = shim.cpu_time()?;
            at_once(&through, &kind, CALLS_AT_ONCE / TURNS, &mut shimmed).await?;
            cpu += shim.cpu_time()? - before;
        }
        let name = format!("{backend} {}", kind.name);
        for percent in [50, 99] {
            let (without, with) = (plain.percentile(percent), shimmed.percentile(percent));
            let goal = if percent == 50 { 40.0 } else { 100.0 };
            report.value(format!("{name} direct p{percent}"), without, "µs", None);
            report.value(format!("{name} shim p{percent}"), with, "µs", None);
            report.value(
                format!("{name} added p{percent}"),
                with - without,
                "µs",
                Some(goal),
            );
        }
        let (without, with) = (plain.per_second(), shimmed.per_second());
        report.value(
            format!("{name} direct, {AT_ONCE} at once"),
            without,
            "calls/s",
            None,
        );
        report.value(
            format!("{name} shim, {AT_ONCE} at once"),
            with,
            "calls/s",
            None,
        );
        let share = 100.0 * with / without;
        report.at_least(format!("{name} share of direct"), share, "%", 55.0);
        let per_call = cpu.as_secs_f64() * 1e6 / shimmed.at_once_calls as f64;
        report.value(
            format!("{name} shim CPU per call"),
            per_call,
            "µs",
            Some(20.0),
        );
    }
    Ok(())
}

/// What counting and remembering costs: the same calls through two shims that differ in nothing else.
pub(super) async fn telemetry(report: &mut Report, off: &Shim, on: &Shim) -> Result<()> {
    let (without, with) = (off.client(), on.client());
    for kind in kinds(FAKE_IMAGE) {
        let (mut off, mut on) = (Times::default(), Times::default());
        for client in [&without, &with] {
            alone(client, &kind, 200, &mut Times::default()).await?;
        }
        for _ in 0..TURNS {
            alone(&without, &kind, ONE_AT_A_TIME / TURNS, &mut off).await?;
            alone(&with, &kind, ONE_AT_A_TIME / TURNS, &mut on).await?;
        }
        for percent in [50, 99] {
            let (off, on) = (off.percentile(percent), on.percentile(percent));
            let name = format!("telemetry, {} p{percent}", kind.name);
            report.value(format!("{name} without"), off, "µs", None);
            report.value(format!("{name} with"), on, "µs", None);
        }
    }
    Ok(())
}

/// Makes `count` status calls through the shim.
pub(super) async fn many(shim: &Shim, count: usize) -> Result<()> {
    let [kind, ..] = kinds(FAKE_IMAGE);
    at_once(&shim.client(), &kind, count, &mut Times::default()).await
}

async fn alone(client: &CriClient, kind: &Kind, count: usize, times: &mut Times) -> Result<()> {
    for _ in 0..count {
        let started = Instant::now();
        call(client, kind).await?;
        times.alone.push(started.elapsed());
    }
    Ok(())
}

async fn at_once(client: &CriClient, kind: &Kind, count: usize, times: &mut Times) -> Result<()> {
    let started = Instant::now();
    let workers = (0..AT_ONCE).map(|_| async {
        for _ in 0..count / AT_ONCE {
            call(client, kind).await?;
        }
        anyhow::Ok(())
    });
    try_join_all(workers).await?;
    times.at_once += started.elapsed();
    times.at_once_calls += count / AT_ONCE * AT_ONCE;
    Ok(())
}

async fn call(client: &CriClient, kind: &Kind) -> Result<()> {
    client
        .unary(kind.path, kind.message.clone(), http::HeaderMap::new())
        .await
        .map_err(|error| anyhow!("{}: {error:?}", kind.name))?;
    Ok(())
}
