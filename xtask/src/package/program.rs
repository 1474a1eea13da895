//! The program that is packaged: static, so that it runs on every Linux, or the debug build of this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::NAME;
use crate::step::{build_shim, cargo, root, step, target};

/// A built program.
pub(crate) struct Program {
    /// Where it stands: without symbols.
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
    /// What it loads when it starts; nothing in a release.
    pub(super) libraries: Vec<PathBuf>,
}

impl Program {
    /// Builds it as `Dockerfile` does, or with `debug` as the tests have it.
    pub(super) fn build(debug: bool) -> Result<Self> {
        let path = if debug {
            without_symbols(&build_shim()?)?
        } else {
            build_static()?
        };
        let libraries = libraries(&path)?;
        ensure!(
            debug || libraries.is_empty(),
            "{} is not static: it loads {libraries:?}",
            path.display()
        );
        ensure!(
            !has_symbols(&path)?,
            "{} has its symbols: see `strip` in Cargo.toml",
            path.display()
        );
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self {
            path,
            bytes,
            libraries,
        })
    }

    /// Its architecture as rpm and the kernel call it.
    pub(super) fn arch(&self) -> &'static str {
        std::env::consts::ARCH
    }

    /// Its architecture as Debian, Go and OCI call it.
    pub(super) fn debian_arch(&self) -> &'static str {
        match self.arch() {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    }

    /// Runs it, and gives what it prints.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        printed(Command::new(&self.path).args(arguments))
    }
}

/// The release build against glibc's static library. The target is named so that the flags reach neither macros nor
/// build scripts. Paths of this machine are cut out, so that two machines build the same.
fn build_static() -> Result<PathBuf> {
    let host = String::from_utf8(printed(
        Command::new("rustc").args(["--print", "host-tuple"]),
    )?)?;
    let host = host.trim();
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .context("neither CARGO_HOME nor a home directory is known")?;
    let flags = format!(
        "-C target-feature=+crt-static --remap-path-prefix={}=/cargo --remap-path-prefix={}=/src",
        home.display(),
        root().display()
    );
    let arguments = [
        "build",
        "--release",
        "--locked",
        "--package",
        NAME,
        "--target",
        host,
    ];
    step(
        "building the static program (minutes)",
        "mend what the compiler names above",
        cargo(&arguments).env("RUSTFLAGS", flags),
    )?;
    Ok(target().join(host).join("release").join(NAME))
}

/// A copy of a debug build, a third of its size.
fn without_symbols(built: &Path) -> Result<PathBuf> {
    let folder = target().join("package-debug");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let path = folder.join(NAME);
    // Two may be at it.
    let unfinished = folder.join(format!("{NAME}.{}", std::process::id()));
    printed(Command::new("strip").arg("-o").arg(&unfinished).arg(built))?;
    fs::rename(&unfinished, &path).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// Whether the names of its functions are in it, a tenth of the file.
fn has_symbols(program: &Path) -> Result<bool> {
    let sections = printed(
        Command::new("readelf")
            .args(["--section-headers", "--wide"])
            .arg(program),
    )?;
    let sections = String::from_utf8_lossy(&sections);
    Ok(sections.split_whitespace().any(|word| word == ".symtab"))
}

/// What the kernel and the loader bring in with a program: none for a static one.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let headers = printed(
        Command::new("readelf")
            .args(["--program-headers", "--wide"])
            .arg(program),
    )?;
    let headers = String::from_utf8_lossy(&headers);
    ensure!(
        headers.contains("LOAD"),
        "{} is no program",
        program.display()
    );
    if !headers.split_whitespace().any(|word| word == "INTERP") {
        return Ok(Vec::new());
    }
    // Lines such as `libm.so.6 => /lib/libm.so.6 (0x…)` and `/lib64/ld-linux-x86-64.so.2 (0x…)`.
    let listed = printed(Command::new("ldd").arg(program))?;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let found: Vec<_> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect();
    ensure!(
        !found.is_empty(),
        "`ldd {}` names no library:\n{listed}",
        program.display()
    );
    Ok(found)
}

fn printed(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .output()
        .with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(output.stdout)
}
