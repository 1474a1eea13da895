//! Where each kind of package has a file.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use flate2::{Compression, GzBuilder};

use super::NAME;
use super::contents::{Contents, File, Kind};

/// Kinds of packages that differ in this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Debian,
    RedHat,
    /// An archive that is unpacked anywhere.
    Archive,
}

/// A file in its place.
pub(super) struct Placed {
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
    pub(super) kind: Kind,
}

/// All files by their path in the package, without a `/` in front.
pub(super) fn placed(contents: &Contents, family: Family) -> Result<BTreeMap<String, Placed>> {
    contents
        .files
        .iter()
        .map(|file| {
            let bytes = match (file.kind, family) {
                (Kind::Page, Family::Debian | Family::RedHat) => gzipped(&file.bytes)?,
                _ => file.bytes.clone(),
            };
            let placed = Placed {
                bytes,
                mode: file.mode(),
                kind: file.kind,
            };
            Ok((path(file, family), placed))
        })
        .collect()
}

fn path(file: &File, family: Family) -> String {
    let name = &file.name;
    if family == Family::Archive {
        return match file.kind {
            Kind::Program | Kind::Doc | Kind::Licence => name.clone(),
            Kind::Script => format!("packaging/lib/{name}"),
            Kind::Unit => format!("packaging/systemd/{name}"),
            Kind::Tmpfiles => format!("packaging/tmpfiles.d/{name}"),
            Kind::Sysusers => format!("packaging/sysusers.d/{name}"),
            Kind::Bash => format!("completions/{name}.bash"),
            Kind::Fish => format!("completions/{name}.fish"),
            Kind::Zsh => format!("completions/_{name}"),
            Kind::Page => format!("man/{name}"),
        };
    }
    match (file.kind, family) {
        (Kind::Program, _) => format!("usr/bin/{name}"),
        (Kind::Script, _) => format!("usr/lib/{NAME}/{name}"),
        (Kind::Unit, _) => format!("usr/lib/systemd/system/{name}"),
        (Kind::Tmpfiles, _) => format!("usr/lib/tmpfiles.d/{name}"),
        (Kind::Sysusers, _) => format!("usr/lib/sysusers.d/{name}"),
        (Kind::Bash, _) => format!("usr/share/bash-completion/completions/{name}"),
        (Kind::Fish, _) => format!("usr/share/fish/vendor_completions.d/{name}.fish"),
        (Kind::Zsh, Family::Debian) => format!("usr/share/zsh/vendor-completions/_{name}"),
        (Kind::Zsh, _) => format!("usr/share/zsh/site-functions/_{name}"),
        (Kind::Page, _) => format!("usr/share/man/man1/{name}.gz"),
        (Kind::Licence, Family::RedHat) => format!("usr/share/licenses/{NAME}/{name}"),
        // Where Debian's tools look for the licence.
        (Kind::Licence, _) if name == "LICENSE" => format!("usr/share/doc/{NAME}/copyright"),
        (Kind::Doc | Kind::Licence, _) => format!("usr/share/doc/{NAME}/{name}"),
    }
}

/// Without a date or a name, so that equal bytes give equal bytes.
pub(super) fn gzipped(bytes: &[u8]) -> Result<Vec<u8>> {
    gzipped_at(bytes, Compression::best())
}

/// As [`gzipped`], packed as well as is asked for.
pub(super) fn gzipped_at(bytes: &[u8], level: Compression) -> Result<Vec<u8>> {
    let mut packed = GzBuilder::new().mtime(0).write(Vec::new(), level);
    packed.write_all(bytes)?;
    Ok(packed.finish()?)
}
