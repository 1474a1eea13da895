//! Options that several commands share.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::process::logging::LogFormat;

/// What may stand before a service's name and after it.
///
/// Not clap's `global`: `resolve -f` is something else, as with kubectl.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    #[command(flatten)]
    pub(crate) config: ConfigFile,

    /// Check the config and what it needs here: for the shim whether the runtime answers, for webhook and cache their
    /// certificates. Print what was found, and exit
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

/// What is put on a node.
#[derive(Debug, Args)]
pub(crate) struct WiringArgs {
    /// Lead the runtime service to the shim too, not the image service alone
    #[arg(long)]
    pub(crate) both: bool,

    /// The container runtime's socket, where it can't be found out
    #[arg(long, value_name = "SOCKET", value_parser = installer::runtime_socket)]
    pub(crate) runtime: Option<PathBuf>,

    /// Where the program goes on a node without a package of it
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    pub(crate) prefix: PathBuf,

    /// The config for a node that has none; a later run brings a newer one, unless somebody has edited it there
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

impl WiringArgs {
    /// The same for another process of this program.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments = vec![option("prefix", &self.prefix)];
        if self.both {
            arguments.push("--both".into());
        }
        arguments.extend(self.runtime.as_ref().map(|path| option("runtime", path)));
        arguments.extend(self.config.as_ref().map(|path| option("config", path)));
        arguments
    }
}

/// What is done about the kubelet that runs.
#[derive(Debug, Args)]
pub(crate) struct KubeletArgs {
    /// Restart kubelet where it has to be, wait until it works, and put everything back where it doesn't
    #[arg(long)]
    pub(crate) restart_kubelet: bool,

    /// On k3s and RKE2 kubelet is part of the whole service, on a server the control plane: restart that
    #[arg(long)]
    pub(crate) yes_restart_k3s: bool,

    /// How long kubelet may take to work again
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub(crate) timeout: Duration,
}

impl KubeletArgs {
    /// The same for another process of this program.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments = vec![format!("--timeout={}ms", self.timeout.as_millis()).into()];
        if self.restart_kubelet {
            arguments.push("--restart-kubelet".into());
        }
        if self.yes_restart_k3s {
            arguments.push("--yes-restart-k3s".into());
        }
        arguments
    }
}

fn option(name: &str, value: &std::path::Path) -> OsString {
    let mut option = OsString::from(format!("--{name}="));
    option.push(value);
    option
}

/// A duration on the command line: `2m`, `500ms`.
///
/// # Errors
/// It is none, for people.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    policy::duration::parse(text).map_err(|error| error.to_string())
}
