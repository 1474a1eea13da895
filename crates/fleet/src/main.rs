//! `fleet`: what `cargo xtask fleet` runs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;
use fleet::scenario::{Behaviour, run};
use fleet::{report, scenarios};

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

fn simulate(cli: &Cli) -> Result<()> {
    let all = scenarios::all(cli.nodes, cli.images);
    let is_wanted = |name: &str| cli.scenario.as_ref().is_none_or(|wanted| wanted == name);
    if !all.iter().any(|scenario| is_wanted(scenario.name)) {
        let names: Vec<_> = all.iter().map(|scenario| scenario.name).collect();
        bail!("there is no such scenario; there are {}", names.join(", "));
    }
    let mut tables = String::new();
    for scenario in all.iter().filter(|scenario| is_wanted(scenario.name)) {
        let began = Instant::now();
        let ours = run(scenario, Behaviour::Ours, cli.seed)?;
        let took = began.elapsed();
        let before = run(scenario, Behaviour::Predecessor, cli.seed)?;
        eprintln!(
            "{}: {took:.1?} for ours, {:.1?} in all",
            scenario.name,
            began.elapsed()
        );
        let table = report::table(scenario, &ours, &before);
        println!("{table}");
        tables.push_str(&table);
        tables.push('\n');
    }
    if let Some(directory) = &cli.directory {
        let file = directory.join("tables.md");
        std::fs::create_dir_all(directory)
            .and_then(|()| std::fs::write(&file, tables))
            .with_context(|| format!("writing {}", file.display()))?;
        eprintln!("written to {}", directory.display());
    }
    Ok(())
}
