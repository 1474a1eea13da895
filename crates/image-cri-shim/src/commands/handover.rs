//! `image-cri-shim handover`: a newer program takes over from the running shim, without a lost call.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::commands::daemon::{Daemon, DaemonError, one_thread, socket_by};
use crate::commands::terminal;
use crate::options::ConfigFile;
use crate::requests::{HandOverAnswer, HandOverRequest};
use crate::told::told;

/// Let the program on the disk take over from the running shim, without a lost call
///
/// The running shim starts the program that stands in the place of its own by now, with its own arguments, environment
/// and sandbox. When the new one answers calls, it gets the socket; the old one ends with its last call. When the new one
/// does not get that far, it is killed, and the old one serves on. `systemctl reload image-cri-shim` does this. Exit
/// status: 0 where the new one serves, 1 where the old one serves on.
#[derive(Debug, Args)]
pub(crate) struct HandOverArgs {
    #[command(flatten)]
    pub(crate) config: ConfigFile,

    /// The socket of the running shim, where it is another than the config's
    #[arg(long, value_name = "SOCKET")]
    socket: Option<PathBuf>,
}

/// Runs the command by the config `file`.
pub(crate) fn run(file: &Path, args: &HandOverArgs) -> ExitCode {
    match hand_over(file, args) {
        Ok(answer) => {
            let HandOverAnswer { pid, version, from } = answer;
            let text = format!(
                "image-cri-shim {version} serves as process {pid}; process {from} ends with its last call\n"
            );
            // Who reads it or not, it is done.
            let _ = terminal::print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            terminal::say(&told(&error));
            ExitCode::FAILURE
        }
    }
}

fn hand_over(file: &Path, args: &HandOverArgs) -> anyhow::Result<HandOverAnswer> {
    // systemd says whom it looks after.
    let main_pid = std::env::var("MAINPID").ok();
    let main_pid = main_pid.and_then(|pid| pid.parse().ok());
    let socket = match (&args.socket, main_pid.and_then(listens_on)) {
        (Some(socket), _) => socket.clone(),
        // The link that the config names may lead past the shim, and the file may be gone.
        (None, Some(socket)) => socket,
        (None, None) => socket_by(file)?,
    };
    let daemon = Daemon::new(&socket);
    let request = HandOverRequest { main_pid };
    let answer = one_thread()?.block_on(daemon.hand_over(&request));
    answer.map_err(|error| match error {
        DaemonError::NotOurs { .. } => anyhow::anyhow!(
            "{error}. An older shim knows no hand-over: restart it (systemctl restart image-cri-shim)"
        ),
        DaemonError::Failed { why, .. } => anyhow::anyhow!(
            "{why}. When the program or its config is mended, ask for the hand-over again (systemctl reload image-cri-shim)"
        ),
        DaemonError::NotRunning { .. } | DaemonError::Denied { .. } => error.into(),
    })
}

/// The socket that the command line of a running shim names.
fn listens_on(pid: u32) -> Option<PathBuf> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    named_socket(&line)
}

fn named_socket(line: &[u8]) -> Option<PathBuf> {
    let path = |bytes| PathBuf::from(OsStr::from_bytes(bytes));
    let mut arguments = line.split(|byte| *byte == 0);
    while let Some(argument) = arguments.next() {
        if argument == b"--listen" {
            return arguments.next().map(path);
        }
        if let Some(socket) = argument.strip_prefix(b"--listen=") {
            return Some(path(socket));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_in_a_command_line() {
        for (line, socket) in [
            (&b"shim\0serve\0--listen\0/a b\0"[..], Some("/a b")),
            (b"shim\0-f\0x\0serve\0--listen=/a\0", Some("/a")),
            (b"shim\0", None),
            (b"", None),
        ] {
            assert_eq!(named_socket(line), socket.map(PathBuf::from));
        }
    }
}
