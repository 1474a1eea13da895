//! What may be in the dependency tree: licences, bans and sources, by cargo-deny and `deny.toml`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::step::{cargo, step, target};

/// The one version that is used, so that a new release can't fail an unchanged tree.
const VERSION: &str = "0.20.2";

/// Where cargo-deny gets the known flaws from.
const ADVISORIES: &str = "https://github.com/RustSec/advisory-db";

/// Runs cargo-deny, built once into `target/tools`. Known flaws are checked where their database can
/// be reached; where it can't, that is said.
pub(crate) fn run() -> Result<()> {
    let cargo_deny = ensure()?;
    step(
        "licences, bans, sources",
        "deny.toml says what is allowed, and why",
        deny(&cargo_deny).args(["--locked", "check", "licenses", "bans", "sources"]),
    )?;
    if !advisories_reachable() {
        eprintln!("\n== known flaws: NOT CHECKED, {ADVISORIES} can't be reached from here");
        return Ok(());
    }
    step(
        "known flaws",
        "take the crate's mended version, or another crate",
        deny(&cargo_deny).args(["--locked", "check", "advisories"]),
    )
}

fn deny(program: &PathBuf) -> Command {
    let mut command = Command::new(program);
    command.current_dir(crate::step::root());
    command
}

/// The path of cargo-deny, building it when it isn't there (two to three minutes on two cores).
fn ensure() -> Result<PathBuf> {
    let place = target().join("tools").join(format!("cargo-deny-{VERSION}"));
    let program = place.join("bin/cargo-deny");
    if program.is_file() {
        return Ok(program);
    }
    let work = target().join("cargo-deny-build");
    step(
        &format!("building cargo-deny {VERSION} (once, a few minutes)"),
        "is the package registry reachable?",
        cargo(&[
            "install",
            "cargo-deny",
            "--version",
            VERSION,
            "--locked",
            "--quiet",
            "--no-track",
        ])
        .arg("--root")
        .arg(&place)
        .arg("--target-dir")
        .arg(&work),
    )?;
    // 300 MB that nothing needs any more.
    fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    Ok(program)
}

fn advisories_reachable() -> bool {
    Command::new("timeout")
        .args(["20", "git", "ls-remote", "--quiet", ADVISORIES, "HEAD"])
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
