//! Running other programs as the steps of a command.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// The package of this program.
pub(crate) const THIS: &str = env!("CARGO_PKG_NAME");

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo builds to.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that runs this, in the workspace's root. What it has told this program about its own package is taken out of the
/// environment: ring's build script watches that, and everything above ring would be built once more.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(root());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// What git prints when it is run in the workspace's root.
pub(crate) fn git(arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(root())
        .output()
        .context("running git")?;
    ensure!(
        output.status.success(),
        "git {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// Says what runs, runs it with its output shown, and says how long it took.
pub(crate) fn step(name: &str, advice: &str, command: &mut Command) -> Result<()> {
    eprintln!("\n== {name}");
    let started = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("{name}: cannot run {command:?}"))?;
    ensure!(status.success(), "{name} failed ({status}); {advice}");
    eprintln!("== {name}: ok ({:.0?})", started.elapsed());
    Ok(())
}

/// Builds the shim as tests have it, which shares all dependencies with them and with this program; where
/// it is then. Only the bench needs the release build, which takes minutes.
pub(crate) fn build_shim() -> Result<PathBuf> {
    let advice = "mend what the compiler names above";
    // Chosen together with this program, it is built with the features that are built already.
    let arguments = [
        "build",
        "--locked",
        "--quiet",
        "--package",
        "image-cri-shim",
        "--package",
        THIS,
        "--bin",
        "image-cri-shim",
    ];
    step("building image-cri-shim", advice, &mut cargo(&arguments))?;
    Ok(shim_built())
}

/// Where [`build_shim`] puts it.
pub(crate) fn shim_built() -> PathBuf {
    target().join("debug/image-cri-shim")
}

/// Stops a command that needs root before it has done half of its work.
pub(crate) fn need_root(command: &str) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "{command} needs root, because it starts a real containerd (in a temporary directory of its \
         own; no service is touched). Run it as root"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Each crate that is built for these packages, with its version and features.
    fn crates(packages: &[&str]) -> BTreeSet<String> {
        let chosen = packages.iter().flat_map(|name| ["--package", name]);
        let arguments = [
            "tree",
            "--locked",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--no-dedupe",
            "--format",
            "{p} {f}",
        ];
        let mut tree = cargo(&arguments);
        let output = tree.args(chosen).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let crates = String::from_utf8(output.stdout).unwrap();
        crates
            .lines()
            .map(|line| line.trim_end_matches(" (*)").to_owned())
            .collect()
    }

    #[test]
    fn the_shim_is_built_with_what_is_built_already() {
        let (this, both) = (crates(&[THIS]), crates(&[THIS, "image-cri-shim"]));
        let twice: Vec<_> = this.difference(&both).collect();
        assert!(
            twice.is_empty(),
            "built twice, with other features; see the dependencies in xtask/Cargo.toml that are not used: {twice:#?}"
        );
    }
}
