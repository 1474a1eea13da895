//! The local config file: reading it, and replacing it so that nobody ever sees half of one.

mod replace;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use policy::config::{Diagnostic, MAX_FILE_BYTES, RawConfig, Settings};

pub use self::replace::{Replaced, replace};
use crate::{ConfigError, variable};

/// More than any real config; a mistaken path (a device, an image) is refused instead of read.
const MAX_FILE: u64 = MAX_FILE_BYTES as u64;

/// A text and what it means. No `Debug`: the text holds credentials.
pub struct Loaded {
    /// The text.
    pub text: String,
    /// What was written.
    pub raw: RawConfig,
    /// What it means.
    pub settings: Settings,
    /// Warnings, ready to print: `FILE:LINE:COLUMN: warning: …`.
    pub warnings: Vec<String>,
}

/// Reads the file's text.
///
/// # Errors
/// The file can't be read, or is too large for a config.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let path_buf = || path.to_owned();
    let file = File::open(path).map_err(|error| ConfigError::Open {
        path: path_buf(),
        error,
    })?;
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(|error| ConfigError::Read {
            path: path_buf(),
            error,
        })?;
    if text.len() as u64 > MAX_FILE {
        return Err(ConfigError::TooLarge {
            path: path_buf(),
            limit: MAX_FILE,
        });
    }
    Ok(text)
}

/// Understands a text read from `path`.
///
/// # Errors
/// [`ConfigError::Unusable`], with all errors in it.
pub fn understand(path: &Path, text: String) -> Result<Loaded, ConfigError> {
    let file = path.display().to_string();
    let (raw, settings, findings) = Settings::read_with_raw(&text, &variable);
    let show = |finding: &Diagnostic| finding.in_file(&file).to_string();
    let (errors, warnings): (Vec<_>, Vec<_>) = findings.iter().partition(|f| f.is_error());
    if !errors.is_empty() {
        return Err(ConfigError::Unusable {
            findings: errors.into_iter().map(show).collect(),
        });
    }
    Ok(Loaded {
        text,
        raw,
        settings,
        warnings: warnings.into_iter().map(show).collect(),
    })
}

/// Reads and understands the file.
///
/// # Errors
/// The file can't be read, or has errors.
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    understand(path, read(path)?)
}

/// The socket of the shim that runs by this file. The file need not be good otherwise: a broken one is
/// a reason to look at the shim that still runs by the last good one.
///
/// # Errors
/// The file can't be read.
pub fn shim_socket(path: &Path) -> Result<PathBuf, ConfigError> {
    let (settings, _) = Settings::read(&read(path)?, &variable);
    Ok(settings.shim_socket)
}
