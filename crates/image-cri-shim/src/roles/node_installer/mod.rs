//! `node-installer`: the node installer, wired.

mod args;
mod host;

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use ::node_installer::{Installer, Progress, Task, Timing, health};
use anyhow::Context;
use cluster::{ClientProvider, KubeconfigCandidates, SharedLease};
use tokio::runtime::Builder;
use tokio::sync::watch;

use self::args::Mode;
pub(crate) use self::args::NodeInstallerArgs;
use self::host::PodHost;
use crate::process::logging::{self, LogFormat};
use crate::process::{pod, signals};

/// Brings this Pod's host to what is wanted, and stays until SIGTERM or SIGINT.
///
/// # Errors
/// A file of the command line can't be read, nobody says which namespace this is, or the port can't be had.
pub(crate) fn run(log_format: LogFormat, args: &NodeInstallerArgs) -> anyhow::Result<()> {
    logging::start(log_format, false)?;
    let namespace = pod::namespace(args.namespace.as_deref())
        .context("which namespace has the Lease? Say --namespace; a Pod is told by itself")?;
    let command = command(args);
    let task = task(args, &command)?;
    runtime()?.block_on(async {
        let shutdown = signals::shutdown()?;
        let clients = Arc::new(ClientProvider::new(KubeconfigCandidates::from_environment()));
        let lease = SharedLease::new(clients, namespace, args.lease.clone());
        let listener = listener::bind(args.health_listen)
            .await
            .with_context(|| format!("cannot listen on {}", args.health_listen))?;
        let (sender, progress) = watch::channel(Progress::Looking);
        tokio::spawn(health::serve(listener, progress));
        let installer = Installer {
            node: args.node.clone(),
            task,
            lease,
            host: PodHost { command },
            timing: Timing {
                poll: args.poll..args.poll.saturating_mul(2),
                ..Timing::default()
            },
            progress: sender,
        };
        installer.run(shutdown).await;
        tracing::info!("stopped; the node stays as it is");
        Ok(())
    })
}

/// What changes the host, and what finds out whether that is needed.
fn command(args: &NodeInstallerArgs) -> Vec<OsString> {
    let mut command: Vec<OsString> = match args.mode {
        Mode::Install => vec!["install".into()],
        Mode::Uninstall => vec!["uninstall".into()],
    };
    command.extend(args.kubelet.arguments());
    if args.mode == Mode::Install {
        command.extend(args.wiring.arguments());
    }
    command
}

/// Another program, config or option is another task: what failed with one may be tried with the other.
fn task(args: &NodeInstallerArgs, command: &[OsString]) -> anyhow::Result<Task> {
    let version = env!("CARGO_PKG_VERSION");
    let (words, files) = match args.mode {
        Mode::Install => {
            let program = Some(Path::new("/proc/self/exe"));
            (
                format!("install {version}"),
                [program, args.wiring.config.as_deref()],
            )
        }
        Mode::Uninstall => ("uninstall".to_owned(), [None, None]),
    };
    let mut parts = Vec::new();
    for file in files.into_iter().flatten() {
        let bytes = std::fs::read(file);
        parts.push(bytes.with_context(|| format!("cannot read {}", file.display()))?);
    }
    parts.extend(command.iter().map(|part| part.as_encoded_bytes().to_vec()));
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Ok(Task::new(&words, &parts))
}

/// One thread is enough for a process that waits.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}
