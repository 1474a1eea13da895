//! The admission webhook: reviews per second on the one thread that it has, over TLS and HTTP/2 as an
//! API server asks.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::StreamExt;
use futures_util::stream;
use testkit::admission::{self, NAME};
use testkit::certs::Ca;
use testkit::shim::{cpu_time, rss_kib};
use testkit::webhook::Webhook;

use super::report::Report;
use super::start::mib;

/// A Pod of a Deployment as an API server sends it, 4 KB.
const REVIEW: &str = include_str!("../../../crates/webhook/tests/fixtures/create.json");
const REVIEWS: usize = 50_000;
/// A large cluster's API servers rarely have more in flight to one webhook.
const AT_ONCE: usize = 32;

/// Starts the release binary and asks.
pub(super) async fn measure(report: &mut Report, binary: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ca = Ca::new()?;
    let cert = ca.issue(&[NAME])?;
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("tls.crt"), &cert.cert_pem)?;
    std::fs::write(path("tls.key"), &cert.key_pem)?;
    let config = "imageRedirMapping: [{src: docker.io/, to: project-a.azurecr.io/docker-mirror/}, \
                  {src: quay.io, to: q.io/m, pullSecret: mirror}]\n";
    std::fs::write(path("config.yaml"), config)?;
    let args = [
        "--shutdown-delay=0s".to_owned(),
        "--log-format=json".to_owned(),
        format!("--file={}", path("config.yaml").display()),
        format!("--tls-cert={}", path("tls.crt").display()),
        format!("--tls-key={}", path("tls.key").display()),
    ];
    let webhook = Webhook::start(binary, &args, &[]).await?;
    let pid = webhook.pid();
    let client = admission::client(webhook.address(), &[&ca.pem()])?;
    warm_up(&client).await?;
    report.value("webhook: RSS, warm", mib(rss_kib(pid)?), "MB", Some(30.0));

    // With one at a time nothing waits behind anything: the latency of a review itself.
    let mut alone = run(&client, 2_000, 1).await?;
    report.value(
        "webhook: p50, one at a time",
        percentile(&mut alone, 50),
        "ms",
        None,
    );
    report.value(
        "webhook: p99, one at a time",
        percentile(&mut alone, 99),
        "ms",
        Some(5.0),
    );
    let (cpu, started) = (cpu_time(pid)?, Instant::now());
    let mut times = run(&client, REVIEWS, AT_ONCE).await?;
    let elapsed = started.elapsed().as_secs_f64();
    let busy = (cpu_time(pid)? - cpu).as_secs_f64();
    let reviews = REVIEWS as f64;
    let label = format!("webhook: reviews/s, {AT_ONCE} at once");
    report.at_least(label, reviews / elapsed, "1/s", 5_000.0);
    report.at_least(
        "webhook: reviews per second of CPU",
        reviews / busy,
        "1/s",
        5_000.0,
    );
    let label = format!("webhook: p99, {AT_ONCE} at once");
    report.value(label, percentile(&mut times, 99), "ms", Some(5.0));
    let label = format!("webhook: RSS after {REVIEWS} reviews");
    report.value(label, mib(rss_kib(pid)?), "MB", Some(30.0));
    Ok(())
}

async fn warm_up(client: &reqwest::Client) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = run(client, 200, 1).await {
        if Instant::now() > deadline {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn run(client: &reqwest::Client, count: usize, at_once: usize) -> Result<Vec<Duration>> {
    let ask = |_| async {
        let started = Instant::now();
        let response = client.post(admission::url()).body(REVIEW).send().await?;
        let body = response.error_for_status()?.bytes().await?;
        if !body.windows(7).any(|part| part == b"\"patch\"") {
            bail!("a review came back without a patch");
        }
        Ok(started.elapsed())
    };
    let results: Vec<Result<Duration>> = stream::iter(0..count)
        .map(ask)
        .buffer_unordered(at_once)
        .collect()
        .await;
    results.into_iter().collect()
}

fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let at = times.len().saturating_sub(1) * percent / 100;
    times.get(at).map_or(0.0, Duration::as_secs_f64) * 1e3
}
