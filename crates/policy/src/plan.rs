//! The ordered places one image may come from.
//!
//! A plan is pure: it says who would be asked, in which order, with whose credentials and why. Shim,
//! webhook, cache and the commands that explain all use [`Plan::new`], so they can't disagree.

use crate::rules::{Origin, Priority, Registry, Rules};
use crate::{CredentialSource, Credentials, Endpoint, Reference, TlsOptions};
use crate::{credentials, redirect};

/// Why a place is in the plan, and which rules of order apply to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A configured registry: pulled from only where a probe found the image there.
    Registry(Origin),
    /// The target of the redirect with this number: only a 404 rules it out (rule 4).
    Redirect(usize),
}

/// Whose credentials go with a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialChoice {
    /// The entry's own, from the config.
    Configured(Credentials),
    /// The caller's: the candidate is on the host that the caller wrote.
    Callers,
    /// None: the caller's are for another host.
    Anonymous,
}

/// One concrete name that may satisfy the request.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What the runtime would be asked to pull.
    pub image: String,
    /// Why it is here.
    pub role: Role,
    /// Where it would be probed.
    pub endpoint: Endpoint,
    /// Repository at that endpoint, with the endpoint's path.
    pub repository: String,
    /// Priority; `None` for a redirect's target that comes after the registries.
    pub priority: Option<Priority>,
    /// Whose credentials it is asked with.
    pub credentials: CredentialChoice,
    /// Where configured credentials stand; `None` is: in the config itself.
    pub credential_source: Option<CredentialSource>,
    /// How its certificate is checked.
    pub tls: TlsOptions,
    /// Why it is tried at this place, for people.
    pub reason: String,
    /// Why it has no credentials although it should; for the trail. Without secrets.
    pub note: Option<String>,
}

impl Candidate {
    /// Whose credentials it is asked with, and where they stand, for people: never what they are.
    pub fn credentials_shown(&self) -> String {
        match &self.credentials {
            CredentialChoice::Configured(_) => credentials::place(self.credential_source.as_ref()),
            CredentialChoice::Callers => "the pod's own".to_owned(),
            CredentialChoice::Anonymous => "none".to_owned(),
        }
    }
}

/// Ordered candidates for one image. The original name is not among them: it comes after them,
/// unprobed and exactly as the caller sent it, unless [`Plan::fallback_to_origin`] is off.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The name that was asked for.
    pub reference: Reference,
    /// The one key that all spellings of the name share.
    pub key: String,
    /// Best first.
    pub candidates: Vec<Candidate>,
    /// Whether the original name may be pulled when no candidate could be.
    pub fallback_to_origin: bool,
}

impl Plan {
    /// Makes the plan for `reference` (rules 1 to 5).
    pub fn new(rules: &Rules, reference: &Reference) -> Self {
        let redirected = redirect::target(rules, reference);
        let mut candidates = Vec::with_capacity(rules.registries.len() + 1);
        let mut redirected = redirected.map(|(rule, image, repository)| Candidate {
            image,
            role: Role::Redirect(rule.number),
            endpoint: rule.to.clone(),
            repository,
            priority: rule.priority,
            credentials: whose(rule.credentials.as_ref(), &rule.to, reference),
            credential_source: rule.source.clone(),
            tls: rule.tls.clone(),
            reason: rule.reason(),
            note: rule.note.clone(),
        });
        for registry in rules.registries.iter().filter(|r| r.serves(reference)) {
            // At equal priority the registry stays before the redirect's target, as it would
            // without a priority of its own.
            let redirect_first = redirected
                .as_ref()
                .and_then(|target| target.priority)
                .is_some_and(|priority| priority > registry.priority);
            if redirect_first {
                candidates.extend(redirected.take());
            }
            candidates.push(at_registry(registry, reference));
        }
        candidates.extend(redirected);
        let mut seen = Vec::new();
        candidates.retain(|candidate: &Candidate| {
            let first = !seen.contains(&candidate.image);
            seen.push(candidate.image.clone());
            first
        });
        Self {
            key: reference.canonical(),
            reference: reference.clone(),
            candidates,
            fallback_to_origin: rules.fallback_to_origin,
        }
    }

    /// Whether `candidate` is the original itself: the same name, with the caller's credentials.
    pub fn is_original(&self, candidate: &Candidate) -> bool {
        candidate.image == self.key && candidate.credentials == CredentialChoice::Callers
    }
}

/// Rule 2: `R.host[:port]/[R.path/]repo:tag@digest`. An image that is at `R` already stays as it is.
fn at_registry(registry: &Registry, reference: &Reference) -> Candidate {
    let endpoint = &registry.endpoint;
    let repository = if endpoint.path().is_empty() || is_below(endpoint, reference) {
        reference.repository().to_owned()
    } else {
        format!("{}/{}", endpoint.path(), reference.repository())
    };
    Candidate {
        image: format!("{}/{repository}{}", endpoint.domain(), reference.suffix()),
        role: Role::Registry(registry.origin),
        endpoint: endpoint.clone(),
        repository,
        priority: Some(registry.priority),
        credentials: whose(registry.credentials.as_ref(), endpoint, reference),
        credential_source: registry.source.clone(),
        tls: registry.tls.clone(),
        reason: registry.reason(),
        note: registry.note.clone(),
    }
}

fn is_below(endpoint: &Endpoint, reference: &Reference) -> bool {
    endpoint.domain() == reference.domain()
        && reference
            .repository()
            .strip_prefix(endpoint.path())
            .is_some_and(|rest| rest.starts_with('/'))
}

fn whose(
    configured: Option<&Credentials>,
    endpoint: &Endpoint,
    reference: &Reference,
) -> CredentialChoice {
    match configured {
        Some(credentials) => CredentialChoice::Configured(credentials.clone()),
        None if endpoint.domain() == reference.domain() => CredentialChoice::Callers,
        None => CredentialChoice::Anonymous,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
