//! Plans, probes and pulls as plain data.
//!
//! These types are the JSON of `resolve --json`, `history --json`, `status --json` and of the page.
//! Fields are added, not renamed; times are microseconds unless the name says otherwise. No field
//! ever holds a credential.

mod explanation;
mod status;

use std::time::{Duration, SystemTime};

use policy::rules::Origin;
use policy::{Candidate, Plan, Role, Verdict};
use serde::{Deserialize, Serialize};

pub use explanation::{Choice, Explanation, Knowledge, LeftOut, OriginReport, RedirectReport};
pub use status::{
    CacheStatus, ConfigPart, ConfigProblem, ConfigStatus, RegistryState, RegistryStatus,
    RuntimeStatus, Status,
};

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
            Role::Registry(Origin::Listed(_) | Origin::NodeCache) => Self::Registry,
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
