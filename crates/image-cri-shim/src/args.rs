//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::cache::CacheArgs;
use crate::commands::config::ConfigCommand;
use crate::commands::doctor::DoctorArgs;
use crate::commands::handover::HandOverArgs;
use crate::commands::history::HistoryArgs;
use crate::commands::install::{InstallArgs, UninstallArgs};
use crate::commands::resolve::ResolveArgs;
use crate::commands::status::StatusArgs;
use crate::options::ServeArgs;
use crate::process::handover::starter::StarterArgs;
use crate::process::logging::LogFormat;
use crate::roles::node_installer::NodeInstallerArgs;
use crate::roles::webhook::WebhookArgs;

/// Decides where every container image on this node comes from, and makes sure it can be pulled
/// from there.
#[derive(Debug, Parser)]
#[command(name = "image-cri-shim", version)]
pub(crate) struct Cli {
    /// What to be or to do; `serve` when nothing is said
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// The config file
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "/etc/image-cri-shim.yaml"
    )]
    pub(crate) file: PathBuf,

    /// Check the config and what it needs here: for the shim whether the runtime answers, for webhook and cache their
    /// certificates. Print what was found, and exit
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// How to log: `auto` is journald under systemd, else text on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Auto, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,

    /// Count nothing and keep no history, to measure what that costs
    #[arg(long, hide = true)]
    pub(crate) no_telemetry: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Stand between kubelet and the container runtime (the default)
    Serve(ServeArgs),
    /// Apply the same rules to Pods, as a Kubernetes admission webhook
    Webhook(Box<WebhookArgs>),
    // What it does is told by its arguments' own comment, which says more in `--help`.
    Cache(Box<CacheArgs>),
    /// Check the config, and show what is in force and why
    Config(ConfigArgs),
    // What these do is told by their arguments' own comments, which say more in `--help`.
    Resolve(ResolveArgs),
    Status(StatusArgs),
    History(HistoryArgs),
    #[command(name = "handover")]
    HandOver(HandOverArgs),
    /// What a running shim starts, to start another
    #[command(name = "handover-start", hide = true)]
    HandOverStart(StarterArgs),
    Install(InstallArgs),
    Uninstall(UninstallArgs),
    NodeInstaller(Box<NodeInstallerArgs>),
    Doctor(DoctorArgs),
    /// Print completions of this command line for a shell
    #[command(hide = true)]
    Completions {
        /// For which one
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write one page for each command into a directory
    #[command(hide = true)]
    Man {
        /// Where to write the pages; it must exist
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The config file [default: /etc/image-cri-shim.yaml]
    #[arg(short, long, global = true, value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

impl Cli {
    /// Reads the command line; prints help or what is wrong with it, and exits, where that is asked
    /// for or needed.
    pub(crate) fn read() -> Self {
        Self::parse().folded()
    }

    /// What stands after the subcommand's name, in the place of what stands before it.
    fn folded(mut self) -> Self {
        let service = match &self.command {
            Some(Command::Serve(serve)) => Some(&serve.service),
            Some(Command::Webhook(webhook)) => Some(&webhook.service_args),
            Some(Command::Cache(cache)) => Some(&cache.service_args),
            _ => None,
        };
        if let Some(service) = service {
            self.dry_run |= service.dry_run;
            self.log_format = service.log_format.unwrap_or(self.log_format);
        }
        if let Some(Command::NodeInstaller(installer)) = &self.command {
            self.log_format = installer.log_format.unwrap_or(self.log_format);
        }
        let file = match &self.command {
            Some(Command::Serve(_) | Command::Webhook(_)) => {
                service.and_then(|service| service.config.file.as_ref())
            }
            Some(Command::Cache(cache)) => {
                let after = cache.command.as_ref().and_then(|command| command.file());
                after.or_else(|| service.and_then(|service| service.config.file.as_ref()))
            }
            Some(Command::Config(config)) => config.file.as_ref(),
            Some(Command::Resolve(resolve)) => resolve.config.as_ref(),
            Some(Command::Status(status)) => status.config.file.as_ref(),
            Some(Command::History(history)) => history.config.file.as_ref(),
            Some(Command::Doctor(doctor)) => doctor.config.file.as_ref(),
            Some(Command::HandOver(handover)) => handover.config.file.as_ref(),
            Some(
                Command::HandOverStart(_)
                | Command::Install(_)
                | Command::Uninstall(_)
                | Command::NodeInstaller(_)
                | Command::Completions { .. }
                | Command::Man { .. },
            )
            | None => None,
        };
        if let Some(file) = file {
            self.file.clone_from(file);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn read(args: &str) -> Cli {
        let args = std::iter::once("image-cri-shim").chain(args.split(' '));
        Cli::try_parse_from(args).unwrap().folded()
    }

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_config_is_named_before_the_subcommand_or_after_it() {
        for args in [
            "-f x",
            "--file=x",
            "-f x serve",
            "serve -f x",
            "serve --file x",
            "-f x webhook",
            "webhook --file=x",
            "-f x cache",
            "cache -f x",
            "cache --file=x ls",
            "cache ls --file x",
            "-f y cache verify --file x",
            "-f x config check",
            "config -f x show",
            "config show -f x",
            "-f x status",
            "status -f x --json",
            "doctor -f x --json",
            "-f x history nginx",
            "history -f x",
            "-f x resolve nginx",
            "handover -f x --socket y",
            "resolve --file x nginx",
            "-f y serve -f x",
        ] {
            assert_eq!(read(args).file, PathBuf::from("x"), "{args}");
        }
        let default = read("serve");
        assert_eq!(default.file, PathBuf::from("/etc/image-cri-shim.yaml"));
    }

    #[test]
    fn services_take_their_options_on_both_sides() {
        for args in [
            "--dry-run --log-format json serve",
            "serve --dry-run --log-format json",
        ] {
            let cli = read(args);
            assert!(cli.dry_run && cli.log_format == LogFormat::Json, "{args}");
        }
        let both = read("--log-format json webhook --log-format text");
        assert_eq!(both.log_format, LogFormat::Text);
    }

    #[test]
    fn in_resolve_f_is_a_manifest() {
        let cli = read("-f config resolve -f a.yaml -f b/ nginx");
        assert_eq!(cli.file, PathBuf::from("config"));
        let Some(Command::Resolve(resolve)) = cli.command else {
            panic!("{:?}", cli.command);
        };
        assert_eq!(
            resolve.manifests,
            [PathBuf::from("a.yaml"), PathBuf::from("b/")]
        );
    }
}
