//! Noticing at once that a file may have changed, and that somebody is still writing it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How long a file must be left alone before it is read: who writes it in two steps is half-way
/// through between them.
const QUIET_INTERVAL: Duration = Duration::from_millis(30);
/// How long that may be put off by somebody who keeps writing beside it.
const QUIET_TIMEOUT: Duration = Duration::from_millis(300);
/// Who has begun to write a file and has done nothing more to it for so long is not writing it.
const WRITING_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits until nobody writes any more.
pub(crate) async fn let_it_settle(wake: &Notify) {
    let settled = async {
        while tokio::time::timeout(QUIET_INTERVAL, wake.notified())
            .await
            .is_ok()
        {}
    };
    // Being put off for too long is no reason not to look.
    let _ = tokio::time::timeout(QUIET_TIMEOUT, settled).await;
}

/// Watches the directories that `files` are in; ends when dropped.
///
/// The directories, because editors and mounted ConfigMaps replace the file instead of writing to it,
/// and a watch of the file itself would stay with the old one.
pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    /// When a file was written to that has not been closed since.
    written: Arc<Mutex<Option<Instant>>>,
}

impl Watch {
    /// Starts; `wake` is told of everything that may be a change: a file that was closed after it was
    /// written, replaced or removed. Where there can be no watch (the kernel's limit of them is reached)
    /// that is logged, and the periodic look has to do.
    pub fn start(files: &[&Path], wake: Arc<Notify>) -> Self {
        let written = Arc::default();
        match watcher(files, wake, Arc::clone(&written)) {
            Ok(watcher) => Self {
                watcher: Some(watcher),
                written,
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
                Self {
                    watcher: None,
                    written,
                }
            }
        }
    }

    /// Whether a file has been written to and not been closed yet. `wake` is told when it is.
    pub fn is_being_written(&self) -> bool {
        let written = self.written.lock();
        written.is_some_and(|at| at.elapsed() < WRITING_TIMEOUT)
    }

    /// Whether there is a watch at all.
    pub(crate) fn is_watching(&self) -> bool {
        self.watcher.is_some()
    }
}

fn watcher(
    files: &[&Path],
    wake: Arc<Notify>,
    written: Arc<Mutex<Option<Instant>>>,
) -> notify::Result<RecommendedWatcher> {
    let mut places: Vec<PathBuf> = Vec::new();
    for file in files {
        // A symlink changes where it is, or where it leads.
        let target = file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
        for place in [file.to_path_buf(), target] {
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    let watched = places.clone();
    let mut watcher =
        notify::recommended_watcher(
            move |event: notify::Result<notify::Event>| match file_change(&event, &watched) {
                FileChange::Nothing => {}
                FileChange::IsWritten => *written.lock() = Some(Instant::now()),
                FileChange::MayHaveChanged => wake.notify_one(),
                FileChange::IsWhole => {
                    *written.lock() = None;
                    wake.notify_one();
                }
            },
        )?;
    let mut directories: Vec<PathBuf> = Vec::new();
    for place in &places {
        let directory = match place.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory.to_path_buf(),
            _ => PathBuf::from("."),
        };
        if !directories.contains(&directory) {
            watcher.watch(&directory, RecursiveMode::NonRecursive)?;
            directories.push(directory);
        }
    }
    Ok(watcher)
}

/// What an event says about the watched files.
#[derive(Debug, PartialEq, Eq)]
enum FileChange {
    Nothing,
    /// One is open, and was written to.
    IsWritten,
    /// Something beside one changed that it may depend on, such as the link that it stands behind.
    MayHaveChanged,
    /// One was closed, replaced or removed.
    IsWhole,
}

fn file_change(event: &notify::Result<notify::Event>, files: &[PathBuf]) -> FileChange {
    let event = match event {
        Ok(event) if !event.need_rescan() => event,
        // Events were lost, so nobody knows.
        _ => return FileChange::IsWhole,
    };
    // Where no directory is written before it, events have one.
    let is_ours = |path: &PathBuf| {
        let path = path.strip_prefix(".").unwrap_or(path);
        files
            .iter()
            .any(|file| file.strip_prefix(".").unwrap_or(file) == path)
    };
    if !event.paths.iter().any(is_ours) {
        return match event.kind {
            EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => {
                FileChange::MayHaveChanged
            }
            EventKind::Create(_) => FileChange::MayHaveChanged,
            _ => FileChange::Nothing,
        };
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => FileChange::IsWhole,
        EventKind::Access(_) => FileChange::Nothing,
        EventKind::Create(CreateKind::File) if event.paths.iter().any(|path| is_opened(path)) => {
            FileChange::IsWritten
        }
        EventKind::Modify(ModifyKind::Data(_)) => FileChange::IsWritten,
        EventKind::Modify(ModifyKind::Metadata(_)) => FileChange::MayHaveChanged,
        _ => FileChange::IsWhole,
    }
}

/// Whether a file came to be by being opened, so that it will be closed; a link is there at once.
fn is_opened(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let metadata = path.symlink_metadata();
    metadata.is_ok_and(|file| file.is_file() && file.nlink() == 1)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use testkit::wait::until;

    use super::*;

    #[tokio::test]
    async fn a_file_is_read_when_it_is_closed_or_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        fs::write(&path, "old").unwrap();
        let wake = Arc::new(Notify::new());
        let watch = Watch::start(&[&path], Arc::clone(&wake));
        assert!(!watch.is_being_written());
        // Truncated, and half-written, by somebody who takes his time.
        let mut file = fs::File::create(&path).unwrap();
        let is_written = async || watch.is_being_written().then_some(());
        until("the truncation is seen", is_written).await;
        file.write_all(b"half").unwrap();
        file.sync_all().unwrap();
        drop(file);
        wake.notified().await;
        until("the end is seen", async || {
            (!watch.is_being_written()).then_some(())
        })
        .await;
        // A new file of that name by another's hand.
        fs::remove_file(&path).unwrap();
        let file = fs::File::create(&path).unwrap();
        until("the new file is seen", is_written).await;
        drop(file);
        until("its end is seen", async || {
            (!watch.is_being_written()).then_some(())
        })
        .await;
        // Replaced in one step while the old one is still open.
        let _file = fs::File::create(&path).unwrap();
        until("the truncation is seen", is_written).await;
        fs::write(dir.path().join("new"), "new").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        until("the new one is seen", async || {
            (!watch.is_being_written()).then_some(())
        })
        .await;
    }
}
