//! The binary: command line, the config's life, and wiring. What it decides is in `policy`, what it
//! does is in `cri` and `resolver`.

mod announce;
mod cli;
mod commands;
mod config;
mod detect;
mod explain;
mod inspection;
mod logging;
mod process;
mod requests;
mod serve;
mod stats;
mod surface;
mod systemd;
mod webhook;
mod webhook_config;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::read();
    let outcome = match &cli.role {
        Some(cli::Role::Config(args)) => return commands::config::run(&cli.file, &args.command),
        Some(cli::Role::Resolve(args)) => return commands::resolve::run(&cli.file, args),
        Some(cli::Role::Status(args)) => return commands::status::run(&cli.file, args),
        Some(cli::Role::History(args)) => return commands::history::run(&cli.file, args),
        Some(cli::Role::Webhook(args)) => webhook::run(&cli, args),
        None | Some(cli::Role::Serve(_)) if cli.dry_run => commands::dry_run::run(&cli),
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
