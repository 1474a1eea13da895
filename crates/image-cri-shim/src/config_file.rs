//! Reading the local config file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use policy::config::{Diagnostic, Settings};

/// More than any real config; a mistaken path (a device, an image) is refused instead of read.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// The file's text and what it means. No `Debug`: the text holds credentials.
pub(crate) struct Loaded {
    pub(crate) text: String,
    pub(crate) settings: Settings,
    /// Warnings, ready to print: `FILE:LINE:COLUMN: warning: …`.
    pub(crate) warnings: Vec<String>,
}

/// Reads the file's text.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let file = File::open(path).with_context(|| {
        format!("cannot read the config file {shown}; name another with `--file`")
    })?;
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read the config file {shown}"))?;
    if text.len() as u64 > MAX_FILE {
        bail!("the config file {shown} is larger than {MAX_FILE} bytes; is it the right file?");
    }
    Ok(text)
}

/// Understands a text read from `path`. All errors are in the one that is returned.
pub(crate) fn understand(path: &Path, text: String) -> anyhow::Result<Loaded> {
    let file = path.display().to_string();
    let (settings, findings) = Settings::read(&text, &|name| std::env::var(name).ok());
    let show = |finding: &Diagnostic| finding.in_file(&file).to_string();
    let (errors, warnings): (Vec<_>, Vec<_>) = findings.iter().partition(|f| f.is_error());
    if !errors.is_empty() {
        let lines: Vec<_> = errors.into_iter().map(show).collect();
        bail!("the config can't be used as it is\n{}", lines.join("\n"));
    }
    Ok(Loaded {
        text,
        settings,
        warnings: warnings.into_iter().map(show).collect(),
    })
}

/// Reads and understands the file.
pub(crate) fn load(path: &Path) -> anyhow::Result<Loaded> {
    understand(path, read(path)?)
}
