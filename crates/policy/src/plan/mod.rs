//! The ordered places one image may come from.
//!
//! A plan is pure: it says who would be asked, in which order, with whose credentials and why. Shim,
//! webhook, cache and the commands that explain all use [`Plan::new`], so they can't disagree.

use crate::layout::{self, Layout};
use crate::name::{self, Name};
use crate::rules::{EntryKind, Priority, Redirect, Registry, Rules, why_less_safe};
use crate::short_names::Meaning;
use crate::{CredentialSource, Credentials, Endpoint, Reference, TlsOptions};
use crate::{credentials, redirect};

/// Why a place is in the plan, and which rules of order apply to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateKind {
    /// A configured registry: pulled from only where a probe found the image there.
    Registry(EntryKind),
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
    pub kind: CandidateKind,
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

/// A place that is no candidate although a rule leads there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The place, as in the config; without credentials.
    pub registry: String,
    /// Why, for people.
    pub why: String,
}

/// Ordered candidates for one image. The original name is not among them: it comes after them,
/// unprobed and exactly as the caller sent it, unless [`Plan::fallback_to_origin`] is off.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The name that was asked for.
    pub reference: Reference,
    /// What that name stands for to the runtime: the same, but where its config gives a short name another
    /// meaning (rule 6).
    pub meaning: Reference,
    /// Why the name goes to the runtime untouched although it is one, for people: only the runtime
    /// knows what it stands for. Then there are no candidates.
    pub untouched: Option<String>,
    /// The one key that all spellings of the name share.
    pub key: String,
    /// Best first.
    pub candidates: Vec<Candidate>,
    /// Places whose name for this image can't be used.
    pub left_out: Vec<LeftOut>,
    /// Whether the original name may be pulled when no candidate could be.
    pub fallback_to_origin: bool,
}

impl Plan {
    /// Makes the plan for `reference` (rules 1 to 6).
    pub fn new(rules: &Rules, reference: &Reference) -> Self {
        match rules.short_names.meaning(reference) {
            Meaning::Image(meaning) => Self::of(rules, reference, meaning),
            Meaning::Unclear(why) => Self {
                key: unclear_key(reference),
                reference: reference.clone(),
                meaning: reference.clone(),
                untouched: Some(why),
                candidates: Vec::new(),
                left_out: Vec::new(),
                fallback_to_origin: rules.fallback_to_origin,
            },
        }
    }

    /// The key of the plan for `reference`, without the plan.
    pub fn key_of(rules: &Rules, reference: &Reference) -> String {
        match rules.short_names.meaning(reference) {
            Meaning::Image(meaning) => meaning.canonical(),
            Meaning::Unclear(_) => unclear_key(reference),
        }
    }

    fn of(rules: &Rules, reference: &Reference, meaning: Reference) -> Self {
        let mut left_out = Vec::new();
        let mut checked = |made: Result<Candidate, LeftOut>| match made {
            Ok(candidate) => Some(candidate),
            Err(place) => {
                left_out.push(place);
                None
            }
        };
        let mut redirected = redirect::find(rules, &meaning).and_then(|(rule, name)| {
            let name = name.map_err(|error| LeftOut::new(&rule.to, &error));
            checked(name.map(|name| at_target(rule, name, reference)))
        });
        let mut candidates = Vec::with_capacity(rules.registries.len() + 1);
        for registry in rules.registries.iter().filter(|r| r.serves(&meaning)) {
            // At equal priority the registry stays before the redirect's target, as it would
            // without a priority of its own.
            let redirect_first = redirected
                .as_ref()
                .and_then(|target| target.priority)
                .is_some_and(|priority| priority > registry.priority);
            if redirect_first {
                candidates.extend(redirected.take());
            }
            candidates.extend(checked(at_registry(registry, &meaning, reference)));
        }
        candidates.extend(redirected);
        Self {
            key: meaning.canonical(),
            reference: reference.clone(),
            meaning,
            untouched: None,
            candidates: each_once(candidates),
            left_out,
            fallback_to_origin: rules.fallback_to_origin,
        }
    }

    /// Whether `candidate` is the original itself: the same name, with the caller's credentials.
    pub fn is_original(&self, candidate: &Candidate) -> bool {
        candidate.image == self.key && candidate.credentials == CredentialChoice::Callers
    }
}

/// Not the key of Docker Hub's image of that name, which is another one.
fn unclear_key(reference: &Reference) -> String {
    format!("{}{}", reference.written_repository(), reference.suffix())
}

impl LeftOut {
    fn new(place: &Endpoint, why: &dyn std::fmt::Display) -> Self {
        Self {
            registry: place.to_string(),
            why: why.to_string(),
        }
    }
}

/// One name is asked for once, where it stands first, with the credentials of whichever has them.
/// Credentials never move to a place that is spoken to less safely than where they were written.
fn each_once(candidates: Vec<Candidate>) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let Some(first) = kept.iter_mut().find(|c| c.image == candidate.image) else {
            kept.push(candidate);
            continue;
        };
        let may_move = matches!(candidate.credentials, CredentialChoice::Configured(_))
            && !matches!(first.credentials, CredentialChoice::Configured(_));
        if !may_move {
            continue;
        }
        let (to, from) = (
            (&first.endpoint, &first.tls),
            (&candidate.endpoint, &candidate.tls),
        );
        if let Some(why) = why_less_safe(to, from) {
            first.note.get_or_insert(why.to_owned());
        } else {
            first.credentials = candidate.credentials;
            first.credential_source = candidate.credential_source;
            first.note = candidate.note;
        }
    }
    kept
}

fn at_target(rule: &Redirect, name: Name, asked: &Reference) -> Candidate {
    Candidate {
        image: name.image,
        kind: CandidateKind::Redirect(rule.number),
        endpoint: rule.to.clone(),
        repository: name.repository,
        priority: rule.priority,
        credentials: whose(rule.credentials.as_ref(), &rule.to, asked),
        credential_source: rule.source.clone(),
        tls: rule.tls.clone(),
        reason: rule.reason(),
        note: rule.note.clone(),
    }
}

/// Rule 2: `R.host[:port]/[R.path/]repo:tag@digest`, or with the image's host before `repo`. An image that
/// is at `R` already stays as it is.
fn at_registry(
    registry: &Registry,
    image: &Reference,
    asked: &Reference,
) -> Result<Candidate, LeftOut> {
    let endpoint = &registry.endpoint;
    let repository = if is_below(endpoint, image) {
        image.repository().to_owned()
    } else {
        let inside = match registry.layout {
            Layout::Repository => image.repository().to_owned(),
            Layout::Host => match layout::host_to_segment(image.domain()) {
                Some(host) => format!("{host}/{}", image.repository()),
                None => {
                    let why = "the image's host can't be read back from a repository (`layout: host`): it is an IPv6 address, or one word";
                    return Err(LeftOut::new(endpoint, &why));
                }
            },
        };
        match endpoint.path() {
            "" => inside,
            path => format!("{path}/{inside}"),
        }
    };
    let name = name::made(&endpoint.domain(), &repository, &image.suffix())
        .map_err(|error| LeftOut::new(endpoint, &error))?;
    Ok(Candidate {
        image: name.image,
        kind: CandidateKind::Registry(registry.kind),
        endpoint: endpoint.clone(),
        repository: name.repository,
        priority: Some(registry.priority),
        credentials: whose(registry.credentials.as_ref(), endpoint, asked),
        credential_source: registry.source.clone(),
        tls: registry.tls.clone(),
        reason: registry.reason(),
        note: registry.note.clone(),
    })
}

fn is_below(endpoint: &Endpoint, reference: &Reference) -> bool {
    endpoint.domain() == reference.domain()
        && (endpoint.path().is_empty()
            || reference
                .repository()
                .strip_prefix(endpoint.path())
                .is_some_and(|rest| rest.starts_with('/')))
}

/// `asked` is the name that the caller wrote: what he sent is for that name's host. kubelet takes a short
/// name for Docker Hub's whatever the runtime makes of it.
fn whose(
    configured: Option<&Credentials>,
    endpoint: &Endpoint,
    asked: &Reference,
) -> CredentialChoice {
    match configured {
        Some(credentials) => CredentialChoice::Configured(credentials.clone()),
        None if endpoint.domain() == asked.domain() => CredentialChoice::Callers,
        None => CredentialChoice::Anonymous,
    }
}

#[cfg(test)]
mod tests;
