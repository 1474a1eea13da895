//! Following a config: one loop, whatever its source.
//!
//! A new value replaces the old one as a whole; calls in flight finish with what they began with. A bad
//! one changes nothing but the log and the state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cluster::ClientProvider;
use policy::config::Settings;
use tokio::sync::Notify;

use crate::in_force::InForce;
use crate::last_good::{Keeper, LastGood};
use crate::source::Source;
use crate::state::ConfigState;
use crate::{announce, watch};

/// What to follow, and how. No `Debug`: it holds credentials.
pub struct Follower {
    /// Where the config comes from.
    pub source: Source,
    /// Leads to the ConfigMap and to Secrets.
    pub link: Arc<ClientProvider>,
    /// Asks for a look at once.
    pub wake: Arc<Notify>,
    /// Is told how it goes.
    pub state: ConfigState,
    /// Whether credentials from elsewhere are looked up for a config. Who never asks a registry needs no
    /// right to read Secrets.
    pub wants_credentials: fn(&Settings) -> bool,
    /// Whether the config that the source begins with is in force already, so that only others are handed
    /// on.
    pub is_applied: bool,
    /// Whether each config that is in force is kept in the state directory, for a start at which the file can't be used.
    /// For the service of a node only: what somebody tries by hand must not take its place.
    pub keeps_last_good: bool,
    /// Whether files may be written by now. A shim that takes over from another knows the config before it serves, and
    /// leaves the files to the other one until that is gone; `wake` is to be told when that is so.
    pub may_write: Arc<AtomicBool>,
}

impl Follower {
    /// Hands the config to `apply`, and every new one, with the credentials that it points to. Runs until
    /// it is dropped.
    pub async fn run(self, mut apply: impl FnMut(Settings)) {
        let Self {
            source,
            link,
            wake,
            state,
            wants_credentials,
            is_applied,
            keeps_last_good,
            may_write,
        } = self;
        let file = source.file().filter(|_| keeps_last_good);
        let mut keeper = file.map(|file| Keeper::new(file.to_owned()));
        // The text of the config in force, and whether the ConfigMap alone has its rules.
        let mut current = LastGood::default();
        let mut in_force = InForce::new(Arc::clone(&link), wants_credentials);
        let mut forwards_everything = false;
        if let Some(first) = source.first() {
            let settings = first.loaded.settings.clone();
            if is_applied {
                in_force.set_applied(settings);
            } else {
                in_force.set(settings);
            }
            forwards_everything = first.forwards_everything;
            current.text.clone_from(&first.loaded.text);
            if let Some(problem) = first.problem {
                if let Some(keeper) = &mut keeper {
                    keeper.leave(current.clone());
                }
                state.looked(Vec::new(), Some(problem.to_owned()));
            }
            state.forwards_everything(forwards_everything);
            state.loaded();
        }
        let name = source.name();
        let mut source = source.start(
            link,
            Arc::clone(&wake),
            in_force.interval(),
            Arc::clone(&may_write),
        );
        loop {
            let Some(look) = source.look().await else {
                tracing::warn!("reading {name} failed badly; reloads stop until a restart");
                return;
            };
            let is_mended = look.problem.is_none();
            state.looked(look.parts, look.problem);
            let reloaded = look.new.is_some();
            if let Some(loaded) = look.new {
                for warning in &loaded.warnings {
                    tracing::warn!("{warning}");
                }
                let interval = loaded.settings.reload_interval;
                if in_force
                    .bare()
                    .is_some_and(|old| old.reload_interval != interval)
                {
                    let interval = policy::duration::format(interval);
                    tracing::info!("updated reload interval to {interval}");
                }
                current.text = loaded.text;
                in_force.set(loaded.settings);
            }
            // Before they are filled in: what is answered after that is not in force yet.
            let credentials = in_force.is_answered();
            if let Some(filled) = in_force.next() {
                announce::config(&filled);
                apply(filled);
            }
            // A ConfigMap may bring rules where the file is still broken.
            let routes = |settings: &Settings| !settings.rules.is_empty();
            if is_mended || in_force.bare().is_some_and(routes) {
                forwards_everything = false;
            }
            state.forwards_everything(forwards_everything);
            current.relies_on_config_map = look.relies_on_config_map;
            if let (Some(keeper), Some(settings)) = (&mut keeper, in_force.bare())
                && !forwards_everything
                && may_write.load(Ordering::Acquire)
            {
                keeper.keep(current.clone(), &settings.state_dir);
            }
            state.answered(credentials, look.is_answered);
            if reloaded {
                state.loaded();
                tracing::info!("reloaded shim auth configuration from {name}");
            }
            tokio::select! {
                () = wake.notified() => watch::let_it_settle(&wake).await,
                () = source.changed() => {}
                () = in_force.changed() => {}
            }
        }
    }
}
