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

/// Names the config file.
#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The config file [default: /etc/image-cri-shim.yaml]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}
