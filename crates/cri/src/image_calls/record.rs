//! What a pull leaves behind: an entry of the history, counters, and its line in the log.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use policy::text::one_line;
use policy::{Candidate, Plan};
use resolver::Resolution;
use telemetry::history::Recording;
use telemetry::metrics::{ORIGIN, code_name};
use telemetry::report::{Outcome, Place, candidates};

use super::Shared;
use super::attempt::AttemptResult;
use crate::grpc::Status;

/// How much of an error is kept for people, in characters: what the runtime said, and who was tried.
const KEPT: usize = 1000;

/// Follows one pull. Dropped before its end, the caller went away.
pub(super) struct Record<'a> {
    shared: &'a Shared,
    plan: Arc<Plan>,
    recording: Recording,
    /// The try under way.
    trying: Option<Trying>,
    /// Whether a try has failed.
    failed: bool,
    /// Set when a try has succeeded.
    outcome: Option<Outcome>,
}

struct Trying {
    registry: String,
    place: Place,
    began: Instant,
}

impl<'a> Record<'a> {
    pub(super) fn begin(shared: &'a Shared, plan: &Arc<Plan>) -> Self {
        let history = shared.telemetry.history();
        Self {
            shared,
            recording: history.begin(plan.reference.as_written(), candidates(plan)),
            plan: Arc::clone(plan),
            trying: None,
            failed: false,
            outcome: None,
        }
    }

    /// It is known who has the image.
    pub(super) fn resolved(&self, resolution: &Resolution) {
        self.recording
            .resolved(resolution.report(), resolution.from_memory());
        let has_it = resolution
            .chosen()
            .and_then(|at| self.plan.candidates.get(at))
            .map(|candidate| candidate.endpoint.to_string());
        self.shared
            .telemetry
            .metrics()
            .resolution(resolution.resolved(), has_it.as_deref());
    }

    /// Those whose probes were cut short have been asked as well.
    pub(super) fn asked_on(&self, resolution: &Resolution) {
        self.recording.resolved(resolution.report(), false);
    }

    /// The runtime has been asked to pull a candidate, at `began`.
    pub(super) fn pulling(&mut self, candidate: &Candidate, began: Instant) {
        let registry = candidate.endpoint.to_string();
        self.try_place(&candidate.image, registry, candidate.kind.into(), began);
    }

    /// A pull of a candidate had begun, and another place turned out to have the image.
    pub(super) fn called_off(&self, candidate: &Candidate) {
        let (image, reference) = (&candidate.image, &self.plan.reference);
        tracing::debug!("the pull of {image} for {reference} was begun early and is called off");
        let metrics = self.shared.telemetry.metrics();
        metrics.pull_called_off(&candidate.endpoint.to_string(), candidate.kind.into());
    }

    /// The runtime is asked to pull the name as it was written.
    pub(super) fn pulling_origin(&mut self) {
        let plan = Arc::clone(&self.plan);
        let image = plan.reference.as_written();
        self.try_place(image, ORIGIN.to_owned(), Place::Origin, Instant::now());
    }

    fn try_place(&mut self, image: &str, registry: String, place: Place, began: Instant) {
        self.recording.pulling(image, &registry, place, began);
        self.trying = Some(Trying {
            registry,
            place,
            began,
        });
    }

    /// What came of it.
    pub(super) fn pulled(&mut self, answer: &AttemptResult) {
        let error = match answer {
            Ok(reply) if reply.status().is_ok() => None,
            Ok(reply) => Some(one_line(&reply.status().message, KEPT)),
            Err(error) => Some(one_line(&error.to_string(), KEPT)),
        };
        self.recording.pulled(error.as_deref());
        if let Some(trying) = self.trying.take() {
            let metrics = self.shared.telemetry.metrics();
            let elapsed = trying.began.elapsed();
            metrics.pull(&trying.registry, trying.place, error.is_none(), elapsed);
            if error.is_none() && self.failed {
                metrics.fallback(&trying.registry);
            }
        }
        self.failed |= error.is_some();
    }

    /// The image came from `candidate`. Writes its line in the log, whose wording people search for; `trail` is who was
    /// asked and what they answered.
    pub(super) fn came_from(
        &mut self,
        candidate: &Candidate,
        resolution: &Resolution,
        trail: &str,
    ) {
        let place = Place::from(candidate.kind);
        let priority = candidate
            .priority
            .map_or_else(|| "none".to_owned(), |priority| priority.get().to_string());
        let reference = &self.plan.reference;
        tracing::info!(
            "priority match: image={reference} action=PullImage matched_registry={} priority={priority} result={image} \
             | rewrite action=PullImage cache_hit={} source={} original={reference} result={image} replaced=true | {trail}",
            candidate.endpoint.domain(),
            resolution.from_memory(),
            place.name(),
            image = candidate.image,
        );
        self.outcome = Some(Outcome::Pulled {
            image: candidate.image.clone(),
            registry: candidate.endpoint.to_string(),
            place,
        });
    }

    /// The image came from where its own name points.
    pub(super) fn came_from_origin(&mut self, resolution: &Resolution, trail: &str) {
        let reference = &self.plan.reference;
        tracing::info!(
            "rewrite action=PullImage cache_hit={} source=origin original={reference} result={reference} replaced=false | {trail}",
            resolution.from_memory(),
        );
        self.outcome = Some(Outcome::Pulled {
            image: reference.as_written().to_owned(),
            registry: ORIGIN.to_owned(),
            place: Place::Origin,
        });
    }

    /// The caller gets `status`.
    pub(super) fn finish(self, status: &Status) {
        let reference = &self.plan.reference;
        let failing = &self.shared.failing;
        let outcome = match self.outcome {
            Some(outcome) => {
                if failing.ended(&self.plan.key) {
                    tracing::info!("{reference} can be pulled again");
                }
                outcome
            }
            None => {
                let code = code_name(status.code.0).to_owned();
                let message = one_line(&status.message, KEPT);
                if failing.begun(&self.plan.key) {
                    tracing::warn!(
                        "pull failed: image={reference} action=PullImage code={code} message={message:?}; said once until it succeeds"
                    );
                } else {
                    tracing::debug!(
                        "pull failed again: image={reference} action=PullImage code={code} message={message:?}"
                    );
                }
                // What was tried stands in the lines after the first; here it has fields of its own.
                let first = status.message.lines().next().unwrap_or_default();
                Outcome::Failed {
                    code,
                    message: one_line(first, KEPT),
                }
            }
        };
        self.recording.finish(outcome);
    }
}

/// Images whose last pull failed. A kubelet tries again every few minutes, and the log has said it.
#[derive(Debug, Default)]
pub(super) struct Failing(Mutex<HashSet<String>>);

impl Failing {
    /// Beyond this many, which is no ordinary day, everything is forgotten and said once more.
    const MOST: usize = 1000;

    /// True where the image's pulls begin to fail.
    fn begun(&self, key: &str) -> bool {
        let mut failing = self.0.lock();
        if failing.len() >= Self::MOST {
            failing.clear();
        }
        failing.insert(key.to_owned())
    }

    /// True where they had failed until now.
    fn ended(&self, key: &str) -> bool {
        let mut failing = self.0.lock();
        failing.remove(key)
    }
}
