//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config_command::ConfigCommand;
use crate::webhook::WebhookArgs;

/// Decides where every container image on this node comes from, and makes sure it can be pulled
/// from there.
#[derive(Debug, Parser)]
#[command(name = "image-cri-shim", version)]
pub(crate) struct Cli {
    /// What to be; `serve` when nothing is said
    #[command(subcommand)]
    pub(crate) role: Option<Role>,

    /// The config file
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/image-cri-shim.yaml"
    )]
    pub(crate) file: PathBuf,

    /// Check the config and whether the runtime answers, print what was found, and exit
    #[arg(long, global = true)]
    pub(crate) dry_run: bool,

    /// How to log: `auto` is journald under systemd, else text on standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Auto, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,

    /// Count nothing and keep no history, to measure what that costs
    #[arg(long, hide = true)]
    pub(crate) no_telemetry: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Stand between kubelet and the container runtime (the default)
    Serve,
    /// Apply the same rules to Pods, as a Kubernetes admission webhook
    Webhook(Box<WebhookArgs>),
    /// Check the config, and show what is in force and why
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Journald when standard error goes there, else text.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
    /// The journal's own protocol.
    Journald,
}
