//! One pull: who was asked, what was tried, how it ended.

use serde::{Deserialize, Serialize};

use super::candidate::CandidateReport;
use super::place::Place;

/// One try to pull.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullReport {
    /// What the runtime was asked to pull.
    pub image: String,
    /// The registry's address; `origin` for the name as it was written.
    pub registry: String,
    /// What kind of place it is.
    pub place: Place,
    /// When the runtime was told to pull, in microseconds from the decision's beginning.
    pub started_us: u64,
    /// Microseconds from then to the runtime's answer; none while it goes on.
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
    /// Microseconds from the beginning to the first decision; none while registries are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_us: Option<u64>,
    /// Whether no registry was asked for it.
    pub from_memory: bool,
    /// What was tried, in order.
    pub pulls: Vec<PullReport>,
    /// How it ended.
    pub outcome: Outcome,
    /// Microseconds from the beginning to the caller's answer; none while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_us: Option<u64>,
}
