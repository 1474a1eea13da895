//! Directories, watched. Editors and mounted ConfigMaps and Secrets replace a file as a whole, which
//! who watches the file itself never sees.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// Tells when something may have happened beside some files: on events of their directories, and every
/// `interval`, for file systems that have no events.
#[derive(Debug)]
pub struct Watch {
    woken: Arc<Notify>,
    interval: Duration,
    /// Ends the watch when dropped.
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Watches the directories of `files`. Where that can't be, the interval alone remains, and one
    /// warning says so.
    pub fn new(files: &[&Path], interval: Duration) -> Self {
        let woken = Arc::new(Notify::new());
        let watcher = watcher(files, Arc::clone(&woken)).inspect_err(|error| {
            tracing::warn!(
                "cannot watch for changes ({error}); looking every {interval:?} instead"
            );
        });
        Self {
            woken,
            interval,
            _watcher: watcher.ok(),
        }
    }

    /// Returns when it is time to look. Events from before the call count.
    pub async fn changed(&self) {
        let _ = tokio::time::timeout(self.interval, self.woken.notified()).await;
    }
}

fn watcher(files: &[&Path], woken: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading makes events too; answering those would never end.
        if event.is_ok_and(|event| event.kind.is_access()) {
            return;
        }
        woken.notify_one();
    })?;
    let directories: BTreeSet<PathBuf> = files.iter().map(|file| directory(file)).collect();
    for directory in directories {
        watcher.watch(&directory, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}
