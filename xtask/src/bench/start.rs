//! Binary size, and the time from exec to the first answer.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use testkit::cri_client::CriClient;

use super::report::Report;

const STARTS: usize = 15;
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// KiB as MB of a million bytes, which is what the goals are in.
pub(super) fn mib(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}

/// How large the binary is.
pub(super) fn binary(report: &mut Report, binary: &Path) -> Result<()> {
    let size = std::fs::metadata(binary)
        .with_context(|| format!("no release binary at {}", binary.display()))?
        .len();
    report.value("binary size", size as f64 / 1e6, "MB", Some(15.0));
    Ok(())
}

/// How long it takes from exec to the first answered call; the median of some starts.
pub(super) async fn exec(report: &mut Report, binary: &Path, runtime: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, socket) = (dir.path().join("config.yaml"), dir.path().join("shim.sock"));
    let text = format!(
        "shim: {}\ncri: {}\nimage: {}\nmetricsAddress: 127.0.0.1:0\naddress: http://127.0.0.1:1\n",
        socket.display(),
        runtime.display(),
        dir.path().join("state").display()
    );
    std::fs::write(&config, text)?;
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let started = Instant::now();
        let mut child = Command::new(binary)
            .arg("-f")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let answered = loop {
            if CriClient::new(&socket).version().await.is_ok() {
                break true;
            }
            if started.elapsed() > START_TIMEOUT {
                break false;
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        };
        times.push(started.elapsed());
        child.kill()?;
        child.wait()?;
        if !answered {
            bail!("the shim gave no answer within {START_TIMEOUT:?}");
        }
    }
    times.sort_unstable();
    let median = times.get(STARTS / 2).copied().unwrap_or_default();
    let millis = median.as_secs_f64() * 1e3;
    report.value("exec to first answer", millis, "ms", Some(10.0));
    Ok(())
}
