//! Where a config comes from, looked at again and again.

use std::path::PathBuf;
use std::sync::Arc;

use cluster::{ClientProvider, ConfigMapText, Snapshot, WatchedObject};
use policy::config::Settings;
use telemetry::report::ConfigPart;
use tokio::sync::Notify;

use crate::config_map::{self, ConfigMapSource};
use crate::file::Loaded;
use crate::in_force::Interval;
use crate::merge::Merging;
use crate::watch::Watch;

/// Where a config is. No `Debug`: it holds credentials.
pub enum Source {
    /// A local file, read already.
    File {
        /// Where.
        path: PathBuf,
        /// What was in it.
        loaded: Box<Loaded>,
        /// Whether the ConfigMap is merged into it, as on a node.
        merge_config_map: bool,
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

    /// What is known before the first look.
    pub(crate) fn first(&self) -> Option<&Settings> {
        match self {
            Self::File { loaded, .. } => Some(&loaded.settings),
            Self::ConfigMap => None,
        }
    }

    pub(crate) fn start(
        self,
        link: Arc<ClientProvider>,
        wake: Arc<Notify>,
        interval: Interval,
    ) -> Looking {
        match self {
            Self::File {
                path,
                loaded,
                merge_config_map,
            } => Looking::File(FileSource {
                _watch: Watch::start(&[&path], wake),
                config_map: merge_config_map.then(|| cluster::follow_config_map(link, interval)),
                merging: Some(Box::new(Merging::new(path, *loaded))),
            }),
            Self::ConfigMap => Looking::ConfigMap(ConfigMapSource::new(
                cluster::follow_config_map(link, interval),
            )),
        }
    }
}

/// What a look has found.
pub(crate) struct Found {
    /// The config, where it is another than the last one.
    pub(crate) new: Option<Loaded>,
    /// What is wrong with what is written, where it is not what is in force.
    pub(crate) problem: Option<String>,
    /// Each field of what is in force, and where its value comes from.
    pub(crate) parts: Vec<ConfigPart>,
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

/// A file, and the ConfigMap where it is merged into it.
pub(crate) struct FileSource {
    merging: Option<Box<Merging>>,
    config_map: Option<WatchedObject<ConfigMapText>>,
    _watch: Watch,
}

impl FileSource {
    /// On a thread of its own: a file on a dead network mount must block nothing but its own reloads.
    async fn look(&mut self) -> Option<Found> {
        let seen = match &mut self.config_map {
            Some(config_map) => config_map.take_snapshot(),
            None => Snapshot::default(),
        };
        let mut merging = self.merging.take()?;
        let looked = tokio::task::spawn_blocking(move || {
            let new = merging.step(&seen);
            (merging, new)
        });
        let (merging, new) = looked.await.ok()?;
        let found = Found {
            new,
            problem: merging.problem(),
            parts: merging.parts().to_vec(),
        };
        self.merging = Some(merging);
        Some(found)
    }
}
