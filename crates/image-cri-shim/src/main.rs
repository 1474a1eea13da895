//! The binary: command line and wiring. What it decides is in `policy`, what it
//! does is in `cri` and `resolver`.
//!
//! | module | what it knows |
//! |---|---|
//! | [`args`], [`options`] | the command line |
//! | [`roles`] | what the process can be: the node shim, the webhook, the node cache, the node installer |
//! | [`commands`] | commands for people: they look, print and end |
//! | [`node_cache`] | the node cache, as the shim and the commands ask it |
//! | [`stdout`] | printing what both roles and commands print |
//! | [`told`] | what is said of an error |
//! | [`process`] | signals, logs, systemd, the process that takes over |

// They panic where nobody reads, or a disk is full; `stdout` and `terminal` do not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod commands;
mod node_cache;
mod options;
mod process;
mod requests;
mod roles;
mod stdout;
mod told;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::CommandFactory;
use commands::manual;
use process::handover::starter;
use process::logging;
use roles::{cache, node, node_installer, webhook};

fn main() -> ExitCode {
    let Cli {
        command,
        file,
        dry_run,
        log_format,
        no_telemetry,
    } = Cli::read();
    let outcome = match command {
        Some(Command::Config(args)) => return commands::config::run(&file, &args.command),
        Some(Command::Resolve(args)) => return commands::resolve::run(&file, &args),
        Some(Command::Status(args)) => return commands::status::run(&file, &args),
        Some(Command::History(args)) => return commands::history::run(&file, &args),
        Some(Command::HandOver(args)) => return commands::handover::run(&file, &args),
        Some(Command::HandOverStart(args)) => starter::run(&args),
        Some(Command::Install(args)) => return commands::install::install(&args),
        Some(Command::Uninstall(args)) => return commands::install::uninstall(&args),
        Some(Command::Doctor(args)) => return commands::doctor::run(&file, &args),
        Some(Command::Completions { shell }) => manual::completions(Cli::command(), shell),
        Some(Command::Man { directory }) => manual::pages(Cli::command(), directory.as_deref()),
        Some(Command::Cache(args)) => match &args.command {
            Some(command) => return commands::cache::run(&file, &args.socket(), command),
            None => cache::run(&file, dry_run, log_format, &args.socket()),
        },
        Some(Command::NodeInstaller(args)) => node_installer::run(log_format, &args),
        Some(Command::Webhook(args)) => webhook::run(&file, dry_run, log_format, &args),
        None | Some(Command::Serve(_)) if dry_run => node::dry_run::run(&file),
        None => node::run(node::Launch {
            file,
            listen: None,
            log_format,
            no_telemetry,
        }),
        Some(Command::Serve(args)) => node::run(node::Launch {
            file,
            listen: args.listen,
            log_format,
            no_telemetry,
        }),
    };
    match outcome {
        Ok(()) => {
            logging::flush();
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Not by the log: who starts us by hand or by a unit file sees this in either case.
            logging::last_words(format!("image-cri-shim: {}", told::told(&error)));
            ExitCode::FAILURE
        }
    }
}
