//! The real rpm, from Debian's packages: to read packages back, and to install them on a [`crate::systemd::Machine`].

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};

use crate::tools::{folder, package};

/// rpm and what it needs beside what a minimal Debian has.
const PACKAGES: [&str; 7] = [
    "rpm",
    "rpm-common",
    "librpm9",
    "librpmio9",
    "liblua5.3-0",
    "libpopt0",
    "libsqlite3-0",
];

/// Puts rpm into the tree of a machine that is about to boot, fetching it where it is missing.
///
/// # Errors
/// When Debian's packages can't be had, or the tree can't be written to.
pub fn put_into(tree: &Path) -> Result<()> {
    for name in PACKAGES {
        let unpacked = package(&folder(), name)?;
        copy(&unpacked.join("usr"), &tree.join("usr"))?;
        // The machine's `/lib` is a link to `/usr/lib`, which a folder in its place would hide.
        copy(&unpacked.join("lib"), &tree.join("usr/lib"))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &to)
                .with_context(|| format!("linking {}", to.display()))?;
        } else {
            fs::copy(entry.path(), &to).with_context(|| format!("writing {}", to.display()))?;
        }
    }
    Ok(())
}
