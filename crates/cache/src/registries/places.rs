//! Where an image may come from: the places of its plan, and its own name's, but never this cache itself.

use std::net::IpAddr;

use policy::rules::EntryKind;
use policy::{CandidateKind, CredentialChoice, Endpoint, Plan, Rules, TlsOptions};

use super::Registries;
use crate::name::Repository;
use crate::upstream::Place;

impl Registries {
    fn is_own(&self, endpoint: &Endpoint) -> bool {
        let host = endpoint.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_here = host == "localhost"
            || bare.parse::<IpAddr>().is_ok_and(|address| {
                address.is_loopback() || self.inner.own.iter().any(|own| own.ip() == address)
            });
        let port = endpoint.effective_port();
        is_here && self.inner.own.iter().any(|own| own.port() == port)
    }

    /// Where an image's own name leads, where it may be asked: by TLS and by name, unless the config
    /// names the host.
    fn origin(&self, rules: &Rules, repository: &Repository) -> Option<Place> {
        let (endpoint, _) = Endpoint::parse(repository.host()).ok()?;
        let host = endpoint.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_address = bare.parse::<IpAddr>().is_ok() || host == "localhost";
        let named = rules.registries.iter().map(|r| &r.endpoint);
        let mut named = named.chain(rules.redirects.iter().map(|r| &r.to));
        if is_address && !named.any(|known| known.host() == host) {
            return None;
        }
        Some(Place {
            name: place_name(&endpoint, repository.path()),
            endpoint,
            repository: repository.path().to_owned(),
            credentials: CredentialChoice::Callers,
            tls: TlsOptions::default(),
            priority: 0,
        })
    }

    /// The places of a repository's plan, best first.
    pub(super) fn planned(&self, repository: &Repository) -> Vec<Place> {
        let asking = self.asking();
        let Ok(reference) = repository.reference("latest") else {
            return Vec::new();
        };
        let plan = Plan::new(&asking.rules, &reference);
        let mut places: Vec<Place> = Vec::with_capacity(plan.candidates.len() + 1);
        for candidate in plan.candidates {
            if candidate.kind == CandidateKind::Registry(EntryKind::NodeCache)
                || self.is_own(&candidate.endpoint)
            {
                continue;
            }
            places.push(Place {
                name: place_name(&candidate.endpoint, &candidate.repository),
                // A redirect's target without a priority comes after the registries.
                priority: candidate
                    .priority
                    .map_or(1, |priority| u32::from(priority.get()) + 2),
                endpoint: candidate.endpoint,
                repository: candidate.repository,
                credentials: candidate.credentials,
                tls: candidate.tls,
            });
        }
        if plan.fallback_to_origin
            && let Some(origin) = self.origin(&asking.rules, repository)
            && !self.is_own(&origin.endpoint)
            && !places.iter().any(|place| {
                place.endpoint.domain() == origin.endpoint.domain()
                    && place.repository == origin.repository
                    && place.is_callers()
            })
        {
            places.push(origin);
        }
        places
    }
}

fn place_name(endpoint: &Endpoint, repository: &str) -> String {
    let shown = endpoint.to_string();
    let scheme = shown.split_once("://").map(|(scheme, _)| scheme);
    let scheme = scheme.map_or_else(String::new, |scheme| format!("{scheme}://"));
    format!("{scheme}{}/{repository}", endpoint.domain())
}
