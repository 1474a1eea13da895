//! The binary: command line, the config's life, and wiring. What it decides is in `policy`, what it
//! does is in `cri` and `resolver`.

mod announce;
mod cli;
mod config_command;
mod config_credentials;
mod config_file;
mod config_in_force;
mod config_keeper;
mod config_merge;
mod config_show;
mod config_state;
mod config_watch;
#[expect(dead_code, reason = "the commands that use it come next")]
mod daemon;
mod detect;
mod dry_run;
mod explain;
mod inspection;
mod logging;
mod requests;
mod serve;
mod stats;
mod systemd;
mod webhook;
mod webhook_config;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let outcome = match &cli.role {
        Some(cli::Role::Config(command)) => return config_command::run(&cli.file, command),
        Some(cli::Role::Webhook(args)) => webhook::run(&cli, args),
        None | Some(cli::Role::Serve) if cli.dry_run => dry_run::run(&cli),
        None | Some(cli::Role::Serve) => serve::run(&cli),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not by the log: who starts us by hand or by a unit file sees this in either case.
            eprintln!("image-cri-shim: {error:#}");
            ExitCode::FAILURE
        }
    }
}
