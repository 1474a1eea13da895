//! The binary: command line, the config's life, and wiring. What it decides is in `policy`, what it
//! does is in `cri` and `resolver`.

mod announce;
mod cli;
mod config_file;
mod detect;
mod dry_run;
mod logging;
mod reload;
mod serve;
mod stats;
mod systemd;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let outcome = if cli.dry_run {
        dry_run::run(&cli)
    } else {
        serve::run(&cli)
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
