//! A config with the credentials that it points to: one value, made anew when either changes.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cluster::ClientProvider;
use policy::config::Settings;

use crate::credentials::CredentialSources;
use crate::interval::Interval;

/// How often things are looked at before there is a config that says so.
const FIRST_INTERVAL: Duration = Duration::from_secs(15);

/// Keeps a config and its credentials together. No `Debug`: it holds credentials.
pub(crate) struct InForce {
    /// As it was read: what the sources give is filled into this anew each time.
    bare: Option<Settings>,
    /// Whether `bare` has not been handed out yet.
    is_new: bool,
    /// What was handed out last.
    given: Option<Settings>,
    sources: CredentialSources,
    /// Whether a config's credentials are ever used.
    wanted: fn(&Settings) -> bool,
    interval: Arc<ArcSwap<Duration>>,
}

impl InForce {
    /// Without a config yet. Credentials are only looked for where a config is `wanted` to have them:
    /// who never asks a registry needs no right to read Secrets.
    pub(crate) fn new(link: Arc<ClientProvider>, wanted: fn(&Settings) -> bool) -> Self {
        let interval = Arc::new(ArcSwap::from_pointee(FIRST_INTERVAL));
        Self {
            bare: None,
            is_new: false,
            given: None,
            sources: CredentialSources::new(link, asked(&interval)),
            wanted,
            interval,
        }
    }

    /// `reloadInterval`, for what follows other things.
    pub(crate) fn interval(&self) -> Interval {
        asked(&self.interval)
    }

    /// Takes over a config that was read; never waits. On the runtime that credentials are to be
    /// looked for on.
    pub(crate) fn set(&mut self, bare: Settings) {
        self.interval.store(Arc::new(bare.reload_interval));
        self.sources.set((self.wanted)(&bare).then_some(&bare));
        self.bare = Some(bare);
        self.is_new = true;
    }

    /// Notes that `settings` are in force already.
    pub(crate) fn set_applied(&mut self, settings: Settings) {
        self.given = Some(settings.clone());
        self.set(settings);
    }

    /// The config as it was read last.
    pub(crate) fn bare(&self) -> Option<&Settings> {
        self.bare.as_ref()
    }

    /// The config with what is known now, where that is something else than what was given last.
    pub(crate) fn next(&mut self) -> Option<Settings> {
        let filled = self.sources.fill(self.bare.as_ref()?);
        let is_new = std::mem::take(&mut self.is_new);
        if self.given.as_ref() == Some(&filled) {
            return None;
        }
        if !is_new {
            tracing::info!("credentials changed");
        }
        self.given = Some(filled.clone());
        Some(filled)
    }

    /// Whether each source of credentials has answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.sources.is_answered()
    }

    /// Waits until [`InForce::next`] may give something, or it is time to look again.
    pub(crate) async fn changed(&mut self) {
        let interval = **self.interval.load();
        // Running out is no failure: whoever follows something looks at it now and then.
        let _ = tokio::time::timeout(interval, self.sources.changed()).await;
    }
}

fn asked(interval: &Arc<ArcSwap<Duration>>) -> Interval {
    let interval = Arc::clone(interval);
    Arc::new(move || **interval.load())
}
