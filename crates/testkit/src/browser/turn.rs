//! Whose turn it is to have a browser.

use std::fs::{self, File, TryLockError};
use std::future::ready;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{tools, wait};

/// How long a browser may be waited for: dozens of tests may stand in line.
const TURN_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// The right to run a browser: the lock of a file that all test programs of this build directory share. It
/// ends when this is dropped, and with the process.
#[derive(Debug)]
pub(super) struct Turn {
    _locked: File,
}

impl Turn {
    /// Waits until nobody else has it.
    pub(super) async fn wait() -> Result<Self> {
        let file = open()?;
        let locked = || ready(try_lock(&file).transpose());
        match wait::within(TURN_TIMEOUT, locked).await {
            Some(locked) => locked?,
            None => bail!("another test's browser has been running for {TURN_TIMEOUT:?}"),
        }
        Ok(Self { _locked: file })
    }
}

fn try_lock(file: &File) -> Result<Option<()>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(())),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).context("locking the browser's lock file"),
    }
}

fn open() -> Result<File> {
    let folder = tools::folder();
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let path: PathBuf = folder.join(".browser.lock");
    File::create(&path).with_context(|| format!("creating {}", path.display()))
}
