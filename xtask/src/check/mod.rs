//! `cargo xtask check`: what is worth knowing before every commit, in seconds. Formatting of all; lints of
//! the crates that changed and of those that are built on them; tests of the crates that changed.

mod affected;

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use self::affected::{Affected, Package};
use crate::step::{THIS, cargo, git, step};

/// What a change is compared with, where nothing else is said.
const BASE: &str = "main";

/// Checks what has changed since `base` (else since the branch left `main`), commits and work tree
/// together. With `dependents`, the tests of the crates that are built on them run, too.
pub(crate) fn run(base: Option<&str>, dependents: bool) -> Result<()> {
    let started = Instant::now();
    step(
        "format",
        "run `cargo fmt --all`",
        &mut cargo(&["fmt", "--all", "--check"]),
    )?;
    let affected = Affected::new(&packages()?, &changed_files(base)?);
    if affected.changed.is_empty() {
        eprintln!("\nNo crate has changed ({:.0?}).", started.elapsed());
        return Ok(());
    }
    eprintln!("\n== changed: {}", affected.changed.join(", "));
    if !affected.dependents.is_empty() {
        eprintln!("== built on them: {}", affected.dependents.join(", "));
    }
    let all: Vec<&str> = affected.all().collect();
    let mut lints = cargo(&["clippy", "--all-targets", "--locked", "--quiet"]);
    lints.args(chosen(&all)).args(["--", "-D", "warnings"]);
    step("lints", "mend what clippy names above", &mut lints)?;
    let tested: Vec<&str> = match dependents {
        true => all,
        false => affected.changed.iter().map(String::as_str).collect(),
    };
    let mut tests = cargo(&["test", "--locked", "--quiet"]);
    tests.args(chosen(&tested));
    let advice = "the failing test and its output are above";
    step("tests", advice, &mut tests)?;
    eprintln!(
        "\nChecked in {:.0?}. `cargo xtask test` checks all.",
        started.elapsed()
    );
    Ok(())
}

/// Chosen together with this program, so that dependencies are built with the features that they have in all
/// other builds, and not once more for each choice.
fn chosen<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let all: BTreeSet<&str> = packages.iter().copied().chain([THIS]).collect();
    all.into_iter()
        .flat_map(|name| ["--package", name])
        .collect()
}

/// Paths of the files that differ from where the branch began, and of those that git doesn't know yet.
fn changed_files(base: Option<&str>) -> Result<Vec<String>> {
    let since = match base {
        Some(base) => git(&["merge-base", "HEAD", base])
            .with_context(|| format!("{base} is no commit that this one comes from"))?,
        // A clone of one branch may have no `main`.
        None => git(&["merge-base", "HEAD", BASE]).unwrap_or_else(|_| "HEAD".to_owned()),
    };
    let changed = git(&["diff", "--name-only", since.trim()])?;
    let unknown = git(&["ls-files", "--others", "--exclude-standard"])?;
    Ok(changed
        .lines()
        .chain(unknown.lines())
        .map(ToOwned::to_owned)
        .collect())
}

/// The packages of the workspace.
fn packages() -> Result<Vec<Package>> {
    let output = cargo(&["metadata", "--no-deps", "--format-version", "1", "--locked"])
        .output()
        .context("running cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let packages = affected::packages(&output.stdout).context("reading cargo metadata")?;
    if packages.is_empty() {
        bail!("cargo metadata names no package");
    }
    Ok(packages)
}
