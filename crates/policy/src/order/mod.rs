//! When probing is over, and what is pulled in which order. Pure, so that the commands that explain
//! and the daemon that acts share it.

use crate::Verdict;
use crate::plan::{CandidateKind, Plan};

/// Whether more probing can change which candidate comes first: it can't once the best positive
/// answer has no undecided candidate above it, or once everybody has answered.
pub fn is_settled(verdicts: &[Option<Verdict>]) -> bool {
    for verdict in verdicts {
        match verdict {
            Some(Verdict::Found) => return true,
            Some(_) => {}
            None => return false,
        }
    }
    true
}

/// What to do next for one pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Pull this candidate.
    Candidate(usize),
    /// Every candidate known to have the image has failed, and some have not been asked to the end:
    /// ask them, then come back.
    ProbeRest,
    /// Pull the original name, as the caller sent it.
    Original,
    /// Nothing is left.
    Exhausted,
}

/// The pull's progress: which candidates were tried.
#[derive(Clone, Debug)]
pub struct PullOrder {
    tried: Vec<bool>,
    original_tried: bool,
}

impl PullOrder {
    /// Nothing tried yet.
    pub fn new(plan: &Plan) -> Self {
        Self {
            tried: vec![false; plan.candidates.len()],
            original_tried: !plan.fallback_to_origin,
        }
    }

    /// The next step (rule 4): found candidates by priority; then those whose probe was cut short;
    /// then the redirect's target unless it said 404; then the original; last, candidates that never
    /// answered, by priority, those of `open_circuits` after the others; and after all of these the candidates that a
    /// pull has failed from a short while ago: what was wrong then may be mended. A step is handed out once.
    pub fn next(
        &mut self,
        plan: &Plan,
        verdicts: &[Option<Verdict>],
        open_circuits: &[bool],
    ) -> Step {
        let verdict = |at: usize| verdicts.get(at).copied().flatten();
        let untried = |order: &Self, wanted: &dyn Fn(usize) -> bool| {
            (0..plan.candidates.len())
                .find(|&at| !order.tried.get(at).copied().unwrap_or(true) && wanted(at))
        };
        if let Some(at) = untried(self, &|at| verdict(at) == Some(Verdict::Found)) {
            return self.take(plan, at);
        }
        if untried(self, &|at| verdict(at).is_none()).is_some() {
            return Step::ProbeRest;
        }
        let is_target = |at: usize| {
            plan.candidates
                .get(at)
                .is_some_and(|candidate| matches!(candidate.kind, CandidateKind::Redirect(_)))
        };
        let target_stands = |at: usize| {
            is_target(at) && !matches!(verdict(at), Some(Verdict::NotFound | Verdict::PullFailed))
        };
        if let Some(at) = untried(self, &target_stands) {
            return self.take(plan, at);
        }
        if !self.original_tried {
            self.original_tried = true;
            // The same name need not be pulled a second time because it is a candidate, too.
            for (tried, candidate) in self.tried.iter_mut().zip(&plan.candidates) {
                *tried |= plan.is_original(candidate);
            }
            return Step::Original;
        }
        let is_unanswered = |at: usize| verdict(at).is_some_and(Verdict::is_unanswered);
        let is_open = |at: usize| open_circuits.get(at).copied().unwrap_or(false);
        let has_failed = |at: usize| verdict(at) == Some(Verdict::PullFailed);
        let last = untried(self, &|at| is_unanswered(at) && !is_open(at))
            .or_else(|| untried(self, &is_unanswered))
            .or_else(|| untried(self, &|at| has_failed(at) && !is_open(at)))
            .or_else(|| untried(self, &has_failed));
        match last {
            Some(at) => self.take(plan, at),
            None => Step::Exhausted,
        }
    }

    /// Takes the answers of those who were asked for [`Step::ProbeRest`] into what is known of each candidate.
    ///
    /// A newer answer counts, because a registry may be back. But where a pull has failed, no answer changes that: it
    /// only repeats what was said before. After this, [`Self::next`] gives a candidate that has the image, or never
    /// wants the rest asked again.
    pub fn learn(&self, known: &mut [Option<Verdict>], answers: &[Option<Verdict>]) {
        for (known, answer) in known.iter_mut().zip(answers) {
            if *known != Some(Verdict::PullFailed) {
                *known = answer.or(*known);
            }
        }
        let mut candidates = self.tried.iter().zip(known.iter());
        let certain =
            candidates.position(|(tried, known)| !tried && *known == Some(Verdict::Found));
        // Whoever has no answer now, though nothing better was found, never will have one for this pull.
        for verdict in known.iter_mut().take(certain.unwrap_or(usize::MAX)) {
            verdict.get_or_insert(Verdict::Unavailable);
        }
    }

    fn take(&mut self, plan: &Plan, at: usize) -> Step {
        if let Some(tried) = self.tried.get_mut(at) {
            *tried = true;
        }
        // A candidate that *is* the original need not be pulled a second time as such.
        if plan
            .candidates
            .get(at)
            .is_some_and(|candidate| plan.is_original(candidate))
        {
            self.original_tried = true;
        }
        Step::Candidate(at)
    }
}

#[cfg(test)]
mod tests;
