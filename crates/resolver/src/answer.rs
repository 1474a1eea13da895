//! What is known about one candidate.

use std::time::Duration;

use policy::Verdict;
use registry::{Cause, Outcome, Probe};
use telemetry::report::{Freshness, ProbeReport, micros};

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
    /// How current it is.
    pub freshness: Freshness,
    /// The registry itself can't be asked, or must not be: its circuit is open.
    pub circuit_open: bool,
}

impl Answer {
    /// An answer without a digest for which nobody was asked.
    pub(crate) fn unasked(
        verdict: Verdict,
        detail: impl Into<String>,
        freshness: Freshness,
    ) -> Self {
        Self {
            verdict,
            detail: detail.into(),
            digest: None,
            elapsed: Duration::ZERO,
            freshness,
            circuit_open: freshness == Freshness::CircuitOpen,
        }
    }

    /// What a probe has found. `circuit_open` says that it has shown the registry itself to fail.
    pub(crate) fn probed(probe: Probe, circuit_open: bool) -> Self {
        let verdict = verdict(&probe.outcome);
        let digest = match probe.outcome {
            Outcome::Found { digest } => digest,
            _ => None,
        };
        Self {
            // Silence of the whole registry says nothing about the image.
            verdict: if circuit_open && verdict == Verdict::ImageFailed {
                Verdict::Unavailable
            } else {
                verdict
            },
            detail: probe.detail,
            digest,
            elapsed: probe.elapsed,
            freshness: Freshness::Probed,
            circuit_open,
        }
    }

    /// The answer, for people.
    pub fn report(&self) -> ProbeReport {
        ProbeReport {
            result: self.verdict,
            detail: self.detail.clone(),
            digest: self.digest.clone(),
            elapsed_us: micros(self.elapsed),
            freshness: self.freshness,
        }
    }
}

/// What a probe's outcome means for the decision.
fn verdict(outcome: &Outcome) -> Verdict {
    match outcome {
        Outcome::Found { .. } => Verdict::Found,
        Outcome::NotFound => Verdict::NotFound,
        Outcome::Unauthorized => Verdict::Unauthorized,
        Outcome::RateLimited { .. } => Verdict::RateLimited,
        // Nobody was asked, or had his time to answer, so nothing failed.
        Outcome::ImageFailed {
            cause: Cause::Queue | Cause::Late,
            ..
        } => Verdict::Unavailable,
        Outcome::ImageFailed { .. } => Verdict::ImageFailed,
        Outcome::Unavailable { .. } => Verdict::Unavailable,
    }
}
