//! The host of this Pod, changed by `image-cri-shim install --host` as a process of its own: only that one leaves the Pod's
//! files, and this one goes on to have its service account and the Lease.

use std::ffi::OsString;
use std::process::{Output, Stdio};

use node_installer::Host;
use tokio::process::Command;

/// This program, whatever became of its file.
const PROGRAM: &str = "/proc/self/exe";
/// Where a host keeps its programs. A container's own PATH says nothing about that.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What `--check` ends with where something is to be done.
const TO_DO: i32 = 3;

/// The host, and the command that changes it.
pub(super) struct PodHost {
    /// `install` or `uninstall`, with its options.
    pub(super) command: Vec<OsString>,
}

impl PodHost {
    async fn run(&self, more: &[&str]) -> Result<Output, String> {
        Command::new(PROGRAM)
            .args(&self.command)
            .arg("--host")
            .args(more)
            .env_clear()
            .env("PATH", PATH)
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|error| format!("cannot start this program once more: {error}"))
    }
}

impl Host for PodHost {
    async fn is_done(&self) -> Result<bool, String> {
        let output = self.run(&["--check"]).await?;
        tell(&output);
        match output.status.code() {
            Some(0) => Ok(true),
            Some(TO_DO) => Ok(false),
            _ => Err(why(&output)),
        }
    }

    async fn change(&self) -> Result<(), String> {
        let output = self.run(&[]).await?;
        tell(&output);
        if output.status.success() {
            Ok(())
        } else {
            Err(why(&output))
        }
    }
}

/// What it has done, in the log.
fn tell(output: &Output) {
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        tracing::info!("{line}");
    }
}

fn why(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = errors.lines().collect();
    for line in &errors {
        tracing::warn!("{line}");
    }
    // What went wrong at the end is what the node is left with.
    match errors.last() {
        Some(last) => (*last).to_owned(),
        None => format!("image-cri-shim ended with {}", output.status),
    }
}
