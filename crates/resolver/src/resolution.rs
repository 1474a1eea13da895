//! What a resolution has learnt: one answer per candidate, and what follows from them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use policy::{Plan, Verdict};

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The registry was asked just now.
    Probed,
    /// It was asked a while ago, and the answer still holds.
    Remembered,
    /// It was not asked: it is put aside for a while.
    PutAside,
}

/// What is known about one candidate.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What it means for the decision.
    pub verdict: Verdict,
    /// One line for people: `404`, `connection refused`. Holds no secret.
    pub detail: String,
    /// Digest of the manifest, where the registry named it.
    pub digest: Option<String>,
    /// How long asking took; zero where nobody was asked.
    pub elapsed: Duration,
    /// Where it came from.
    pub source: Source,
}

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
            .all(|answer| answer.source != Source::Probed)
    }

    /// Whether every candidate was asked and said that it does not have the image.
    pub fn absent_everywhere(&self) -> bool {
        self.answers.iter().all(|answer| {
            answer
                .as_ref()
                .is_some_and(|answer| answer.verdict == Verdict::NotFound)
        })
    }

    /// Who said what, best candidate first, in one line: `sealos.hub:5000: 404; harbor.corp/proxy:
    /// connection refused`.
    pub fn trail(&self) -> impl fmt::Display + '_ {
        Trail(self)
    }
}

struct Trail<'a>(&'a Resolution);

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (candidate, answer)) in self
            .0
            .plan
            .candidates
            .iter()
            .zip(&self.0.answers)
            .enumerate()
        {
            if at > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{}: ", candidate.endpoint)?;
            match answer {
                Some(answer) => f.write_str(&answer.detail)?,
                None => f.write_str("not waited for")?,
            }
            if let Some(note) = &candidate.note {
                write!(f, " ({note})")?;
            }
        }
        Ok(())
    }
}
