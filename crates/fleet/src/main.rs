//! `fleet`: what `cargo xtask fleet` runs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;
use fleet::following::{self, Following};
use fleet::report::{self, Section};
use fleet::scenario::{self, Behaviour, Scenario};
use fleet::scenarios;

/// Simulate a fleet, beside the predecessor's
#[derive(Parser)]
#[command(name = "fleet")]
struct Cli {
    /// Nodes
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    nodes: usize,
    /// Images
    #[arg(long, value_name = "N", default_value_t = 100)]
    images: usize,
    /// The seed of all chance: the same seed gives the same numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where the tables and their plots are left
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// Only this scenario
    scenario: Option<String>,
}

fn main() -> ExitCode {
    match simulate(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A scenario of either kind.
enum Run {
    Pulling(Scenario),
    Following(Following),
}

impl Run {
    fn name(&self) -> &'static str {
        match self {
            Self::Pulling(scenario) => scenario.name,
            Self::Following(following) => following.name,
        }
    }

    fn section(&self, seed: u64) -> Result<Section> {
        match self {
            Self::Pulling(scenario) => {
                let ours = scenario::run(scenario, Behaviour::Ours, seed)?;
                let before = scenario::run(scenario, Behaviour::Predecessor, seed)?;
                report::pulling(scenario, &ours, &before)
            }
            Self::Following(following) => {
                let ours = following::run(following, Behaviour::Ours, seed)?;
                let before = following::run(following, Behaviour::Predecessor, seed)?;
                report::following(following, &ours, &before)
            }
        }
    }
}

fn simulate(cli: &Cli) -> Result<()> {
    let pulling = scenarios::all(cli.nodes, cli.images).into_iter();
    let following = scenarios::all_following(cli.nodes).into_iter();
    let mut runs: Vec<Run> = pulling.map(Run::Pulling).collect();
    runs.extend(following.map(Run::Following));
    if let Some(wanted) = &cli.scenario {
        let names: Vec<_> = runs.iter().map(Run::name).collect();
        if !names.contains(&wanted.as_str()) {
            bail!(
                "there is no scenario {wanted:?}; there are {}",
                names.join(", ")
            );
        }
        runs.retain(|run| run.name() == wanted);
    }
    let mut tables = String::new();
    for run in &runs {
        let began = Instant::now();
        let section = run.section(cli.seed)?;
        eprintln!("{}: simulated in {:.0?}", run.name(), began.elapsed());
        println!("{}", section.tables);
        tables.push_str(&section.tables);
        tables.push('\n');
        for plot in &section.plots {
            write(cli, &plot.file, &plot.svg)?;
        }
        write(cli, "tables.md", &tables)?;
    }
    Ok(())
}

fn write(cli: &Cli, file: &str, text: &str) -> Result<()> {
    let Some(directory) = &cli.directory else {
        return Ok(());
    };
    let file = directory.join(file);
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(&file, text))
        .with_context(|| format!("writing {}", file.display()))
}
