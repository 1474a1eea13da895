//! Where a config comes from, looked at again and again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cluster::{ClientProvider, ConfigMapText, LastSync, Snapshot, WatchedObject};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::config_map::{self, ConfigMapSource};
use crate::file::{self, Loaded};
use crate::found::Found;
use crate::interval::Interval;
use crate::start::{BrokenFile, InPlace};
use crate::sync::{BeforeWriting, Merging, Writing};
use crate::watch::Watch;

/// How long a file that was closed must stay as it is: events are a little later than what they tell of.
const WATCHED_INTERVAL: Duration = Duration::from_millis(30);
/// How long a file that nobody watches must stay as it is.
const UNWATCHED_INTERVAL: Duration = Duration::from_secs(2);
/// How long a file may take to be read.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// What the ConfigMap is to a local file.
#[derive(Clone, Copy, Debug)]
pub enum ConfigMapUse {
    /// Nothing.
    Ignored,
    /// Merged into what the file says, in memory; the file is left to the shim of the node.
    Merged,
    /// Merged, and written into the file: for the shim alone. A file has one writer.
    Written(BeforeWriting),
}

/// Where a config is. No `Debug`: it holds credentials.
pub enum Source {
    /// A local file, read already.
    File {
        /// Where.
        path: PathBuf,
        /// What was in it.
        loaded: Box<Loaded>,
        /// Where that is not what is in the file now: what is wrong with the file.
        broken_file: Option<Box<BrokenFile>>,
        /// What the ConfigMap is to it.
        config_map: ConfigMapUse,
    },
    /// The ConfigMap `kube-system/image-cri-shim` alone.
    ConfigMap,
}

impl Source {
    /// What it is called in logs.
    pub fn name(&self) -> String {
        match self {
            Self::File { path, .. } => path.display().to_string(),
            Self::ConfigMap => config_map::name(),
        }
    }

    /// The local file, where there is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } => Some(path),
            Self::ConfigMap => None,
        }
    }

    /// What is known before the first look.
    pub(crate) fn first(&self) -> Option<First<'_>> {
        match self {
            Self::File {
                loaded,
                broken_file,
                ..
            } => Some(First {
                loaded,
                problem: broken_file.as_ref().map(|file| file.problem.as_str()),
                forwards_everything: broken_file
                    .as_ref()
                    .is_some_and(|file| file.in_place == InPlace::ForwardAll),
            }),
            Self::ConfigMap => None,
        }
    }

    pub(crate) fn start(
        self,
        link: Arc<ClientProvider>,
        wake: Arc<Notify>,
        interval: Interval,
        may_write: Arc<AtomicBool>,
    ) -> Looking {
        match self {
            Self::File {
                path,
                loaded,
                broken_file,
                config_map,
            } => {
                let broken_file = broken_file.map(|file| *file);
                let writes = match config_map {
                    ConfigMapUse::Written(before_writing) => Some(Writing {
                        before_writing,
                        is_allowed: may_write,
                    }),
                    ConfigMapUse::Merged | ConfigMapUse::Ignored => None,
                };
                let merging = Merging::new(path.clone(), *loaded, broken_file, writes);
                let config_map = match config_map {
                    ConfigMapUse::Ignored => None,
                    _ => Some(cluster::follow_config_map(link, interval)),
                };
                Looking::File(FileSource::new(path, merging, config_map, wake))
            }
            Self::ConfigMap => Looking::ConfigMap(ConfigMapSource::new(
                cluster::follow_config_map(link, interval),
            )),
        }
    }
}

/// The config that a source begins with.
pub(crate) struct First<'a> {
    pub(crate) loaded: &'a Loaded,
    /// What is wrong with the file, where the config is not what the file says.
    pub(crate) problem: Option<&'a str>,
    /// Whether it stands for a config that nobody has.
    pub(crate) forwards_everything: bool,
}

/// A source that is being looked at.
pub(crate) enum Looking {
    File(FileSource),
    ConfigMap(ConfigMapSource),
}

impl Looking {
    /// Looks; nothing where the source is lost for good.
    pub(crate) async fn look(&mut self) -> Option<Found> {
        match self {
            Self::File(file) => file.look().await,
            Self::ConfigMap(map) => Some(map.look()),
        }
    }

    /// Waits until a look may find something else, as far as that is noticed without looking.
    pub(crate) async fn changed(&mut self) {
        match self {
            Self::File(file) => match &mut file.config_map {
                Some(config_map) => config_map.changed().await,
                None => std::future::pending().await,
            },
            Self::ConfigMap(map) => map.changed().await,
        }
    }
}

/// Where a file really is, and its text or why there is none.
type Read = (Option<PathBuf>, Result<String, String>);

/// A file, and the ConfigMap where it is merged into it.
pub(crate) struct FileSource {
    path: PathBuf,
    merging: Option<Box<Merging>>,
    config_map: Option<WatchedObject<ConfigMapText>>,
    wake: Arc<Notify>,
    watch: Watch,
    /// Where the file really is; a link may lead elsewhere later.
    target: Option<PathBuf>,
    /// A read that takes its time, as on a network mount that is dead.
    reading: Option<JoinHandle<Read>>,
}

impl FileSource {
    fn new(
        path: PathBuf,
        merging: Merging,
        config_map: Option<WatchedObject<ConfigMapText>>,
        wake: Arc<Notify>,
    ) -> Self {
        Self {
            watch: Watch::start(&[&path], Arc::clone(&wake)),
            target: path.canonicalize().ok(),
            merging: Some(Box::new(merging)),
            path,
            config_map,
            wake,
            reading: None,
        }
    }

    /// On a thread of its own: a file on a dead network mount must block nothing but its own reloads.
    async fn look(&mut self) -> Option<Found> {
        let text = self.text().await;
        let seen = match &mut self.config_map {
            Some(config_map) => config_map.take_snapshot(),
            None => Snapshot::default(),
        };
        let is_answered = self.config_map.is_none() || seen.last_sync != LastSync::Pending;
        let mut merging = self.merging.take()?;
        let looked = tokio::task::spawn_blocking(move || {
            let new = merging.step(text, &seen);
            (merging, new)
        });
        let (merging, new) = looked.await.ok()?;
        let found = Found {
            new,
            problem: merging.problem(),
            relies_on_config_map: merging.relies_on_config_map(),
            parts: merging.parts().to_vec(),
            is_answered,
        };
        self.merging = Some(merging);
        Some(found)
    }

    /// The file as it is now; nothing while somebody writes it, which is looked at again when he has done.
    async fn text(&mut self) -> Option<Result<String, String>> {
        if self.watch.is_being_written() {
            return None;
        }
        let first = self.read().await?;
        if self.merging.as_ref()?.looked() == &first {
            return Some(first);
        }
        // Without a watch nobody says when it is closed, so it must stay the same for a while.
        let interval = match self.watch.is_watching() {
            true => WATCHED_INTERVAL,
            false => UNWATCHED_INTERVAL,
        };
        tokio::time::sleep(interval).await;
        let second = self.read().await?;
        if self.watch.is_being_written() || first != second {
            return None;
        }
        Some(second)
    }

    /// Reads the file; nothing where that takes too long. It is not read again before that has ended.
    async fn read(&mut self) -> Option<Result<String, String>> {
        let reading = match &mut self.reading {
            Some(reading) => reading,
            None => {
                let path = self.path.clone();
                self.reading.insert(tokio::task::spawn_blocking(move || {
                    let text = file::read(&path).map_err(|error| error.to_string());
                    (path.canonicalize().ok(), text)
                }))
            }
        };
        let Ok(read) = tokio::time::timeout(READ_TIMEOUT, reading).await else {
            tracing::warn!(
                "reading {} takes longer than {READ_TIMEOUT:?}; the last good config stays",
                self.path.display()
            );
            return None;
        };
        self.reading = None;
        let (target, text) = read.ok()?;
        // While it is replaced it may be nowhere.
        if target.is_some() && target != self.target {
            self.watch = Watch::start(&[&self.path], Arc::clone(&self.wake));
            self.target = target;
        }
        Some(text)
    }
}
