//! Chromium, installed from the system's packages where it isn't.
//!
//! The only program that tests install: it needs so many libraries, in the places where packages put
//! them, that unpacking it like the others doesn't make it run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::process::find;
use crate::tools::folder;

/// Where Debian's package puts it.
const CHROMIUM: &str = "/usr/bin/chromium";
/// With what it needs, but not with what it only recommends.
const INSTALL: [&str; 6] = [
    "install",
    "--yes",
    "--quiet",
    "--no-install-recommends",
    "chromium",
    // Without any font, a page has no letters.
    "fonts-dejavu-core",
];

/// Finds Chromium, installing Debian's package where it is missing, which takes about a minute. Tests
/// may call it at once, also from several processes.
///
/// # Errors
/// When it is missing and this is no Debian-like system, this is not root, or the package can't be had.
pub fn ensure() -> Result<PathBuf> {
    let chromium = Path::new(CHROMIUM);
    if chromium.is_file() {
        return Ok(chromium.to_owned());
    }
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    // One installation at a time, also between processes; the lock ends with the file handle.
    let lock = folder.join(".chromium.lock");
    let lock = File::create(&lock).with_context(|| format!("creating {}", lock.display()))?;
    lock.lock().context("locking the tools folder")?;
    if !chromium.is_file() {
        install().with_context(|| {
            format!(
                "{CHROMIUM} is missing and Debian's package chromium could not be installed; \
                 install it yourself"
            )
        })?;
    }
    ensure!(
        chromium.is_file(),
        "the package chromium is installed, and {CHROMIUM} is missing all the same"
    );
    Ok(chromium.to_owned())
}

fn install() -> Result<()> {
    ensure!(find("apt-get").is_some(), "apt-get is not on this machine");
    ensure!(
        rustix::process::geteuid().is_root(),
        "only root can install packages"
    );
    eprintln!(
        "testkit: {CHROMIUM} is missing, and the tests of the page need it; \
         installing Debian's package chromium"
    );
    if apt_get(&INSTALL).is_err() {
        // No package lists yet (a fresh container image), or lists that name a version that is gone.
        eprintln!("testkit: apt-get install chromium failed; trying again after apt-get update");
        apt_get(&["update", "--quiet"])?;
        apt_get(&INSTALL)?;
    }
    Ok(())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .context("running apt-get")?;
    ensure!(
        output.status.success(),
        "apt-get {} failed ({}): {}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
