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
mod daemon;
mod detect;
mod dry_run;
mod explain;
mod history_command;
mod inspection;
mod logging;
mod process;
mod render;
mod requests;
mod resolve;
mod screen;
mod serve;
mod stats;
mod status_command;
mod surface;
mod systemd;
mod terminal;
mod webhook;
mod webhook_config;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::read();
    let outcome = match &cli.role {
        Some(cli::Role::Config(args)) => return config_command::run(&cli.file, &args.command),
        Some(cli::Role::Resolve(args)) => return resolve::run(&cli.file, args),
        Some(cli::Role::Status(args)) => return status_command::run(&cli.file, args),
        Some(cli::Role::History(args)) => return history_command::run(&cli.file, args),
        Some(cli::Role::Webhook(args)) => webhook::run(&cli, args),
        None | Some(cli::Role::Serve(_)) if cli.dry_run => dry_run::run(&cli),
        None | Some(cli::Role::Serve(_)) => serve::run(&cli),
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
