//! `image-cri-shim handover-start`, which the old process runs from its own program: the parent of the new process.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use super::channel::Channel;
use super::messages::{FromStarter, ToStarter};

/// How often the new process is looked at.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// How long the old process may take to say what it wants.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// What to start.
#[derive(Debug, Args)]
pub(crate) struct StarterArgs {
    /// The program
    program: PathBuf,

    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Starts the new process and waits until the old one wants it released. Where the old one goes without a word, or the new
/// one is still there when it does, the new one is killed.
///
/// # Errors
/// This was not started by an image-cri-shim.
pub(crate) fn run(args: &StarterArgs) -> anyhow::Result<()> {
    let old = Channel::from_stdin()
        .context("`image-cri-shim handover-start` is for image-cri-shim itself; see `image-cri-shim handover`")?;
    let Some((ToStarter::Start, mut fds)) = old.receive::<ToStarter>(START_TIMEOUT)? else {
        bail!("the running image-cri-shim did not say what to start");
    };
    let Some(channel) = fds.pop() else {
        bail!("the running image-cri-shim gave no channel for the new process");
    };
    let mut child = match start(args, channel) {
        Ok(child) => child,
        Err(error) => {
            let why = format!("cannot run {}: {error}", args.program.display());
            return Ok(old.send(&FromStarter::NotStarted { why }, &[])?);
        }
    };
    let watched = watch(&old, &mut child);
    if !matches!(watched, Ok(true)) {
        // An error is its end.
        let _ = child.kill();
        child.wait()?;
    }
    watched.map(|_| ())
}

fn start(args: &StarterArgs, channel: OwnedFd) -> io::Result<Child> {
    Command::new(&args.program)
        .args(&args.arguments)
        .stdin(Stdio::from(channel))
        .spawn()
}

/// Whether the new process is to live on.
fn watch(old: &Channel, child: &mut Child) -> anyhow::Result<bool> {
    old.send(&FromStarter::Started { pid: child.id() }, &[])?;
    let mut has_ended = false;
    loop {
        match old.receive(CHECK_INTERVAL) {
            Ok(Some((ToStarter::Release, _))) => return Ok(!has_ended),
            Ok(Some((ToStarter::Start, _))) => {}
            Ok(None) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = child.try_wait()?.filter(|_| !has_ended) {
            has_ended = true;
            let status = status.to_string();
            old.send(&FromStarter::Ended { status }, &[])?;
        }
    }
}
