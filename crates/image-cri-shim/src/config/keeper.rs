//! The config's life: file, ConfigMap and credentials become one immutable value, whenever any of them
//! changes.
//!
//! A new value replaces the old one as a whole; calls in flight finish with what they began with. A
//! bad one changes nothing but the log.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use cluster::{ConfigMapText, Followed, Link, Places};
use policy::config::Settings;
use tokio::sync::Notify;

use super::file::Loaded;
use super::in_force::InForce;
use super::merge::Merging;
use super::state::ConfigState;
use super::watch::{self, Watch};

/// Keeps the config. No `Debug`: it holds credentials.
pub(crate) struct ConfigKeeper {
    path: PathBuf,
    merging: Merging,
    /// The config in force, with its credentials.
    settings: Arc<ArcSwap<Settings>>,
    /// SIGHUP and changes of the file.
    wake: Arc<Notify>,
    /// What people are told about all that.
    state: ConfigState,
}

impl ConfigKeeper {
    /// Starts from the file's text whose meaning is in `settings`.
    pub(crate) fn new(
        path: PathBuf,
        text: String,
        settings: Arc<ArcSwap<Settings>>,
        wake: Arc<Notify>,
        state: ConfigState,
    ) -> Self {
        let merging = Merging::new(path.clone(), text);
        state.looked(merging.parts(), None);
        state.loaded();
        Self {
            merging,
            path,
            settings,
            wake,
            state,
        }
    }

    /// Follows everything, and hands every new config to `apply`. Never ends.
    pub(crate) async fn run(mut self, mut apply: impl FnMut(Settings)) {
        let _watch = Watch::start(&[&self.path], Arc::clone(&self.wake));
        let link = Arc::new(Link::new(Places::from_environment()));
        let mut in_force = InForce::new(Arc::clone(&link), |_| true);
        in_force.set_applied(Settings::clone(&self.settings.load()));
        let mut configmap = cluster::follow_config_map(link, in_force.interval());
        let path = self.path.display().to_string();
        loop {
            let Some(changed) = self.step(&mut configmap).await else {
                tracing::warn!("reading {path} failed badly; reloads stop until a restart");
                return;
            };
            let reloaded = changed.is_some();
            self.state
                .looked(self.merging.parts(), self.merging.problem());
            if let Some(loaded) = changed {
                for warning in &loaded.warnings {
                    tracing::warn!("{warning}");
                }
                if let Some(old) = in_force.bare() {
                    announce_changes(old, &loaded.settings);
                }
                in_force.set(loaded.settings);
            }
            if let Some(filled) = in_force.next() {
                apply(filled);
            }
            if reloaded {
                self.state.loaded();
                tracing::info!("reloaded shim auth configuration from {path}");
            }
            tokio::select! {
                () = self.wake.notified() => watch::let_it_settle(&self.wake).await,
                () = configmap.changed() => {}
                () = in_force.changed() => {}
            }
        }
    }

    /// One look at everything, on a thread of its own: a file on a dead network mount must block
    /// nothing but its own reloads.
    async fn step(&mut self, configmap: &mut Followed<ConfigMapText>) -> Option<Option<Loaded>> {
        let seen = configmap.seen_and_noted();
        let placeholder = Merging::new(PathBuf::new(), String::new());
        let mut merging = std::mem::replace(&mut self.merging, placeholder);
        let looked = tokio::task::spawn_blocking(move || {
            let changed = merging.step(&seen);
            (merging, changed)
        });
        let (merging, changed) = looked.await.ok()?;
        self.merging = merging;
        Some(changed)
    }
}

fn announce_changes(old: &Settings, new: &Settings) {
    if new.reload_interval != old.reload_interval {
        let interval = policy::duration::format(new.reload_interval);
        tracing::info!("updated reload interval to {interval}");
    }
    let mut changed = Vec::new();
    if old.shim_socket != new.shim_socket {
        changed.push("shim");
    }
    if old.runtime_socket != new.runtime_socket {
        changed.push("cri");
    }
    if old.metrics_address != new.metrics_address {
        changed.push("metricsAddress");
    }
    if old.state_dir != new.state_dir {
        changed.push("image");
    }
    if !changed.is_empty() {
        tracing::warn!(
            "{} changed in the config; that takes effect with the next restart",
            changed.join(", ")
        );
    }
}
