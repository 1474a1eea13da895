//! `cargo xtask fuzz`: the properties of the crate `properties`, looked for counterexamples by libFuzzer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::step::{cargo, root, step, target};

/// The one version that is used.
const VERSION: &str = "0.13.2";

/// Fuzzes `wanted`, or every target in turn, for so many seconds each.
pub(crate) fn run(seconds: u64, wanted: Option<&str>) -> Result<()> {
    let targets = targets()?;
    if let Some(wanted) = wanted {
        let known = targets.join(", ");
        ensure!(
            targets.iter().any(|target| target == wanted),
            "no fuzz target {wanted}; there are {known}"
        );
    }
    ensure!(
        has_nightly(),
        "no nightly compiler is installed; `cargo test -p properties` checks the same properties with a fixed budget, and `rustup toolchain install nightly` brings one"
    );
    let program = ensure_cargo_fuzz()?;
    // The versions that the product is built with.
    fs::copy(root().join("Cargo.lock"), root().join("fuzz/Cargo.lock"))
        .context("copying Cargo.lock to fuzz/")?;
    for name in targets
        .iter()
        .filter(|name| wanted.is_none_or(|wanted| wanted == **name))
    {
        let corpus = target().join("fuzz/corpus").join(name);
        fs::create_dir_all(&corpus).with_context(|| format!("creating {}", corpus.display()))?;
        let artifacts = target().join("fuzz/artifacts").join(name);
        fs::create_dir_all(&artifacts)
            .with_context(|| format!("creating {}", artifacts.display()))?;
        let mut command = fuzz(&program);
        // Safe Rust throughout: the address sanitizer would find nothing and halve the executions.
        command.args([
            "run",
            "--fuzz-dir",
            ".",
            "--sanitizer",
            "none",
            "--target-dir",
        ]);
        command.arg(target().join("fuzz")).arg(name).arg(&corpus);
        command.arg(root().join("fuzz/seeds").join(name)).arg("--");
        command.arg(format!("-max_total_time={seconds}"));
        command.arg(format!("-artifact_prefix={}/", artifacts.display()));
        command.args([
            "-print_final_stats=1",
            "-max_len=8192",
            "-timeout=10",
            "-rss_limit_mb=2048",
        ]);
        step(
            &format!("fuzzing {name} for {seconds} s"),
            "the input that broke it is named above: make it a regression test, and mend the fault",
            &mut command,
        )?;
    }
    Ok(())
}

/// The names of all fuzz targets.
fn targets() -> Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        names.extend(
            path.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}

/// Cargo by its proxy, which knows toolchains; `CARGO` is one toolchain's own.
fn rustup_cargo() -> Command {
    let mut command = Command::new("cargo");
    for variable in [
        "CARGO",
        "RUSTC",
        "RUSTDOC",
        "RUSTUP_TOOLCHAIN",
        "CARGO_MANIFEST_DIR",
    ] {
        command.env_remove(variable);
    }
    command
}

fn has_nightly() -> bool {
    let asked = rustup_cargo().args(["+nightly", "--version"]).output();
    asked.is_ok_and(|output| output.status.success())
}

fn fuzz(program: &Path) -> Command {
    let mut command = rustup_cargo();
    // `cargo fuzz` finds its program in PATH.
    let mut path = program.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    command.env("PATH", path).current_dir(root().join("fuzz"));
    command.args(["+nightly", "fuzz"]);
    command
}

/// The folder of cargo-fuzz's program, building it when it isn't there (about a minute on two cores).
fn ensure_cargo_fuzz() -> Result<PathBuf> {
    let place = target().join("tools").join(format!("cargo-fuzz-{VERSION}"));
    let folder = place.join("bin");
    if !folder.join("cargo-fuzz").is_file() {
        let arguments = [
            "install",
            "cargo-fuzz",
            "--version",
            VERSION,
            "--locked",
            "--quiet",
            "--root",
        ];
        let mut install = cargo(&arguments);
        install
            .arg(&place)
            .arg("--target-dir")
            .arg(target().join("cargo-fuzz-build"));
        step(
            &format!("building cargo-fuzz {VERSION} (once)"),
            "is the package registry reachable?",
            &mut install,
        )?;
    }
    Ok(folder)
}
