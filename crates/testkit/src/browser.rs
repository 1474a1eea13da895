//! A real headless Chromium, for pages that people look at.
//!
//! It is started with an empty profile of its own and spoken to over a pair of pipes, so that there is
//! no port that another test could take. Dropping it ends it and deletes the profile.

mod install;
mod page;
mod protocol;

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;
use tempfile::TempDir;

pub use self::install::ensure;
pub use self::page::{Page, Viewport};
use self::protocol::Connection;
use crate::process::{Process, tail};

const FLAGS: [&str; 17] = [
    "--headless",
    "--remote-debugging-pipe",
    // Tests run as root, where Chromium has no sandbox.
    "--no-sandbox",
    "--disable-gpu",
    // Containers have a small /dev/shm.
    "--disable-dev-shm-usage",
    // Nothing but what the test opens goes over the network.
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-proxy-server",
    "--no-first-run",
    "--disable-crash-reporter",
    // The same picture on every machine.
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--lang=en-US",
];

/// A running browser.
pub struct Browser {
    connection: Connection,
    process: Process,
    _profile: TempDir,
}

impl Browser {
    /// Starts one; installs it first where it is missing.
    ///
    /// # Errors
    /// It can't be installed or doesn't start.
    pub async fn start() -> Result<Self> {
        Self::with_flags(&[]).await
    }

    /// Starts one with flags of the command line beside the usual ones.
    ///
    /// # Errors
    /// It can't be installed or doesn't start.
    pub async fn with_flags(flags: &[&str]) -> Result<Self> {
        // Installing takes its time, and other tasks of this thread may be what is to be looked at.
        let chromium = tokio::task::spawn_blocking(ensure).await??;
        let profile = tempfile::Builder::new()
            .prefix("testkit-browser-")
            .tempdir()?;
        let log = profile.path().join("chromium.log");
        let mut process = spawn(&chromium, profile.path(), &log, flags)?;
        let (commands, messages) = process.pipes().context("just spawned")?;
        let connection = Connection::new(commands, messages);
        connection
            .command(None, "Browser.getVersion", json!({}))
            .await
            .with_context(|| format!("starting Chromium; its last words:\n{}", tail(&log)))?;
        Ok(Self {
            connection,
            process,
            _profile: profile,
        })
    }

    /// Opens a page of its own and waits until it has loaded.
    ///
    /// # Errors
    /// The browser has ended.
    pub async fn open(&self, url: &str) -> Result<Page> {
        let page = self.blank().await?;
        page.go(url).await?;
        Ok(page)
    }

    /// Opens an empty page, to be prepared before it goes somewhere.
    ///
    /// # Errors
    /// The browser has ended.
    pub async fn blank(&self) -> Result<Page> {
        Page::open(self.connection.clone()).await
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its helpers would end by themselves, but maybe not before the profile is deleted.
        if let Some(group) = i32::try_from(self.process.pid())
            .ok()
            .and_then(Pid::from_raw)
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Chromium reads commands from descriptor 3 and writes to 4. A shell puts its pipes there.
fn spawn(chromium: &Path, profile: &Path, log: &Path, flags: &[&str]) -> Result<Process> {
    let log = File::create(log)?;
    Process::spawn(Path::new("/bin/sh"), |command| {
        command
            .args(["-c", r#"exec "$@" 3<&0 4>&1 0</dev/null 1>&2"#, "sh"])
            .arg(chromium)
            .args(FLAGS)
            .args(flags)
            .arg(format!("--user-data-dir={}", profile.display()))
            .env("HOME", profile)
            // What it leaves behind when it is killed goes with the profile.
            .env("TMPDIR", profile)
            .env("TZ", "UTC")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
    })
}
