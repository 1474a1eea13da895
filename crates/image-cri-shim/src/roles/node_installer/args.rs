//! The command line of `node-installer`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::options::{KubeletArgs, WiringArgs, duration};
use crate::process::logging::LogFormat;

/// Install, upgrade or remove the shim on this Pod's host, one node after another
///
/// One of it runs on each node, privileged, with hostPID and hostNetwork. A Lease says whose turn it is, and a node that
/// fails stops all that have not begun. The process stays when its node is done; ending it, in whichever way, undoes
/// nothing.
#[derive(Debug, Args)]
pub(crate) struct NodeInstallerArgs {
    /// What every node shall have
    #[arg(long, value_enum, default_value_t = Mode::Install)]
    pub(super) mode: Mode,

    /// The name of this node
    #[arg(long, value_name = "NAME")]
    pub(super) node: String,

    /// The Lease that all nodes share
    #[arg(
        long,
        value_name = "NAME",
        default_value = "image-cri-shim-node-installer"
    )]
    pub(super) lease: String,

    /// The namespace of the Lease; else $POD_NAMESPACE, else the service account's
    #[arg(long, value_name = "NAME")]
    pub(super) namespace: Option<String>,

    /// Where /healthz and /readyz are answered; ready is a node that has what is wanted
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7443")]
    pub(super) health_listen: SocketAddr,

    /// How often a node that waits looks at the Lease, at most; half as often at least
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(super) poll: Duration,

    #[command(flatten)]
    pub(super) kubelet: KubeletArgs,

    #[command(flatten)]
    pub(super) wiring: WiringArgs,

    /// How to log: `auto` is journald under systemd, else text on standard error
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

/// What every node shall have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// The shim, in this program's version.
    Install,
    /// No shim, and everything as it was before.
    Uninstall,
}
