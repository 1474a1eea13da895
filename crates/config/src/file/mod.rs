//! The local config file: reading it, and replacing it so that nobody ever sees half of one.

mod replace;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use policy::config::{Diagnostic, MAX_FILE_BYTES, RawConfig, Settings, without_rules};

pub(crate) use self::replace::put;
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

/// Reads the file's text. Never waits for a pipe that nobody writes to.
///
/// # Errors
/// The file can't be read, is no regular file, or is too large for a config.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let path_buf = || path.to_owned();
    let opens = |error: &io::Error| {
        use io::ErrorKind::{InvalidInput, NotFound, PermissionDenied};
        matches!(error.kind(), NotFound | PermissionDenied | InvalidInput)
    };
    files::read_text(path, MAX_FILE).map_err(|error| match error {
        error if error.kind() == io::ErrorKind::FileTooLarge => ConfigError::TooLarge {
            path: path_buf(),
            limit: MAX_FILE,
        },
        error if opens(&error) => ConfigError::Open {
            path: path_buf(),
            error,
        },
        error => ConfigError::Read {
            path: path_buf(),
            error,
        },
    })
}

/// The same, also from a pipe: for a command that is given what another one writes.
///
/// # Errors
/// The file can't be read, or is too large for a config.
pub fn read_any(path: &Path) -> Result<String, ConfigError> {
    let file = File::open(path).map_err(|error| ConfigError::Open {
        path: path.to_owned(),
        error,
    })?;
    read_all(file, path)
}

/// The same, from what is open already and is called `path`.
///
/// # Errors
/// As [`read_any`].
pub fn read_all(from: impl Read, path: &Path) -> Result<String, ConfigError> {
    let path_buf = || path.to_owned();
    let mut text = String::new();
    from.take(MAX_FILE + 1)
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

/// As much of a file as can be read, whatever is in it: for what is looked for in a file that can't be used.
pub(crate) fn read_lossy(path: &Path) -> String {
    let bytes = files::read_start(path, MAX_FILE).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
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
    let text = read(path)?;
    let (raw, settings, _) = Settings::read_with_raw(&text, &variable);
    if raw.shim.is_some() {
        return Ok(settings.shim_socket);
    }
    // It may stand in a text that can't be parsed.
    let (settings, _) = Settings::read(&without_rules(&text, &variable), &variable);
    Ok(settings.shim_socket)
}
