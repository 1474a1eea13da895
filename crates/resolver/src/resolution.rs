//! What a resolution has learnt: one answer per candidate, and what follows from them.

use std::sync::Arc;
use std::time::Duration;

use policy::{Plan, Verdict};
use telemetry::metrics::Resolved;
use telemetry::report::{CandidateReport, Freshness, candidates};

use crate::answer::Answer;

/// A plan after its probes.
#[derive(Clone, Debug)]
pub struct Resolution {
    /// The plan.
    pub plan: Arc<Plan>,
    /// One for each candidate of the plan; `None` where asking was cut short because a better
    /// candidate had won.
    pub answers: Vec<Option<Answer>>,
    /// Time from the request to the decision.
    pub elapsed: Duration,
}

impl Resolution {
    /// The verdicts, for [`policy::PullOrder`].
    pub fn verdicts(&self) -> Vec<Option<Verdict>> {
        self.answers
            .iter()
            .map(|answer| answer.as_ref().map(|answer| answer.verdict))
            .collect()
    }

    /// For each candidate, whether its registry's circuit is open; for [`policy::PullOrder`].
    pub fn open_circuits(&self) -> Vec<bool> {
        self.answers
            .iter()
            .map(|answer| answer.as_ref().is_some_and(|answer| answer.circuit_open))
            .collect()
    }

    /// The best candidate that has the image.
    pub fn chosen(&self) -> Option<usize> {
        self.verdicts()
            .iter()
            .position(|verdict| *verdict == Some(Verdict::Found))
    }

    /// Whether no registry was asked for it.
    pub fn from_memory(&self) -> bool {
        self.answers
            .iter()
            .flatten()
            .all(|answer| answer.freshness != Freshness::Probed)
    }

    /// Whether every candidate was asked and said that it does not have the image.
    pub fn absent_everywhere(&self) -> bool {
        self.answers.iter().all(|answer| {
            answer
                .as_ref()
                .is_some_and(|answer| answer.verdict == Verdict::NotFound)
        })
    }

    /// How it ended, for counters.
    pub fn resolved(&self) -> Resolved {
        if self.chosen().is_some() {
            Resolved::Found
        } else if self.absent_everywhere() {
            Resolved::Absent
        } else {
            Resolved::Unanswered
        }
    }

    /// All candidates and what they said, for people.
    pub fn report(&self) -> Vec<CandidateReport> {
        let mut reports = candidates(&self.plan);
        for (report, answer) in reports.iter_mut().zip(&self.answers) {
            report.probe = answer.as_ref().map(Answer::report);
        }
        reports
    }
}
