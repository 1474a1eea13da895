//! The rules a site has written, understood: registries in the order they are asked, and redirects.

use crate::layout::Layout;
use crate::short_names::ShortNames;
use crate::{CredentialSource, Credentials, Endpoint, Reference, Scheme, TlsOptions};

/// Why an entry has no credentials although another entry for the same host and port has some.
const NOT_OVER_PLAIN_HTTP: &str =
    "the credentials of the TLS entry of the same address are not sent over plain HTTP";

/// The same where one of two TLS entries takes any certificate.
const NOT_TO_UNVERIFIED: &str = "the credentials of the entry of the same address whose certificate is verified are not sent where it is not (`insecureSkipVerify`)";

/// How a place is spoken to: by which scheme, and with which certificate checks.
pub(crate) type Speaking<'a> = (&'a Endpoint, &'a TlsOptions);

/// Why credentials that were written for `from` are not sent to `to`, the same place spoken to less safely.
pub(crate) fn why_less_safe(to: Speaking<'_>, from: Speaking<'_>) -> Option<&'static str> {
    if !to.0.is_as_safe_as(from.0) {
        return Some(NOT_OVER_PLAIN_HTTP);
    }
    let gives_up = to.1.insecure_skip_verify && !from.1.insecure_skip_verify;
    // Where there may be no TLS at all, there was nothing to verify.
    (gives_up && from.0.scheme() != Scheme::Http).then_some(NOT_TO_UNVERIFIED)
}

/// Priority of the offline registry where none is written.
pub const OFFLINE_PRIORITY: Priority = Priority(1000);
/// Priority of every other registry where none is written.
pub const REGISTRY_PRIORITY: Priority = Priority(500);

/// How early a registry is asked: 0 (last) to 10000 (first).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u16);

impl Priority {
    /// The largest priority.
    pub const MAX: Self = Self(10_000);

    /// What a written number means: 0 is the default, what is out of range is clamped. The second
    /// part says whether it was.
    pub fn from_written(written: Option<i64>, default: Self) -> (Self, bool) {
        match written {
            None | Some(0) => (default, false),
            Some(number) if number < 0 => (Self(0), true),
            Some(number) => match u16::try_from(number) {
                Ok(number) if number <= Self::MAX.0 => (Self(number), false),
                _ => (Self::MAX, true),
            },
        }
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

/// Where an entry came from in the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// `address`, `auth`, `offlinePriority`.
    Offline,
    /// `useNodeCache`.
    NodeCache,
    /// The entry of `registries` with this number, counted from 1.
    Listed(usize),
}

/// Whose images a registry may serve (rule 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MirrorOf {
    /// Every host's.
    Any,
    /// These hosts' only, as `host[:port]`.
    Hosts(Vec<String>),
}

/// A place that may hold images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// Where in the config it stands.
    pub kind: EntryKind,
    /// Its address as written, without credentials; for logs.
    pub address: String,
    /// Where it answers.
    pub endpoint: Endpoint,
    /// When it is asked.
    pub priority: Priority,
    /// Whether the priority is the default.
    pub default_priority: bool,
    /// Whose images it may serve.
    pub mirror_of: MirrorOf,
    /// Where in it an image of another host is.
    pub layout: Layout,
    /// What it is given, by the config or by its source.
    pub credentials: Option<Credentials>,
    /// Where its credentials stand, when not in the config itself.
    pub source: Option<CredentialSource>,
    /// Why it has no credentials although it should; one line, without secrets.
    pub note: Option<String>,
    /// How its certificate is checked.
    pub tls: TlsOptions,
    /// Secret that the webhook adds to Pods whose images it moves here.
    pub pull_secret: Option<String>,
}

impl Registry {
    /// Whether it may serve images of `reference`'s host.
    pub fn serves(&self, reference: &Reference) -> bool {
        match &self.mirror_of {
            MirrorOf::Any => true,
            MirrorOf::Hosts(hosts) => hosts.iter().any(|host| host == reference.domain()),
        }
    }

    /// Takes over what another entry for the same place is given, where this one is given nothing.
    fn take_credentials(&mut self, other: Self) {
        if self.credentials.is_some() {
            return;
        }
        let (to, from) = ((&self.endpoint, &self.tls), (&other.endpoint, &other.tls));
        if let Some(why) = why_less_safe(to, from) {
            if other.credentials.is_some() || other.source.is_some() {
                self.note.get_or_insert(why.to_owned());
            }
            return;
        }
        self.credentials = other.credentials;
        (self.source, self.note) = match self.credentials {
            Some(_) => (other.source, None),
            None => (
                self.source.take().or(other.source),
                self.note.take().or(other.note),
            ),
        };
    }

    /// `priority 800, configured for every host`.
    pub fn reason(&self) -> String {
        let mut reason = format!("priority {}", self.priority.get());
        if self.default_priority {
            reason.push_str(" (default)");
        }
        if self.kind == EntryKind::Offline {
            reason.push_str(", offline registry");
        }
        if self.kind == EntryKind::NodeCache {
            reason.push_str(", the node's cache");
        }
        match &self.mirror_of {
            MirrorOf::Any => reason.push_str(", configured for every host"),
            MirrorOf::Hosts(hosts) => {
                reason.push_str(", configured for ");
                reason.push_str(&hosts.join(", "));
            }
        }
        if self.layout == Layout::Host {
            reason.push_str(", images below their host's name");
        }
        if let Some(note) = &self.note {
            reason.push_str(", ");
            reason.push_str(note);
        }
        reason
    }
}

/// A prefix rule that changes where the origin of an image is (rules 3 and 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Number in `imageRedirMapping`, counted from 1.
    pub number: usize,
    /// Canonical host of `src`.
    pub src_domain: String,
    /// Repository prefix of `src` as written, without slashes at its ends; may be empty.
    pub src_path: String,
    /// What replaces `src`.
    pub to: Endpoint,
    /// What the rule is called in the webhook's annotations; `imageRedirMapping[N]` where it has no name.
    pub name: Option<String>,
    /// Secret that the webhook adds to Pods whose images it moves there.
    pub pull_secret: Option<String>,
    /// Keep the canonical remainder, not the written one.
    pub canonical: bool,
    /// Place among the registries; `None` is after them.
    pub priority: Option<Priority>,
    /// What the target is given, by the config or by its source.
    pub credentials: Option<Credentials>,
    /// Where its credentials stand, when not in the config itself.
    pub source: Option<CredentialSource>,
    /// Why it has no credentials although it should; one line, without secrets.
    pub note: Option<String>,
    /// How the target's certificate is checked.
    pub tls: TlsOptions,
}

impl Redirect {
    /// `redirect[1], after the registries`.
    pub fn reason(&self) -> String {
        let mut reason = match self.priority {
            Some(priority) => format!("priority {}, redirect[{}]", priority.get(), self.number),
            None => format!("redirect[{}], after the registries", self.number),
        };
        if let Some(note) = &self.note {
            reason.push_str(", ");
            reason.push_str(note);
        }
        reason
    }
}

/// Everything a plan is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// In the order they are asked (rule 1), each place once.
    pub registries: Vec<Registry>,
    /// Longest `src` first.
    pub redirects: Vec<Redirect>,
    /// What the runtime makes of names without a host. Default: Docker Hub's.
    pub short_names: ShortNames,
    /// Whether an image that nobody has is asked of where it came from.
    pub fallback_to_origin: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self::new(Vec::new(), Vec::new(), true)
    }
}

impl Rules {
    /// Sorts by rule 1, and folds entries for one place into one: the higher priority's, with the
    /// credentials of whichever has them. Those of a TLS entry never move to a plain-HTTP one, nor to one that takes any
    /// certificate.
    pub fn new(
        mut registries: Vec<Registry>,
        mut redirects: Vec<Redirect>,
        fallback_to_origin: bool,
    ) -> Self {
        registries.sort_by(|a, b| {
            b.priority
                .cmp(&a.priority)
                .then((a.kind != EntryKind::Offline).cmp(&(b.kind != EntryKind::Offline)))
                .then_with(|| a.endpoint.host().cmp(b.endpoint.host()))
                .then(
                    a.endpoint
                        .effective_port()
                        .cmp(&b.endpoint.effective_port()),
                )
                .then_with(|| a.endpoint.path().cmp(b.endpoint.path()))
        });
        let mut kept: Vec<Registry> = Vec::with_capacity(registries.len());
        for registry in registries {
            match kept
                .iter_mut()
                .find(|other| other.endpoint.same_place(&registry.endpoint))
            {
                Some(first) => first.take_credentials(registry),
                None => kept.push(registry),
            }
        }
        redirects.sort_by_key(|redirect| {
            std::cmp::Reverse(redirect.src_domain.len() + redirect.src_path.len())
        });
        Self {
            registries: kept,
            redirects,
            short_names: ShortNames::default(),
            fallback_to_origin,
        }
    }

    /// The same rules in front of a runtime that gives short names this meaning (rule 6).
    #[must_use]
    pub fn with_short_names(self, short_names: ShortNames) -> Self {
        Self {
            short_names,
            ..self
        }
    }

    /// Whether nothing is routed at all.
    pub fn is_empty(&self) -> bool {
        self.registries.is_empty() && self.redirects.is_empty()
    }
}
