//! The scripts that a package manager runs. Both kinds of packages have the same functions in front of their own few lines.

use std::fs;

use anyhow::{Context, Result};

use crate::step::root;

/// What all scripts begin with.
const SHARED: &str = "packaging/scripts/functions.sh";

/// What rpm calls, by its names for it.
pub(super) struct RedHat {
    pub(super) pre: String,
    pub(super) post: String,
    pub(super) preun: String,
    pub(super) postun: String,
}

/// dpkg's scripts by name.
pub(super) fn debian() -> Result<Vec<(&'static str, String)>> {
    ["preinst", "postinst", "prerm", "postrm"]
        .into_iter()
        .map(|name| Ok((name, whole("debian", name)?)))
        .collect()
}

/// rpm's scripts.
pub(super) fn red_hat() -> Result<RedHat> {
    Ok(RedHat {
        pre: whole("rpm", "pre")?,
        post: whole("rpm", "post")?,
        preun: whole("rpm", "preun")?,
        postun: whole("rpm", "postun")?,
    })
}

fn whole(kind: &str, name: &str) -> Result<String> {
    let read = |path: &str| {
        fs::read_to_string(root().join(path)).with_context(|| format!("reading {path}"))
    };
    let own = read(&format!("packaging/{kind}/{name}"))?;
    Ok(format!("#!/bin/sh\nset -eu\n\n{}\n{own}", read(SHARED)?))
}
