//! How far one resolution asks.

use policy::Verdict;
use policy::order::is_settled;
use telemetry::report::Freshness;

use crate::answer::Answer;

/// How far to ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Depth {
    /// Until the best source is certain.
    Best,
    /// Until the best source is certain among all but these candidates of the plan, from which pulls have
    /// failed a moment ago. They are not asked.
    BestBut(Vec<usize>),
    /// Until everybody has answered: for people.
    All,
}

impl Depth {
    /// The answer for a candidate that is not to be asked.
    pub(crate) fn ruled_out(&self, at: usize) -> Option<Answer> {
        match self {
            Self::BestBut(failed) if failed.contains(&at) => Some(Answer::unasked(
                Verdict::PullFailed,
                "the pull failed",
                Freshness::Remembered,
            )),
            _ => None,
        }
    }

    /// Whether these answers decide.
    pub(crate) fn is_reached(&self, answers: &[Option<Answer>]) -> bool {
        match self {
            Self::All => answers.iter().all(Option::is_some),
            Self::Best | Self::BestBut(_) => {
                let verdicts: Vec<_> = answers
                    .iter()
                    .map(|answer| answer.as_ref().map(|answer| answer.verdict))
                    .collect();
                is_settled(&verdicts)
            }
        }
    }
}
