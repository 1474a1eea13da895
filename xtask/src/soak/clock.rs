//! The wall clock of the program's processes, which can jump while they run.
//!
//! libfaketime is preloaded into them. It changes what time it is, and neither the monotonic clock, by which
//! timeouts are measured, nor the times of files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use testkit::tools;

/// A clock that its processes read from a file.
pub(crate) struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// A clock that is right, whose file is in `folder`.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let clock = Self {
            library: tools::libfaketime()?,
            file: folder.join("clock"),
        };
        clock.step(0)?;
        Ok(clock)
    }

    /// The variables that a process needs to go by this clock.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let variables = [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            // The file is read again after so many seconds.
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("FAKETIME_DONT_RESET", "1".to_owned()),
            ("FAKETIME_DISABLE_SHM", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ];
        variables
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec()
    }

    /// From now on it is wrong by so many seconds.
    pub(crate) fn step(&self, seconds: i64) -> Result<()> {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        fs::rename(&new, &self.file).context("setting the clock")
    }

    /// Makes sure that a process goes by this clock.
    pub(crate) fn is_used_by(pid: u32) -> Result<()> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        ensure!(
            maps.contains("libfaketime"),
            "libfaketime was not loaded into process {pid}"
        );
        Ok(())
    }
}
