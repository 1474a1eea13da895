//! `image-cri-shim webhook` under test, as a process of its own.

use parking_lot::Mutex;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::admission;
use crate::process::{Process, collect};
use crate::wait;

/// A running webhook. It is killed when this is dropped.
pub struct Webhook {
    process: Process,
    log: Arc<Mutex<Vec<String>>>,
    /// Where reviews are answered.
    reviews: SocketAddr,
    /// Where health is.
    health: SocketAddr,
}

fn configure(command: &mut Command, args: &[String], env: &[(&str, &str)]) {
    command
        .arg("webhook")
        .args(["--listen=127.0.0.1:0", "--health-listen=127.0.0.1:0"])
        .args(args)
        .envs(env.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
}

impl Webhook {
    /// Starts `binary` with these arguments and variables; returns when it listens.
    pub async fn start(binary: &Path, args: &[String], env: &[(&str, &str)]) -> Result<Self> {
        let (mut process, log) = spawn(binary, args, env)?;
        let listening = wait::within(wait::TIMEOUT, || {
            let ended = process.ended();
            let addresses = addresses(&text(&log));
            std::future::ready(match (addresses, ended) {
                (Some(addresses), _) => Some(Ok(addresses)),
                (None, Some(status)) => Some(Err(status)),
                (None, None) => None,
            })
        });
        let (reviews, health) = match listening.await {
            Some(Ok(addresses)) => addresses,
            Some(Err(status)) => bail!("the webhook ended with {status}:\n{}", text(&log)),
            None => bail!("the webhook does not listen:\n{}", text(&log)),
        };
        Ok(Self {
            process,
            log,
            reviews,
            health,
        })
    }

    /// Runs `binary` to its end; its exit status and all its output.
    pub async fn run(
        binary: &Path,
        args: &[String],
        env: &[(&str, &str)],
    ) -> Result<(ExitStatus, String)> {
        let (mut process, log) = spawn(binary, args, env)?;
        let status = process.end().await?;
        // The last lines of its output may still be in the pipe; the readers hold the log until they have read them.
        wait::until("its output ends", || async {
            (Arc::strong_count(&log) == 1).then_some(())
        })
        .await;
        Ok((status, text(&log)))
    }

    /// Where reviews are answered.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.reviews
    }

    /// Its process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// All that it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        text(&self.log)
    }

    /// Waits until something is in the log.
    ///
    /// # Panics
    /// When it isn't in time; the log is in the message.
    pub async fn until_logged(&self, part: &str) {
        let logged = wait::within(wait::TIMEOUT, || async {
            self.log().contains(part).then_some(())
        });
        if logged.await.is_none() {
            panic!("no {part:?} in:\n{}", self.log());
        }
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    /// When it isn't in time; the log is in the message.
    pub async fn until_ready(&self) {
        let ready = wait::within(wait::TIMEOUT, || async {
            (self.health("/readyz").await?.0 == 200).then_some(())
        });
        if ready.await.is_none() {
            panic!("not ready:\n{}", self.log());
        }
    }

    /// Status and text of a plain GET on the health listener.
    pub async fn health(&self, path: &str) -> Option<(u16, String)> {
        let client = admission::client(self.reviews, &[]).ok()?;
        let url = format!("http://{}{path}", self.health);
        let response = client.get(url).send().await.ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    }

    /// `response` for a Pod with one container, by a client that trusts `cas`.
    pub async fn response(&self, image: &str, cas: &[&str]) -> Result<Value> {
        let client = admission::client(self.reviews, cas)?;
        admission::ask(&client, &admission::review_of(image)).await
    }

    /// What it makes of one image; `None` when the Pod stays as it is, or there is no answer.
    pub async fn rewritten(&self, image: &str, cas: &[&str]) -> Option<String> {
        let response = self.response(image, cas).await.ok()?;
        let review = admission::review_of(image);
        let pod = admission::admitted(&review, &response).ok()?;
        let moved = pod["spec"]["containers"][0]["image"].as_str()?;
        (moved != image).then(|| moved.to_owned())
    }

    /// Sends SIGTERM.
    pub fn terminate(&mut self) -> Result<()> {
        self.process.signal(Signal::TERM)
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        self.process.end().await
    }
}

type Log = Arc<Mutex<Vec<String>>>;

fn spawn(binary: &Path, args: &[String], env: &[(&str, &str)]) -> Result<(Process, Log)> {
    let mut process = Process::spawn(binary, |command| configure(command, args, env))?;
    let log = Log::default();
    let (stdout, stderr) = process.outputs();
    collect(stdout.context("no stdout")?, Arc::clone(&log));
    collect(stderr.context("no stderr")?, Arc::clone(&log));
    Ok((process, log))
}

fn text(log: &Log) -> String {
    let lines = log.lock();
    lines.join("\n")
}

/// From the line `answering reviews on ADDRESS, health on ADDRESS`, in any log format.
fn addresses(log: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (_, rest) = log.split_once("answering reviews on ")?;
    let (reviews, rest) = rest.split_once(", health on ")?;
    let health = rest.split(['\n', '"']).next()?;
    Some((reviews.parse().ok()?, health.parse().ok()?))
}
