//! The new process, as the old one sees it.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::channel::{AsyncChannel, Channel};
use super::messages::{FromNew, FromOld, FromStarter, ToStarter};
use super::{PROTOCOL, VARIABLE};

/// The program of this process, also where another file has taken its place.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// How long the starter may take to start a process, and to end.
const STARTER_TIMEOUT: Duration = Duration::from_secs(2);

/// How this process was started: the new one is started in the same way.
#[derive(Clone, Debug)]
pub(crate) struct CommandLine {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl CommandLine {
    /// Of this process. To be called before another file takes the place of its program.
    ///
    /// # Errors
    /// Where its program is can't be found out.
    pub(crate) fn own() -> anyhow::Result<Self> {
        let mut arguments = std::env::args_os();
        // A link may lead to another version by now, so it is better than where it led. What is looked up in PATH may
        // be another program.
        let program = arguments.next().map(PathBuf::from);
        let program = match program.filter(|program| program.is_absolute()) {
            Some(program) => program,
            None => std::env::current_exe().context("cannot find out which program this is")?,
        };
        Ok(Self {
            program,
            arguments: arguments.collect(),
        })
    }

    /// The program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }
}

/// A new process. Dropped, it is killed, unless it was [kept](Self::keep).
#[derive(Debug)]
pub(crate) struct Successor {
    control: AsyncChannel<FromOld, FromNew>,
    starter: Option<Starter>,
    pid: u32,
    is_kept: bool,
}

#[derive(Debug)]
struct Starter {
    process: Child,
    control: AsyncChannel<ToStarter, FromStarter>,
}

impl Successor {
    /// Starts it. To be called on the runtime that it is used on.
    ///
    /// # Errors
    /// It can't be started; with the reason.
    pub(crate) async fn start(command: &CommandLine) -> anyhow::Result<Self> {
        let (control, its_end) = Channel::pair().context("cannot make a channel")?;
        let (to_starter, starter_end) = Channel::pair().context("cannot make a channel")?;
        let process = Command::new(OWN_PROGRAM)
            .arg("handover-start")
            .arg("--")
            .arg(&command.program)
            .args(&command.arguments)
            .env(VARIABLE, PROTOCOL)
            // Names this process; without it the watchdog's time holds for whoever reads it.
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::from(starter_end.into_fd()))
            .spawn()
            .context("cannot run this program once more")?;
        let starter = Starter {
            process,
            control: to_starter.into_async()?,
        };
        let its_end = its_end.into_fd();
        let start = ToStarter::Start;
        starter
            .control
            .send(&start, &[its_end.as_fd()])
            .context("cannot tell the starter what to start")?;
        drop(its_end);
        let started = timeout(STARTER_TIMEOUT, starter.control.receive()).await;
        let pid = match started.context("the starter does not start it")?? {
            Some((FromStarter::Started { pid }, _)) => pid,
            Some((FromStarter::NotStarted { why }, _)) => bail!("{why}"),
            Some((FromStarter::Ended { status }, _)) => bail!("{status}"),
            None => bail!("the process that was to start it has ended"),
        };
        Ok(Self {
            control: control.into_async()?,
            starter: Some(starter),
            pid,
            is_kept: false,
        })
    }

    /// Its process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells it something.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn tell(&self, message: &FromOld, fds: &[BorrowedFd<'_>]) -> anyhow::Result<()> {
        let sent = self.control.send(message, fds);
        sent.context("cannot talk to the new process")
    }

    /// What it says next.
    ///
    /// # Errors
    /// It has ended, how; or says that it can't take over, why.
    pub(crate) async fn hear(&self) -> anyhow::Result<FromNew> {
        match self.control.receive().await? {
            Some((FromNew::Failed { why }, _)) => Err(anyhow!("it says: {why}")),
            Some((message, _)) => Ok(message),
            None => Err(anyhow!("it has ended{}", self.how_it_ended().await)),
        }
    }

    /// Why it could not be told something: how it has ended, where it has.
    pub(crate) async fn why(&self, error: anyhow::Error) -> anyhow::Error {
        match timeout(STARTER_TIMEOUT, self.hear()).await {
            Ok(Err(ended)) => ended,
            _ => error,
        }
    }

    async fn how_it_ended(&self) -> String {
        let Some(starter) = &self.starter else {
            return String::new();
        };
        let ended = timeout(STARTER_TIMEOUT, starter.control.receive()).await;
        match ended {
            Ok(Ok(Some((FromStarter::Ended { status }, _)))) => format!(" ({status})"),
            _ => String::new(),
        }
    }

    /// Makes it a child of whoever takes over orphans: systemd. From now on it lives when this process ends.
    ///
    /// # Errors
    /// It has ended, or the starter does not.
    pub(crate) async fn release(&mut self) -> anyhow::Result<()> {
        let Some(mut starter) = self.starter.take() else {
            return Ok(());
        };
        let released = async {
            starter.control.send(&ToStarter::Release, &[])?;
            starter.process.wait().await
        };
        let status = timeout(STARTER_TIMEOUT, released).await;
        let status = status.context("its starter does not end")??;
        if !status.success() {
            bail!("its starter has failed ({status})");
        }
        Ok(())
    }

    /// Kills it and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        match self.starter.take() {
            Some(mut starter) => {
                self.is_kept = true;
                drop(starter.control);
                // Killed or not, nothing more can be done.
                let _ = timeout(STARTER_TIMEOUT, starter.process.wait()).await;
            }
            None => drop(self),
        }
    }

    /// Keeps it alive; what is left to do is to talk to it.
    pub(crate) fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        // The starter kills what it has not released.
        if self.is_kept || self.starter.is_some() {
            return;
        }
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::KILL)) {
            tracing::debug!("cannot kill process {}: {error}", self.pid);
        }
    }
}
