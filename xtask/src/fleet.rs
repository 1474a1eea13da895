//! `cargo xtask fleet`: the fleet's simulation, as an optimized build.

use anyhow::Result;

use crate::step::{cargo, step, target};

/// What is simulated.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Nodes
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    nodes: usize,
    /// The seed of all chance: the same seed gives the same numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Only this scenario
    scenario: Option<String>,
}

/// Prints tables, and leaves them and their plots in `target/fleet`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let directory = target().join("fleet");
    // The bench's profile: optimized, and built in a fraction of a release's time.
    let mut fleet = cargo(&["run", "--locked", "--profile", "bench-client"]);
    fleet.args(["--package", "fleet", "--"]);
    fleet.args(["--nodes", &options.nodes.to_string()]);
    fleet.args(["--seed", &options.seed.to_string()]);
    fleet.arg("--directory").arg(directory);
    fleet.args(&options.scenario);
    step("fleet", "what it was doing is above", &mut fleet)
}
