//! Filling in credentials that stand elsewhere: in a file, a Secret, or behind a plugin.

use super::settings::Settings;
use crate::rules::{Redirect, Registry, Rules};
use crate::{CredentialSource, Credentials, Endpoint};

/// A place whose credentials are not in the config itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Need {
    /// Where the entry says they stand; `None` where only a plugin could know.
    pub source: Option<CredentialSource>,
    /// Whom they are for.
    pub endpoint: Endpoint,
}

/// What was found for a [`Need`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The credentials; `None` is anonymous.
    pub credentials: Option<Credentials>,
    /// Why there are none although there should be; one line, without secrets. It is shown where
    /// the plan is explained.
    pub note: Option<String>,
}

impl Settings {
    /// Every place whose credentials must be looked for, each once.
    pub fn credential_needs(&self) -> Vec<Need> {
        let registries = self.configured.iter().map(Registry::need);
        let redirects = self.rules.redirects.iter().map(Redirect::need);
        let mut needs: Vec<Need> = Vec::new();
        for need in registries.chain(redirects).flatten() {
            let asked = need.source.is_some() || self.credential_plugins.is_some();
            if asked && !needs.contains(&need) {
                needs.push(need);
            }
        }
        needs
    }

    /// The same settings with what `find` gives for each need. Credentials that are written in the
    /// config stay.
    #[must_use]
    pub fn with_credentials(&self, find: &dyn Fn(&Need) -> Found) -> Self {
        let mut settings = self.clone();
        for registry in &mut settings.configured {
            if let Some(need) = registry.need() {
                let found = find(&need);
                registry.source = source(need.source, &found);
                registry.credentials = found.credentials;
                registry.note = found.note;
            }
        }
        let mut redirects = settings.rules.redirects;
        for redirect in &mut redirects {
            if let Some(need) = redirect.need() {
                let found = find(&need);
                redirect.source = source(need.source, &found);
                redirect.credentials = found.credentials;
                redirect.note = found.note;
            }
        }
        settings.rules = Rules::new(
            settings.configured.clone(),
            redirects,
            settings.rules.fallback_to_origin,
        )
        .with_short_names(settings.rules.short_names);
        settings
    }

    /// Names of the Secrets that entries take their credentials from, sorted, each once.
    pub fn secret_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .credential_needs()
            .into_iter()
            .filter_map(|need| match need.source {
                Some(CredentialSource::Secret(name)) => Some(name),
                _ => None,
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

impl Registry {
    fn need(&self) -> Option<Need> {
        need(
            self.credentials.as_ref(),
            self.source.as_ref(),
            &self.endpoint,
        )
    }
}

impl Redirect {
    fn need(&self) -> Option<Need> {
        need(self.credentials.as_ref(), self.source.as_ref(), &self.to)
    }
}

/// An entry that names no source and has credentials all the same got them from a plugin.
fn source(named: Option<CredentialSource>, found: &Found) -> Option<CredentialSource> {
    named.or_else(|| {
        found
            .credentials
            .is_some()
            .then_some(CredentialSource::Plugin)
    })
}

/// Credentials without a source were written in the config; nothing is needed then.
fn need(
    credentials: Option<&Credentials>,
    source: Option<&CredentialSource>,
    endpoint: &Endpoint,
) -> Option<Need> {
    (credentials.is_none() || source.is_some()).then(|| Need {
        source: source.cloned(),
        endpoint: endpoint.clone(),
    })
}
