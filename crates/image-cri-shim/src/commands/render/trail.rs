//! A decision in one line: who was asked, what was tried, who won.

use policy::text::one_line;
use telemetry::report::{
    CandidateReport, Decision, Freshness, Outcome, Place, PullReport, Verdict,
};

use super::cell::Cell;
use super::explanation::word;
use super::style;
use super::units;

/// The longest error of a runtime within a line.
const MAX_ERROR: usize = 160;

/// `http://sealos.hub:5000 not found (3 ms), https://harbor.corp found (12 ms)`.
pub(super) fn asked(decision: &Decision) -> String {
    let asked = decision.candidates.iter().filter_map(candidate);
    let mut text = asked.collect::<Vec<_>>().join(", ");
    if text.is_empty() && decision.candidates.is_empty() {
        text.push_str("nobody: no place of the config is for it");
    }
    text
}

fn candidate(candidate: &CandidateReport) -> Option<String> {
    let probe = candidate.probe.as_ref()?;
    let how = match probe.freshness {
        Freshness::Probed => units::micros(probe.elapsed_us),
        Freshness::Remembered => "remembered".to_owned(),
        Freshness::CircuitOpen => "circuit open".to_owned(),
    };
    let word = word(probe.result);
    Some(match probe.result {
        Verdict::Unavailable | Verdict::ImageFailed | Verdict::Unauthorized
            if probe.freshness == Freshness::Probed =>
        {
            let detail = one_line(&probe.detail, MAX_ERROR);
            format!("{} {word} ({how}: {detail})", candidate.registry)
        }
        _ => format!("{} {word} ({how})", candidate.registry),
    })
}

/// `https://harbor.corp failed after 1.2 s: no space`, for pulls that failed.
pub(super) fn failed(pull: &PullReport) -> Option<String> {
    let error = one_line(pull.error.as_deref()?, MAX_ERROR);
    let took = units::micros(pull.elapsed_us.unwrap_or(0));
    Some(format!("{} failed after {took}: {error}", place(pull)))
}

fn place(pull: &PullReport) -> &str {
    match pull.place {
        Place::Origin => "origin",
        Place::Offline | Place::Registry | Place::Redirect => &pull.registry,
    }
}

/// How it ended, or what it is doing.
pub(super) fn outcome(decision: &Decision) -> Cell {
    match &decision.outcome {
        Outcome::Running => {
            let text = match decision.pulls.last() {
                Some(pull) if pull.elapsed_us.is_none() => format!("pulling from {}", place(pull)),
                _ if decision.resolved_us.is_none() => "asking who has it".to_owned(),
                _ => "choosing the next place".to_owned(),
            };
            Cell::styled(text, style::PLAIN)
        }
        Outcome::Pulled {
            registry, place, ..
        } => {
            let color = match decision.pulls.len() {
                0 | 1 => style::GOOD,
                _ => style::WARN,
            };
            let from = match place {
                Place::Origin => "origin",
                Place::Offline | Place::Registry | Place::Redirect => registry,
            };
            Cell::styled(format!("from {from}"), color)
        }
        Outcome::Failed { code, message } => {
            let message = one_line(message, MAX_ERROR);
            Cell::styled(format!("failed, {code}: {message}"), style::BAD)
        }
        Outcome::Cancelled => Cell::styled("the caller gave up", style::WARN),
    }
}

/// All of it in one line, without how it ended.
pub(super) fn trail(decision: &Decision) -> String {
    let mut parts = Vec::new();
    let asked = asked(decision);
    if !asked.is_empty() {
        parts.push(asked);
    }
    parts.extend(decision.pulls.iter().filter_map(failed));
    parts.join("; ")
}
