//! The admission webhook: reviews per second on the one thread that it has, over TLS and HTTP/2 as an
//! API server asks.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use futures_util::stream;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use testkit::certs::Ca;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::report::Report;
use super::start::mib;

const NAME: &str = "webhook.test.svc";
/// A Pod of a Deployment as an API server sends it, 4 KB.
const REVIEW: &str = include_str!("../../../crates/webhook/tests/fixtures/create.json");
const REVIEWS: usize = 50_000;
/// A large cluster's API servers rarely have more in flight to one webhook.
const AT_ONCE: usize = 32;
/// Linux counts a process's time in hundredths of a second.
const TICKS: f64 = 100.0;

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
    let mut child = Command::new(binary)
        .arg("webhook")
        .args(["--listen=127.0.0.1:0", "--health-listen=127.0.0.1:0"])
        .args(["--shutdown-delay=0s", "--log-format=json"])
        .arg(format!("--file={}", path("config.yaml").display()))
        .arg(format!("--tls-cert={}", path("tls.crt").display()))
        .arg(format!("--tls-key={}", path("tls.key").display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let address = listening(&mut child).await?;
    let pid = child.id().context("the webhook has ended")?;
    let client = client(address, &ca.pem())?;
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
    let (cpu, started) = (cpu_seconds(pid)?, Instant::now());
    let mut times = run(&client, REVIEWS, AT_ONCE).await?;
    let elapsed = started.elapsed().as_secs_f64();
    let busy = cpu_seconds(pid)? - cpu;
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
    child.kill().await?;
    Ok(())
}

/// The address from the log; the rest of the log is read and dropped, so that nothing waits for it.
async fn listening(child: &mut Child) -> Result<SocketAddr> {
    let stderr = child.stderr.take().context("no stderr")?;
    let mut lines = BufReader::new(stderr).lines();
    while let Some(line) = lines.next_line().await? {
        let Some((_, rest)) = line.split_once("answering reviews on ") else {
            continue;
        };
        let (address, _) = rest.split_once(',').context("no address in the log")?;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        return address.parse().context("no address in the log");
    }
    bail!("the webhook ended before it listened")
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
        let url = format!("https://{NAME}/mutate?timeout=5s");
        let response = client.post(url).body(REVIEW).send().await?;
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

fn client(address: SocketAddr, ca: &str) -> Result<reqwest::Client> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .no_proxy()
        .resolve(NAME, address)
        .build()?)
}

fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let at = times.len().saturating_sub(1) * percent / 100;
    times.get(at).map_or(0.0, Duration::as_secs_f64) * 1e3
}

fn rss_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.context("no VmRSS")?.parse().context("no VmRSS")
}

/// User and system time (proc(5), `/proc/PID/stat`, fields 14 and 15).
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after_name) = stat.rsplit_once(')').context("no process name")?;
    let ticks = |field: usize| -> Result<f64> {
        let text = after_name.split_whitespace().nth(field - 3);
        text.context("too few fields")?
            .parse()
            .context("not a number")
    };
    Ok((ticks(14)? + ticks(15)?) / TICKS)
}
