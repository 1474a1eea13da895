//! Following a config: one loop, whatever its source.
//!
//! A new value replaces the old one as a whole; calls in flight finish with what they began with. A bad
//! one changes nothing but the log and the state.

use std::sync::Arc;

use cluster::ClientProvider;
use policy::config::Settings;
use tokio::sync::Notify;

use crate::in_force::InForce;
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
        } = self;
        let mut in_force = InForce::new(Arc::clone(&link), wants_credentials);
        if let Some(first) = source.first() {
            if is_applied {
                in_force.set_applied(first.clone());
            } else {
                in_force.set(first.clone());
            }
            state.loaded();
        }
        let name = source.name();
        let mut source = source.start(link, Arc::clone(&wake), in_force.interval());
        loop {
            let Some(look) = source.look().await else {
                tracing::warn!("reading {name} failed badly; reloads stop until a restart");
                return;
            };
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
                in_force.set(loaded.settings);
            }
            if let Some(filled) = in_force.next() {
                announce::config(&filled);
                apply(filled);
            }
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
