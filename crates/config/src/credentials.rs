//! Credentials that the config only points to, followed and filled in.

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use cluster::{ClientProvider, LastSync, SecretData, WatchedObject};
use credentials::Keeper;
use futures_util::future::select_all;
use parking_lot::Mutex;
use policy::config::{Found, Need, Settings};
use policy::{CredentialSource, docker_config};
use secrecy::ExposeSecret;

use crate::interval::Interval;

/// Follows Secrets, files and programs for one config at a time.
pub struct CredentialSources {
    /// What the config needs that is followed.
    needs: Vec<Need>,
    keeper: Keeper,
    secrets: BTreeMap<String, WatchedObject<SecretData>>,
    link: Arc<ClientProvider>,
    interval: Interval,
    /// What was logged about Secrets, so that it is logged once per change.
    reported: Mutex<HashMap<Need, String>>,
}

impl CredentialSources {
    /// Nothing is followed yet. `interval` is how often files are looked at, asked for each time.
    pub fn new(link: Arc<ClientProvider>, interval: Interval) -> Self {
        Self {
            needs: Vec::new(),
            keeper: Keeper::new(Arc::clone(&interval)),
            secrets: BTreeMap::new(),
            link,
            interval,
            reported: Mutex::default(),
        }
    }

    /// Takes over what a new config needs, or that nothing is needed; never waits. Looks on the current
    /// runtime.
    pub fn set(&mut self, settings: Option<&Settings>) {
        let needs = settings.map(Settings::credential_needs).unwrap_or_default();
        let plugins = settings.and_then(|settings| settings.credential_plugins.as_ref());
        self.keeper.set(&needs, plugins);
        let names = settings.map(Settings::secret_names).unwrap_or_default();
        self.secrets.retain(|name, _| names.contains(name));
        for name in names {
            let (link, interval) = (Arc::clone(&self.link), Arc::clone(&self.interval));
            self.secrets
                .entry(name.clone())
                .or_insert_with(|| cluster::follow_secret(link, name, interval));
        }
        self.needs = needs;
    }

    /// `settings`, which must be as they were read, with what is known now.
    pub fn fill(&mut self, settings: &Settings) -> Settings {
        for secret in self.secrets.values_mut() {
            secret.take_snapshot();
        }
        settings.with_credentials(&|need| self.find(need))
    }

    /// For one look: what `settings` need, as far as it is known after at most `timeout`. Where it is
    /// not, the entry's note says so.
    pub async fn look_once(&mut self, settings: &Settings, timeout: Duration) -> Settings {
        self.set(Some(settings));
        let all_known = async {
            while !self.is_answered() {
                self.changed().await;
                for secret in self.secrets.values_mut() {
                    secret.take_snapshot();
                }
            }
        };
        // What is not known by then is reported below.
        let _ = tokio::time::timeout(timeout, all_known).await;
        settings.with_credentials(&|need| match &need.source {
            Some(source) if !self.is_known(need) => Found {
                credentials: None,
                note: Some(format!(
                    "no credentials: {source}: no answer within {timeout:?}"
                )),
            },
            _ => self.find(need),
        })
    }

    /// What is known now.
    fn find(&self, need: &Need) -> Found {
        match &need.source {
            Some(source) if !self.is_known(need) => Found {
                credentials: None,
                note: Some(format!("no credentials yet: {source} has not answered")),
            },
            Some(CredentialSource::Secret(name)) => self.secret(name, need),
            _ => self.keeper.get(need),
        }
    }

    /// Whether each source has answered, also with no.
    pub(crate) fn is_answered(&self) -> bool {
        self.needs.iter().all(|need| self.is_known(need))
    }

    fn is_known(&self, need: &Need) -> bool {
        match &need.source {
            Some(CredentialSource::Secret(name)) => {
                let followed = self.secrets.get(name);
                followed.is_some_and(|secret| secret.snapshot().last_sync != LastSync::Pending)
            }
            _ => self.keeper.is_known(need),
        }
    }

    /// Waits until [`CredentialSources::fill`] may give something else.
    pub async fn changed(&mut self) {
        let secrets = self.secrets.values_mut();
        let mut waiting: Vec<_> = secrets.map(|secret| Box::pin(secret.changed())).collect();
        let any_secret = async {
            if waiting.is_empty() {
                pending::<()>().await;
            }
            select_all(waiting.iter_mut()).await;
        };
        tokio::select! {
            () = self.keeper.changed() => {}
            () = any_secret => {}
        }
    }

    fn secret(&self, name: &str, need: &Need) -> Found {
        let Some(followed) = self.secrets.get(name) else {
            return Found::default();
        };
        let snapshot = followed.snapshot();
        let note = match (&snapshot.value, &snapshot.last_sync) {
            (Some(secret), _) => {
                let value = |key: &str| secret.data.get(key).map(|value| value.expose_secret());
                match docker_config::from_secret(&secret.kind, &value, &need.endpoint) {
                    Ok(Some(credentials)) => {
                        self.forget_report(need);
                        return Found {
                            credentials: Some(credentials),
                            note: None,
                        };
                    }
                    Ok(None) => format!("it has no entry for {}", need.endpoint.domain()),
                    Err(error) => error.to_string(),
                }
            }
            (None, LastSync::Failed(failure)) => failure.to_string(),
            (None, LastSync::Absent) => format!(
                "there is no such Secret in {}",
                policy::config::CONFIG_MAP_NAMESPACE
            ),
            (None, _) => return Found::default(),
        };
        let note = format!("no credentials: authSecret {name}: {note}");
        self.report(need, &note);
        Found {
            credentials: None,
            note: Some(note),
        }
    }

    fn report(&self, need: &Need, note: &str) {
        let mut reported = self.reported.lock();
        if reported.get(need).map(String::as_str) != Some(note) {
            tracing::warn!("{}: {note}", need.endpoint);
            reported.insert(need.clone(), note.to_owned());
        }
    }

    fn forget_report(&self, need: &Need) {
        self.reported.lock().remove(need);
    }
}
