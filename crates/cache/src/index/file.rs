//! The database's file, and what happens when the disk fails under it.
//!
//! After a failed write `redb` answers nothing more until it is opened anew. So it is opened anew at once;
//! where even that fails (a disk that is full or read-only), what the last commit left is used from memory,
//! and the file is tried again later.

use std::fs::{Metadata, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use redb::backends::InMemoryBackend;
use redb::{Database, StorageBackend};

use super::tables::prepare;
use super::{IndexError, Result};

/// Memory for pages. The database's own default is a gigabyte.
const PAGE_CACHE: usize = 8 * 1024 * 1024;
/// How often the file is tried again.
const REOPEN_INTERVAL: Duration = Duration::from_secs(2);

/// Names of private images stand in the file, and its folder may be anybody's.
const MODE: u32 = 0o600;

/// A database that outlives the failures of its disk.
pub(super) struct Databases {
    /// None for one that is only in memory.
    path: Option<PathBuf>,
    state: RwLock<State>,
}

struct State {
    database: Database,
    /// When the file was tried last, while a copy in memory is used.
    copy_since: Option<Instant>,
}

impl Databases {
    /// Opens the file. One that is damaged is set aside, and an empty one begun: images are fetched again,
    /// which is better than a cache that does not start.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let database = match open_file(path) {
            Err(error) if error.is_damage() => {
                let aside = path.with_extension("redb.damaged");
                tracing::warn!(
                    "{error}; the damaged index is kept as {}, and the cache begins anew",
                    aside.display()
                );
                std::fs::rename(path, &aside).map_err(|e| IndexError::Database(e.into()))?;
                open_file(path)?
            }
            opened => opened?,
        };
        Ok(Self {
            path: Some(path.to_owned()),
            state: RwLock::new(State {
                database,
                copy_since: None,
            }),
        })
    }

    /// In memory only, with what a file of an index holds.
    pub(super) fn in_memory(content: &[u8]) -> Result<Self> {
        Ok(Self {
            path: None,
            state: RwLock::new(State {
                database: copy(content)?,
                copy_since: None,
            }),
        })
    }

    /// Uses the database.
    pub(super) fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        let is_due = |state: &State| {
            let since = state.copy_since;
            since.is_some_and(|since| since.elapsed() >= REOPEN_INTERVAL)
        };
        if is_due(&self.state.read()) {
            self.reopen();
        }
        let done = act(&self.state.read().database);
        if let Err(IndexError::Database(redb::Error::Io(_) | redb::Error::PreviousIo)) = &done {
            self.reopen();
        }
        done
    }

    fn reopen(&self) {
        let Some(path) = &self.path else {
            return;
        };
        let mut state = self.state.write();
        // What is in memory for now must not hold the file open.
        let Ok(nothing) = copy(&[]) else {
            return;
        };
        let was_copy = state.copy_since.is_some();
        let before = std::mem::replace(&mut state.database, nothing);
        if !was_copy {
            drop(before);
            match open_file(path) {
                Ok(database) => {
                    state.database = database;
                    return;
                }
                Err(error) => tracing::debug!("the index can't be opened anew: {error}"),
            }
            match std::fs::read(path).map_err(|error| IndexError::Database(error.into())) {
                Ok(content) => match copy(&content) {
                    Ok(database) => state.database = database,
                    Err(error) => tracing::debug!("nor can it be read: {error}"),
                },
                Err(error) => tracing::debug!("nor can it be read: {error}"),
            }
            state.copy_since = Some(Instant::now());
            return;
        }
        match open_file(path) {
            Ok(database) => {
                state.database = database;
                state.copy_since = None;
            }
            Err(_) => {
                state.database = before;
                state.copy_since = Some(Instant::now());
            }
        }
    }
}

fn open_file(path: &Path) -> Result<Database> {
    close_to_others(path);
    let database = Database::builder()
        .set_cache_size(PAGE_CACHE)
        .create(path)?;
    prepare(&database)?;
    Ok(database)
}

/// Where this fails, opening it says why, or the file is another user's, who has to do it.
fn close_to_others(path: &Path) {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(false);
    let Ok(file) = options.mode(MODE).open(path) else {
        return;
    };
    let is_open = |file: &Metadata| file.permissions().mode() & 0o077 != 0;
    if file.metadata().as_ref().is_ok_and(is_open) {
        let _ = file.set_permissions(Permissions::from_mode(MODE));
    }
}

fn copy(content: &[u8]) -> Result<Database> {
    let backend = InMemoryBackend::new();
    if !content.is_empty() {
        let copied = backend
            .set_len(content.len() as u64)
            .and_then(|()| backend.write(0, content));
        copied.map_err(redb::StorageError::from)?;
    }
    let database = Database::builder()
        .set_cache_size(PAGE_CACHE)
        .create_with_backend(backend)?;
    prepare(&database)?;
    Ok(database)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_may_not_read_it_also_one_of_an_earlier_version() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.redb");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        drop(Databases::open(&path).unwrap());
        assert_eq!(mode(), MODE);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        drop(Databases::open(&path).unwrap());
        assert_eq!(mode(), MODE);
    }
}
