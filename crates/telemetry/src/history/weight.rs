//! How much memory a decision takes.

use std::mem::size_of;

use crate::report::{CandidateReport, Decision, Outcome, ProbeReport, PullReport};

/// Bytes that a decision takes, near enough: itself, and its texts.
pub(super) fn weight(decision: &Decision) -> usize {
    let candidates: usize = decision.candidates.iter().map(candidate).sum();
    let pulls: usize = decision.pulls.iter().map(pull).sum();
    let texts = decision.at.len() + decision.image.len() + outcome(&decision.outcome);
    size_of::<Decision>() + texts + candidates + pulls
}

fn candidate(candidate: &CandidateReport) -> usize {
    let texts = candidate.image.len()
        + candidate.registry.len()
        + candidate.reason.len()
        + candidate.credentials.len();
    size_of::<CandidateReport>() + texts + candidate.probe.as_ref().map_or(0, probe)
}

fn probe(probe: &ProbeReport) -> usize {
    probe.detail.len() + probe.digest.as_ref().map_or(0, String::len)
}

fn pull(pull: &PullReport) -> usize {
    let error = pull.error.as_ref().map_or(0, String::len);
    size_of::<PullReport>() + pull.image.len() + pull.registry.len() + error
}

fn outcome(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Pulled {
            image, registry, ..
        } => image.len() + registry.len(),
        Outcome::Failed { code, message } => code.len() + message.len(),
        Outcome::Running | Outcome::Cancelled => 0,
    }
}
