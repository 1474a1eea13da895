//! A real headless Chromium, for pages that people look at.
//!
//! It is started with an empty profile of its own and spoken to over a pair of pipes, so that there is
//! no port that another test could take. Dropping it ends it and deletes the profile.
//!
//! Only one browser runs at a time, in all test programs together: a browser is a dozen processes, and on
//! a small machine several of them starve each other until one dies.

mod install;
mod page;
mod protocol;
mod turn;

#[cfg(test)]
mod tests;

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
use self::turn::Turn;
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

/// How often a browser is started before that counts as failed. Chromium sometimes dies at its start.
const STARTS: usize = 4;

/// What Chromium says, in its profile's folder.
const LOG: &str = "chromium.log";

/// A running browser.
pub struct Browser {
    chromium: Chromium,
    /// Declared last, so that the next browser starts after this one's end.
    _turn: Turn,
}

impl Browser {
    /// Waits until no other browser runs, and starts one; installs it first where it is missing. A task
    /// that has a browser must not start another: it would wait for itself.
    ///
    /// # Errors
    /// It can't be installed, doesn't start, or another browser runs too long.
    pub async fn start() -> Result<Self> {
        Self::with_flags(&[]).await
    }

    /// Starts one with flags of the command line beside the usual ones.
    ///
    /// # Errors
    /// As [`Browser::start`].
    pub async fn with_flags(flags: &[&str]) -> Result<Self> {
        // Installing takes its time, and other tasks of this thread may be what is to be looked at.
        let program = tokio::task::spawn_blocking(ensure).await??;
        Self::launch(&program, flags).await
    }

    async fn launch(program: &Path, flags: &[&str]) -> Result<Self> {
        let turn = Turn::wait().await?;
        let mut starts = 1;
        let chromium = loop {
            match Chromium::launch(program, flags).await {
                Ok(chromium) => break chromium,
                Err(error) if starts == STARTS => {
                    return Err(error.context(format!("{STARTS} starts failed; the last one")));
                }
                Err(error) => eprintln!("testkit: Chromium did not start; trying again: {error:#}"),
            }
            starts += 1;
        };
        Ok(Self {
            chromium,
            _turn: turn,
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
        Page::open(self.chromium.connection.clone()).await
    }
}

/// The process and what belongs to it.
struct Chromium {
    connection: Connection,
    process: Process,
    _profile: TempDir,
}

impl Chromium {
    /// Starts it with an empty profile and waits until it answers.
    async fn launch(program: &Path, flags: &[&str]) -> Result<Self> {
        let profile = tempfile::Builder::new()
            .prefix("testkit-browser-")
            .tempdir()?;
        let log = profile.path().join(LOG);
        let mut process = spawn(program, profile.path(), &log, flags)?;
        let (commands, messages) = process.pipes().context("just spawned")?;
        let chromium = Self {
            connection: Connection::new(commands, messages),
            process,
            _profile: profile,
        };
        chromium
            .connection
            .command(None, "Browser.getVersion", json!({}))
            .await
            .with_context(|| {
                format!(
                    "starting Chromium; the last lines of its log:\n{}",
                    tail(&log)
                )
            })?;
        Ok(chromium)
    }
}

impl Drop for Chromium {
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
