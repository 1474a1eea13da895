//! Re-reading the config file: on SIGHUP, and every `reloadInterval`.
//!
//! A config is one immutable value. A new one that is valid replaces the old one as a whole; calls
//! in flight finish with what they began with. A bad one changes nothing but the log.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use policy::config::Settings;

use crate::config_file::{self, Loaded};

/// What happened to the file since it was looked at last.
pub(crate) enum Change {
    /// Nothing.
    None,
    /// It means something new; warnings are for the log.
    New(Box<Loaded>),
    /// It can't be used, for this reason. Said once per content.
    Bad(String),
}

/// Watches one file by its content. No `Debug`: the text holds credentials.
pub(crate) struct Watched {
    path: PathBuf,
    /// What was seen last: the text, or why there was none.
    seen: Result<String, String>,
}

impl Watched {
    /// Starts from what is loaded already.
    pub(crate) fn new(path: PathBuf, text: String) -> Self {
        Self {
            path,
            seen: Ok(text),
        }
    }

    /// Looks at the file.
    pub(crate) fn look(&mut self) -> Change {
        let now = config_file::read(&self.path).map_err(|error| format!("{error:#}"));
        if now == self.seen {
            return Change::None;
        }
        self.seen = now;
        match &self.seen {
            Err(error) => Change::Bad(error.clone()),
            Ok(text) => match config_file::understand(&self.path, text.clone()) {
                Ok(loaded) => Change::New(Box::new(loaded)),
                Err(error) => Change::Bad(format!("{error:#}")),
            },
        }
    }
}

/// Looks at the file whenever `wake` says so or `reloadInterval` has passed, and hands every new
/// config to `apply`.
pub(crate) async fn follow(
    mut file: Watched,
    settings: Arc<ArcSwap<Settings>>,
    wake: Arc<tokio::sync::Notify>,
    mut apply: impl FnMut(Settings),
) {
    loop {
        let interval = settings.load().reload_interval;
        let _ = tokio::time::timeout(interval, wake.notified()).await;
        let path = file.path.display().to_string();
        // A file on a dead network mount must block nothing but its own reloads.
        let looked = tokio::task::spawn_blocking(move || {
            let change = file.look();
            (file, change)
        })
        .await;
        let Ok((back, change)) = looked else {
            tracing::warn!("reading {path} failed badly; reloads stop until a restart");
            return;
        };
        file = back;
        match change {
            Change::None => {}
            Change::Bad(why) => {
                tracing::warn!("keeping the last good config: {why}");
            }
            Change::New(loaded) => {
                for warning in &loaded.warnings {
                    tracing::warn!("{warning}");
                }
                announce_restart_only(&settings.load(), &loaded.settings);
                if loaded.settings.reload_interval != interval {
                    let interval = policy::duration::format(loaded.settings.reload_interval);
                    tracing::info!("updated reload interval to {interval}");
                }
                apply(loaded.settings);
                tracing::info!("reloaded shim auth configuration from {path}");
            }
        }
    }
}

fn announce_restart_only(old: &Settings, new: &Settings) {
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
