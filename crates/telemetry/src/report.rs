//! Plans, probes and pulls as plain data.
//!
//! These types are the JSON of `resolve --json`, `history --json`, `status --json` and of the page.
//! Fields are added, not renamed; times are microseconds unless the name says otherwise. No field
//! ever holds a credential.

use std::time::{Duration, SystemTime};

use policy::rules::Origin;
use policy::{Candidate, Plan, Role, Verdict};
use serde::{Deserialize, Serialize};

/// What kind of place an image may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The offline registry (`address`).
    Offline,
    /// An entry of `registries`.
    Registry,
    /// The target of a redirect.
    Redirect,
    /// Where the image's own name points.
    Origin,
}

impl Place {
    /// As in the log: `source=offline`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Registry => "registry",
            Self::Redirect => "redirect",
            Self::Origin => "origin",
        }
    }
}

impl From<Role> for Place {
    fn from(role: Role) -> Self {
        match role {
            Role::Registry(Origin::Offline) => Self::Offline,
            Role::Registry(Origin::Listed(_)) => Self::Registry,
            Role::Redirect(_) => Self::Redirect,
        }
    }
}

/// What a probe said; [`Verdict`] as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeResult {
    /// The registry has the manifest.
    Found,
    /// It does not (404).
    NotFound,
    /// It wants other credentials.
    Unauthorized,
    /// It asked to be left alone for a while (429).
    RateLimited,
    /// It gave no usable answer.
    Unavailable,
    /// It said that it has the image, but a pull from there failed a short while ago.
    PullFailed,
}

impl ProbeResult {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::Found,
        Self::NotFound,
        Self::Unauthorized,
        Self::RateLimited,
        Self::Unavailable,
        Self::PullFailed,
    ];

    /// `not_found`: as in JSON and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::NotFound => "not_found",
            Self::Unauthorized => "unauthorized",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::PullFailed => "pull_failed",
        }
    }
}

impl From<Verdict> for ProbeResult {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Found => Self::Found,
            Verdict::NotFound => Self::NotFound,
            Verdict::Unauthorized => Self::Unauthorized,
            Verdict::RateLimited => Self::RateLimited,
            Verdict::Unavailable => Self::Unavailable,
            Verdict::PullFailed => Self::PullFailed,
        }
    }
}

/// How current a probe's result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Freshness {
    /// The registry was asked for this decision.
    Probed,
    /// It was asked a while ago, and the answer still holds.
    Remembered,
    /// It was not asked: it is put aside for a while.
    PutAside,
}

/// What is known of one candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// What it means.
    pub result: ProbeResult,
    /// One line for people: `404`, `connection refused`.
    pub detail: String,
    /// The manifest's digest, where the registry named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How long asking took; 0 where nobody was asked.
    pub elapsed_us: u64,
    /// How current it is.
    pub freshness: Freshness,
}

/// One place of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateReport {
    /// What the runtime would be asked to pull.
    pub image: String,
    /// The registry's address.
    pub registry: String,
    /// What kind of place it is.
    pub place: Place,
    /// Priority; none for a redirect's target that comes after the registries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// Why it is tried at this place.
    pub reason: String,
    /// Where the credentials for it stand; never what they are.
    pub credentials: String,
    /// What it said; none where nobody waited for it because a better one had won.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeReport>,
}

impl CandidateReport {
    /// A candidate before it was asked.
    pub fn new(candidate: &Candidate) -> Self {
        Self {
            image: candidate.image.clone(),
            registry: candidate.endpoint.to_string(),
            place: candidate.role.into(),
            priority: candidate.priority.map(policy::Priority::get),
            reason: candidate.reason.clone(),
            credentials: candidate.credentials_shown(),
            probe: None,
        }
    }
}

/// All candidates of a plan, best first, before any was asked.
pub fn candidates(plan: &Plan) -> Vec<CandidateReport> {
    plan.candidates.iter().map(CandidateReport::new).collect()
}

/// One try to pull.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullReport {
    /// What the runtime was asked to pull.
    pub image: String,
    /// The registry's address; `origin` for the name as it was written.
    pub registry: String,
    /// What kind of place it is.
    pub place: Place,
    /// When it began, counted from the decision's beginning.
    pub started_us: u64,
    /// How long it took; none while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_us: Option<u64>,
    /// Why it failed, in one line; none where it succeeded or goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How a decision ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// It goes on.
    Running,
    /// The image was pulled.
    Pulled {
        /// As what.
        image: String,
        /// From which registry; `origin` for the name as it was written.
        registry: String,
        /// What kind of place that is.
        place: Place,
    },
    /// Nothing worked.
    Failed {
        /// The gRPC code that the caller got: `NOT_FOUND`.
        code: String,
        /// The message's first line.
        message: String,
    },
    /// The caller went away before the end.
    Cancelled,
}

/// One pull that the shim was asked for: who was asked, who won, what was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Counted from 1 since the start of the process.
    pub id: u64,
    /// When it began, RFC 3339 in UTC with milliseconds.
    pub at: String,
    /// The image, as it was asked for.
    pub image: String,
    /// Who may have it, best first.
    pub candidates: Vec<CandidateReport>,
    /// How long it took to decide; none while registries are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_us: Option<u64>,
    /// Whether no registry was asked for it.
    pub from_memory: bool,
    /// What was tried, in order.
    pub pulls: Vec<PullReport>,
    /// How it ended.
    pub outcome: Outcome,
    /// How long all of it took; none while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_us: Option<u64>,
}

/// The redirect that applies to an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedirectReport {
    /// Its number in `imageRedirMapping`, counted from 1.
    pub rule: usize,
    /// Its prefix.
    pub src: String,
    /// What replaces the prefix.
    pub to: String,
    /// What the image becomes.
    pub image: String,
}

/// Where the image's own name points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginReport {
    /// The name that would be pulled: as it was written.
    pub image: String,
    /// Whether it may be pulled at all (`fallbackToOrigin`).
    pub allowed: bool,
    /// What it said; none where it was not asked, because something better has the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeReport>,
}

/// Whose knowledge an explanation is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Knowledge {
    /// The running shim's: its config, its memory, what it has put aside.
    Daemon,
    /// The config file's; nothing was known before.
    ConfigFile,
}

/// What would happen to an image, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The image, as it was asked for.
    pub image: String,
    /// The name that all its spellings share; none for what passes untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canonical: Option<String>,
    /// Why no rule applies to it at all: it is an image ID, or no valid name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untouched: Option<String>,
    /// The redirect that applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<RedirectReport>,
    /// Who may have it, best first.
    pub candidates: Vec<CandidateReport>,
    /// Registries of the config that are not asked for it, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// Where its own name points; none for what passes untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginReport>,
    /// What would be pulled, in this order until one succeeds.
    pub order: Vec<Choice>,
    /// Whether somebody has it. None without probes (`--offline`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<bool>,
    /// How long it took to find out.
    pub elapsed_us: u64,
    /// Whose knowledge this is.
    pub knowledge: Knowledge,
}

/// A registry of the config that is not asked for an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its address.
    pub registry: String,
    /// Why it is not asked.
    pub why: String,
}

/// One name in the order of pulls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// What the runtime would be asked to pull.
    pub image: String,
    /// The registry's address; `origin` for the name as it was written.
    pub registry: String,
    /// What kind of place it is.
    pub place: Place,
}

/// State of the running shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The shim's version.
    pub version: String,
    /// When it started, RFC 3339 in UTC. Names this run: another start is another time.
    pub started_at: String,
    /// Seconds since then.
    pub uptime_seconds: u64,
    /// The socket it listens on.
    pub socket: String,
    /// Where metrics and the page are; none where nothing listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_address: Option<String>,
    /// Config.
    pub config: ConfigStatus,
    /// Container runtime.
    pub runtime: RuntimeStatus,
    /// Registries and redirect targets of the config, in the order in which they are asked.
    pub registries: Vec<RegistryStatus>,
    /// Caches.
    pub caches: CacheStatus,
    /// Pulls under way, oldest first.
    pub running: Vec<Decision>,
    /// The last decisions, newest first.
    pub decisions: Vec<Decision>,
    /// Decisions since the start, those under way included.
    pub decisions_total: u64,
}

/// State of the config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The file.
    pub file: String,
    /// Counted from 1 since the start: how many configs have been in force.
    pub generation: u64,
    /// When the one in force was taken, RFC 3339 in UTC.
    pub loaded_at: String,
    /// Where each part comes from: `file`, `ConfigMap` or `default`.
    pub parts: Vec<ConfigPart>,
    /// What is wrong with the newest config, where it is not the one in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ConfigProblem>,
}

/// One field of the config and where its value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigPart {
    /// The field: `registries`.
    pub field: String,
    /// `file`, `ConfigMap` or `default`.
    pub origin: String,
}

/// A config that could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigProblem {
    /// When it was seen, RFC 3339 in UTC.
    pub at: String,
    /// What is wrong and where; several lines where there are several mistakes.
    pub message: String,
}

/// State of the container runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeStatus {
    /// Its socket.
    pub socket: String,
    /// Whether it answers.
    pub reachable: bool,
    /// `containerd 1.7.24`; what went wrong where it doesn't answer.
    pub detail: String,
}

/// Whether a registry is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryState {
    /// It has not been asked yet.
    Unknown,
    /// It answers.
    Ok,
    /// It is put aside for a while, because it failed to answer.
    PutAside,
}

/// State of one registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryStatus {
    /// Its address.
    pub address: String,
    /// What kind of place it is.
    pub place: Place,
    /// Priority; none for a redirect's target that comes after the registries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// Where its credentials stand; never what they are.
    pub credentials: String,
    /// Why it has none although it should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Whether it is asked.
    pub state: RegistryState,
    /// Milliseconds until it is tried again, where it is put aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_in_ms: Option<u64>,
    /// Failures in a row.
    pub failures: u32,
    /// What it said last.
    pub detail: String,
    /// How long its last answer took.
    pub latency_us: u64,
    /// Times it was asked.
    pub probes: u64,
    /// Times it had the image.
    pub hits: u64,
    /// Images pulled from there.
    pub pulls: u64,
}

/// Counters of the caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Resolutions that asked nobody.
    pub image_hits: u64,
    /// Resolutions that asked somebody.
    pub image_misses: u64,
    /// Images forgotten because the memory was full.
    pub image_evictions: u64,
    /// Answers dropped because a pull showed them wrong.
    pub invalidations: u64,
    /// Probes that knew how to talk to the registry already.
    pub domain_hits: u64,
    /// Probes that had to find out.
    pub domain_misses: u64,
    /// Registries forgotten because the memory was full.
    pub domain_evictions: u64,
}

/// Microseconds, as reports have them.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC with milliseconds, as reports have it.
pub fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_ones_of_json() {
        for result in ProbeResult::ALL {
            let json = serde_json::to_string(&result).unwrap();
            assert_eq!(json, format!("\"{}\"", result.name()));
        }
        for place in [
            Place::Offline,
            Place::Registry,
            Place::Redirect,
            Place::Origin,
        ] {
            let json = serde_json::to_string(&place).unwrap();
            assert_eq!(json, format!("\"{}\"", place.name()));
        }
    }

    #[test]
    fn a_candidate_shows_where_its_credentials_stand_and_not_what_they_are() {
        let config =
            "registries: [{address: 'http://a.io', auth: 'hugo:hunter2'}, {address: b.corp}]";
        let (settings, _) = policy::config::Settings::read(config, &|_| None);
        let reference = policy::Reference::parse("b.corp/team/app:1").unwrap();
        let plan = Plan::new(&settings.rules, &reference);
        let shown: Vec<_> = candidates(&plan);
        assert_eq!(shown[0].credentials, "auth in the config");
        assert_eq!(shown[1].credentials, "the pod's own");
        let json = serde_json::to_string(&shown).unwrap();
        assert!(
            !json.contains("hugo") && !json.contains("hunter2"),
            "{json}"
        );
    }
}
