//! `cargo xtask package`: what a release is made of, below `target/package`. A `.deb`, an `.rpm`, a tarball, an image as
//! an OCI layout, and their checksums.
//!
//! All of them are written from one list of files ([`contents`]). Equal contents give equal bytes: times are those of the
//! last commit, or of `SOURCE_DATE_EPOCH`, owners are root, and files stand in one order.
//!
//! The packages are written by libraries: `rpm` is the one inside cargo-generate-rpm, and a `.deb` is two tar archives.
//! The commands cargo-deb and cargo-generate-rpm were tried: building them takes minutes (the second has all of OpenPGP,
//! with crates that were taken back), the first packages no debug build, which is what tests need, and each wants its own
//! list of all files.

mod contents;
mod deb;
mod image;
mod licences;
mod place;
mod program;
mod rpm;
mod scripts;
mod tarball;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use self::contents::Contents;
use self::program::Program;
use crate::step::{git, target};

/// What all packages are called.
const NAME: &str = "image-cri-shim";
/// The version of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const SUMMARY: &str = "decides where every container image on a Kubernetes node comes from";
const DESCRIPTION: &str = "A CRI proxy between kubelet and the container runtime. It asks the configured registries who has an image and \
     lets the runtime pull it from the best one. While it is down, kubelet is led past it. Installing it changes no \
     kubelet; `image-cri-shim install` does.";
const HOMEPAGE: &str = env!("CARGO_PKG_REPOSITORY");
const LICENCE: &str = "Apache-2.0";
const MAINTAINER: &str = "The image-cri-shim developers <image-cri-shim@users.noreply.github.com>";

/// What is made, and how.
pub(crate) struct Release {
    /// Seconds since 1970 that every file is dated with.
    date: u32,
    /// How often this version was packaged.
    revision: u32,
    /// Whether to pack well, which takes longer.
    small: bool,
    contents: Contents,
    program: Program,
}

/// Builds the program and writes all packages into `output`. With `debug`, of the debug build: quickly, and for tests.
pub(crate) fn run(debug: bool, revision: u32, output: Option<PathBuf>) -> Result<()> {
    let output = output.unwrap_or_else(|| target().join("package"));
    let program = Program::build(debug)?;
    eprintln!("\n== packages");
    let release = Release {
        date: date()?,
        revision,
        small: !debug,
        contents: Contents::collect(&program)?,
        program,
    };
    fs::create_dir_all(&output).with_context(|| format!("creating {}", output.display()))?;
    let made = [
        (release.deb_name(), deb::write(&release)?),
        (release.rpm_name(), rpm::write(&release)?),
        (release.tarball_name(), tarball::write(&release)?),
        (release.image_name(), image::write(&release)?),
    ];
    let mut sums = String::new();
    for (name, bytes) in &made {
        replace(&output.join(name), bytes)?;
        sums.push_str(&format!("{}  {name}\n", sha256(bytes)));
    }
    replace(&output.join("SHA256SUMS"), sums.as_bytes())?;
    for (name, bytes) in &made {
        let kib = bytes.len() / 1024;
        eprintln!("{kib:>8} KiB  {}", output.join(name).display());
    }
    Ok(())
}

impl Release {
    fn deb_name(&self) -> String {
        let (arch, revision) = (self.program.debian_arch(), self.revision);
        format!("{NAME}_{VERSION}-{revision}_{arch}.deb")
    }

    fn rpm_name(&self) -> String {
        let (arch, revision) = (self.program.arch(), self.revision);
        format!("{NAME}-{VERSION}-{revision}.{arch}.rpm")
    }

    fn tarball_name(&self) -> String {
        format!("{}.tar.gz", self.tarball_folder())
    }

    fn tarball_folder(&self) -> String {
        let arch = self.program.debian_arch();
        format!("{NAME}-{VERSION}-linux-{arch}")
    }

    fn image_name(&self) -> String {
        let arch = self.program.debian_arch();
        format!("{NAME}-{VERSION}-linux-{arch}.oci.tar")
    }

    /// How well gzip packs: in tests not at all, since a debug build of it takes minutes.
    fn gzip(&self) -> flate2::Compression {
        if self.small {
            flate2::Compression::best()
        } else {
            flate2::Compression::none()
        }
    }
}

/// The date of what is released: `SOURCE_DATE_EPOCH`, else the last commit's.
fn date() -> Result<u32> {
    if let Ok(given) = std::env::var("SOURCE_DATE_EPOCH") {
        return given
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH is {given:?}, not a number of seconds"));
    }
    let seconds = git(&["log", "-1", "--format=%ct"]).context(
        "the date of the last commit dates all files; set SOURCE_DATE_EPOCH where there is no git",
    )?;
    seconds
        .parse()
        .with_context(|| format!("git says that the last commit is of {seconds:?}"))
}

/// Writes a file in one step, so that no half of one is ever taken for it.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, bytes)
        .and_then(|()| fs::rename(&unfinished, path))
        .with_context(|| format!("writing {}", path.display()))
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
