//! `cargo xtask test`: all that is checked, in the order in which it is quickest to fail.

use std::time::Instant;

use anyhow::{Context, Result};
use testkit::browser;
use testkit::helm::Helm;
use testkit::tools::Tools;

use crate::deny;
use crate::step::{cargo, need_root, step};

/// Runs every check and stops at the first that fails.
pub(crate) fn run() -> Result<()> {
    let started = Instant::now();
    need_root("cargo xtask test")?;
    Tools::ensure().context("the programs that the end-to-end tests run")?;
    Helm::ensure().context("the helm that the chart is tested with")?;
    browser::ensure().context("the browser that the page is tested in")?;

    step(
        "format",
        "run `cargo fmt --all`",
        &mut cargo(&["fmt", "--all", "--check"]),
    )?;
    step(
        "lints",
        "mend what clippy names above",
        &mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]),
    )?;
    step(
        "tests",
        "the failing test and its output are above",
        &mut cargo(&["test", "--workspace", "--locked"]),
    )?;
    step(
        "documentation",
        "mend what rustdoc names above",
        cargo(&["doc", "--workspace", "--no-deps", "--locked", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    deny::run()?;

    eprintln!("\nAll checks passed in {:.0?}.", started.elapsed());
    Ok(())
}
