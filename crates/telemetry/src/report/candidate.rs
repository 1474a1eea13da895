//! One place of a plan, and what it said.

use policy::{Candidate, Plan, Verdict};
use serde::{Deserialize, Serialize};

use super::place::Place;

/// How current a probe's result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Freshness {
    /// The registry was asked for this decision.
    Probed,
    /// It was asked a while ago, and the answer still holds.
    Remembered,
    /// It was not asked: its circuit is open.
    CircuitOpen,
}

/// What is known of one candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// What it means for the image.
    pub result: Verdict,
    /// One line for people: `404`, `connection refused`.
    pub detail: String,
    /// The manifest's digest, where the registry named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Microseconds from the moment it was to be asked, waiting for a free slot included, to its answer or to
    /// the deadline; 0 where nobody was asked.
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
            place: candidate.kind.into(),
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
