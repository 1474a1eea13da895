//! Why a config can't be used.

use std::io;
use std::path::PathBuf;

use policy::config::StartRefusal;

/// A config that can't be used. A running process keeps the last good one.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be opened. Name another, or make it readable.
    #[error("cannot read the config file {}; name another with `--file`: {error}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file can't be read to its end, or is no UTF-8.
    #[error("cannot read the config file {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// No config is that large.
    #[error("the config file {} is larger than {limit} bytes; is it the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How many bytes it may have.
        limit: u64,
    },
    /// It has errors. They are listed with their lines; mend them.
    #[error("the config can't be used as it is\n{}", findings.join("\n"))]
    Unusable {
        /// `FILE:LINE:COLUMN: error: …`.
        findings: Vec<String>,
    },
    /// It would open a site by accident.
    #[error("{0}")]
    Opens(String),
    /// It can't be used at start, and neither may the last good config, nor none. Mend it.
    #[error("{problem}\n{why}")]
    Refused {
        /// What is wrong with it.
        problem: Box<ConfigError>,
        /// Why nothing takes its place.
        why: StartRefusal,
    },
    /// The ConfigMap can't be read, isn't there, or is no config.
    #[error("{0}")]
    ConfigMap(String),
}
