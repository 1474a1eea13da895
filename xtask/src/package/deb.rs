//! The package for Debian and Ubuntu: an `ar` archive of two tar archives (deb(5)).

use anyhow::Result;
use md5::{Digest, Md5};

use super::place::{Family, gzipped_at, placed};
use super::scripts;
use super::tarball::Archive;
use super::{DESCRIPTION, HOMEPAGE, MAINTAINER, NAME, Release, SUMMARY, VERSION};

/// The package's bytes.
pub(super) fn write(release: &Release) -> Result<Vec<u8>> {
    let mut data = Archive::new(release.date);
    let mut sums = String::new();
    let mut kib = 0;
    for (path, file) in placed(&release.contents, Family::Debian)? {
        data.file(&path, &file.bytes, file.mode)?;
        sums.push_str(&format!("{}  {path}\n", md5(&file.bytes)));
        kib += file.bytes.len().div_ceil(1024);
    }
    let mut control = Archive::new(release.date);
    control.file("control", fields(release, kib).as_bytes(), 0o644)?;
    control.file("md5sums", sums.as_bytes(), 0o644)?;
    for (name, script) in scripts::debian()? {
        control.file(name, script.as_bytes(), 0o755)?;
    }
    let mut package = ar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("debian-binary", b"2.0\n".to_vec()),
        (
            "control.tar.gz",
            gzipped_at(&control.bytes()?, release.gzip())?,
        ),
        ("data.tar.gz", gzipped_at(&data.bytes()?, release.gzip())?),
    ] {
        let mut header = ar::Header::new(name.into(), bytes.len() as u64);
        header.set_mode(0o100_644);
        header.set_mtime(u64::from(release.date));
        package.append(&header, bytes.as_slice())?;
    }
    Ok(package.into_inner()?)
}

/// The fields of `control`.
fn fields(release: &Release, kib: usize) -> String {
    // A static program needs nothing; systemd runs it, and has the bypass.
    let mut depends = "systemd".to_owned();
    if !release.program.libraries.is_empty() {
        depends.push_str(", libc6, libgcc-s1");
    }
    let (arch, revision) = (release.program.debian_arch(), release.revision);
    let description = wrapped(DESCRIPTION, 78);
    format!(
        "Package: {NAME}\nVersion: {VERSION}-{revision}\nArchitecture: {arch}\nMaintainer: {MAINTAINER}\n\
         Installed-Size: {kib}\nDepends: {depends}\nSection: admin\nPriority: optional\nHomepage: {HOMEPAGE}\n\
         Description: {SUMMARY}\n{description}"
    )
}

/// A text in lines of a field that goes on: each begins with a space.
fn wrapped(text: &str, width: usize) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if line.len() + word.len() + 1 > width {
            lines.push_str(&line);
            lines.push('\n');
            line.clear();
        }
        line.push(' ');
        line.push_str(word);
    }
    lines.push_str(&line);
    lines.push('\n');
    lines
}

/// A checksum as `md5sums` has it: 16 bytes are one number of 32 digits.
fn md5(bytes: &[u8]) -> String {
    format!("{:032x}", u128::from_be_bytes(Md5::digest(bytes).into()))
}
