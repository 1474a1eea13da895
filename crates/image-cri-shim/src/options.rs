//! Options that several commands share.

use std::path::PathBuf;

use clap::Args;

use crate::process::logging::LogFormat;

/// What may stand before a service's name and after it.
///
/// Not clap's `global`: `resolve -f` is something else, as with kubectl.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    #[command(flatten)]
    pub(crate) config: ConfigFile,

    /// Check the config and whether the runtime answers, print what was found, and exit
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// How to log: `auto` is journald under systemd, else text on standard error
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

/// How to be the node shim.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,

    /// Listen on this socket, in place of the config's `shim`: for a unit that leads kubelet here by a link
    #[arg(long, value_name = "SOCKET")]
    pub(crate) listen: Option<PathBuf>,
}

/// Names the config file.
#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The config file [default: /etc/image-cri-shim.yaml]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}
