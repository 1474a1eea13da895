//! The project's own commands: `cargo xtask demo`, `test`, `check`, `bench`, `fuzz`, `soak`, `fleet`, `deny`, `package` and
//! `screenshot`.

mod bench;
mod check;
mod demo;
mod deny;
mod fleet;
mod fuzz;
mod package;
mod screenshot;
mod soak;
mod step;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch the shim route pulls between real registries and a real containerd
    Demo {
        /// Show this binary instead of building one
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
    },
    /// Measure the shim beside direct calls, in one run
    Bench {
        /// Measure this part only
        #[arg(value_enum)]
        only: Option<bench::Part>,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
        /// Set by the command itself, when it runs itself again as an optimized build
        #[arg(long, hide = true)]
        optimized: bool,
        /// Use a debug build and small sizes, to see that the bench itself works (`cache` only)
        #[arg(long)]
        smoke: bool,
        /// Set by the command itself: be the backend, in a process of its own, until standard input ends
        #[arg(long, hide = true)]
        backend: bool,
    },
    /// Run everything that is checked: format, lints, tests on real parts, docs, licences
    Test,
    /// Check what has changed, in seconds: format, lints, and tests of the crates with changes
    Check {
        /// Compare with where the branch left this commit or branch [default: main]
        #[arg(long, value_name = "COMMIT")]
        base: Option<String>,
        /// Test the crates that are built on those with changes, too
        #[arg(long)]
        dependents: bool,
    },
    /// Look for inputs that break a promise, by libFuzzer; needs a nightly compiler
    Fuzz {
        /// Time for each target
        #[arg(long, value_name = "N", default_value_t = 600)]
        seconds: u64,
        /// Only this one
        target: Option<String>,
    },
    /// Let real parts work for a long time while everything around them fails, and see what holds
    Soak {
        /// How long
        #[arg(long, value_name = "N", default_value_t = 30)]
        minutes: u64,
        /// What the schedule follows from [default: another one each time]
        #[arg(long, value_name = "S")]
        seed: Option<u64>,
        /// Use this binary instead of building one
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
    },
    /// Simulate ten thousand nodes on virtual time, beside the predecessor's
    Fleet(fleet::Options),
    /// Check only what is in the dependency tree: licences, bans, sources, known flaws
    Deny,
    /// Write a .deb, an .rpm, a tarball and an image, with their checksums, to target/package
    Package {
        /// Package the debug build: quick, for tests. It needs the libraries of this machine's release
        #[arg(long)]
        debug: bool,
        /// How often this version was packaged, for package managers
        #[arg(long, value_name = "N", default_value_t = 1)]
        revision: u32,
        /// Write them here [default: target/package]
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
    /// Take the pictures of the page that are in docs/
    Screenshot {
        /// Show this binary instead of building one
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo { binary } => demo::run(binary),
        Command::Bench { backend: true, .. } => bench::backend(),
        Command::Bench {
            only,
            json,
            optimized,
            smoke,
            ..
        } => bench::run(only, json, optimized, smoke),
        Command::Test => test::run(),
        Command::Check { base, dependents } => check::run(base.as_deref(), dependents),
        Command::Fuzz { seconds, target } => fuzz::run(seconds, target.as_deref()),
        Command::Soak {
            minutes,
            seed,
            binary,
        } => soak::run(minutes, seed, binary),
        Command::Fleet(options) => fleet::run(&options),
        Command::Deny => deny::run(),
        Command::Package {
            debug,
            revision,
            output,
        } => package::run(debug, revision, output),
        Command::Screenshot { binary } => screenshot::run(binary),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
