//! Noticing at once that a file may have changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// How long a file must be left alone before it is read: who writes it in two steps is half-way
/// through between them.
const QUIET: Duration = Duration::from_millis(30);
/// How long that may be put off by somebody who keeps writing beside it.
const QUIET_AT_MOST: Duration = Duration::from_millis(300);

/// Waits until nobody writes any more.
pub(crate) async fn let_it_settle(wake: &Notify) {
    let settled = async { while tokio::time::timeout(QUIET, wake.notified()).await.is_ok() {} };
    // Being put off for too long is no reason not to look.
    let _ = tokio::time::timeout(QUIET_AT_MOST, settled).await;
}

/// Watches the directories that `files` are in; ends when dropped.
///
/// The directories, because editors and mounted ConfigMaps replace the file instead of writing to it,
/// and a watch of the file itself would stay with the old one.
pub struct Watch {
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Starts; `wake` is told of everything that may be a change. Where there can be no watch (the
    /// kernel's limit of them is reached) that is said, and the periodic look has to do.
    pub fn start(files: &[&Path], wake: Arc<Notify>) -> Self {
        match watcher(files, wake) {
            Ok(watcher) => Self {
                _watcher: Some(watcher),
            },
            Err(error) => {
                let files: Vec<_> = files
                    .iter()
                    .map(|file| file.display().to_string())
                    .collect();
                tracing::warn!(
                    "cannot watch {}: {error}; changes are seen at the next periodic look",
                    files.join(" and ")
                );
                Self { _watcher: None }
            }
        }
    }
}

fn watcher(files: &[&Path], wake: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error is lost events: look, then.
        if event.map_or(true, |event| may_change(&event.kind)) {
            wake.notify_one();
        }
    })?;
    let mut watched: Vec<PathBuf> = Vec::new();
    for file in files {
        // A symlink changes where it is, or where it leads.
        let target = file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
        for place in [*file, &target] {
            let dir = match place.parent() {
                Some(dir) if !dir.as_os_str().is_empty() => dir.to_path_buf(),
                _ => PathBuf::from("."),
            };
            if !watched.contains(&dir) {
                watcher.watch(&dir, RecursiveMode::NonRecursive)?;
                watched.push(dir);
            }
        }
    }
    Ok(watcher)
}

/// Reading is no change; it is also what we do when we are woken.
fn may_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(access) => matches!(access, AccessKind::Close(AccessMode::Write)),
        _ => true,
    }
}
