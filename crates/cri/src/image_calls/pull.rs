//! PullImage: candidates in order until one succeeds; the origin is the last.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use policy::config::Settings;
use policy::text::one_line;
use policy::{
    Candidate, CandidateKind, CredentialChoice, Credentials, Plan, PullOrder, Reference, Step,
    Verdict,
};
use resolver::{Depth, Resolution};

use super::attempt::{AttemptError, AttemptResult, Attempts, reply};
use super::early::{self, Trace};
use super::names;
use super::record::Record;
use super::{Shared, Untouched, pass_on};
use crate::grpc::{Code, Status};
use crate::upstream::UnaryReply;
use crate::wire::{self, AuthEdit};

/// How much of a status message is shown in one line, in characters.
const SHOWN: usize = 300;

/// What containerd answers to every image call between opening its socket and being ready for them. It says
/// nothing about any registry.
const NOT_READY: &str = "server is not initialized yet";

/// Answers one PullImage.
pub(super) async fn pull(
    shared: &Shared,
    settings: &Settings,
    attempts: &Attempts,
    reference: &Reference,
) -> UnaryReply {
    let plan = Arc::new(Plan::new(&settings.rules, reference));
    let caller = match wire::request_auth(attempts.message()) {
        Ok(auth) => auth.and_then(|auth| auth.basic()),
        // Whoever writes a pull secret writes what is in there. It must not take the image from the rules.
        Err(error) => {
            match wire::replace_image_and_auth(attempts.message(), "", AuthEdit::Remove) {
                Ok(_editable) => {
                    tracing::debug!(
                        "the credentials of a PullImage of {reference} are not known to the shim: {error}"
                    );
                    None
                }
                Err(error) => {
                    let why = Untouched::Unread(error.to_string());
                    tracing::warn!("no rule applies to a PullImage of {reference}: {why}");
                    return pass_on(settings, attempts, &why).await;
                }
            }
        }
    };
    let record = Record::begin(shared, &plan);
    let mut pull = Pull {
        shared,
        settings,
        attempts,
        caller,
        plan,
        record,
    };
    let reply = pull.run().await;
    pull.record.finish(reply.status());
    reply
}

/// Asks the runtime to pull a candidate, with the credentials that the plan gives it.
async fn ask_runtime(attempts: &Attempts, plan: &Plan, candidate: &Candidate) -> AttemptResult {
    if plan.is_original(candidate) {
        return attempts.unchanged().await;
    }
    let server_address = candidate.endpoint.server_address();
    let auth = match &candidate.credentials {
        CredentialChoice::Configured(credentials) => AuthEdit::Replace {
            credentials,
            server_address: &server_address,
        },
        CredentialChoice::Callers => AuthEdit::Keep,
        CredentialChoice::Anonymous => AuthEdit::Remove,
    };
    attempts.with_image_and_auth(&candidate.image, auth).await
}

/// Whether the runtime has refused the call as such, whatever it is about.
fn is_not_ready(status: &Status) -> bool {
    status.message.contains(NOT_READY)
}

struct Pull<'a> {
    shared: &'a Shared,
    settings: &'a Settings,
    attempts: &'a Attempts,
    /// What kubelet sent, for the host that the name says.
    caller: Option<Credentials>,
    plan: Arc<Plan>,
    record: Record<'a>,
}

/// What has happened so far.
struct Progress {
    resolution: Arc<Resolution>,
    verdicts: Vec<Option<Verdict>>,
    /// Pulls that failed, in their order: what was pulled, and what the runtime said.
    failed: Vec<(String, Status)>,
    /// The answer that the caller gets if nothing succeeds: the origin's, else the last one's.
    last: Option<UnaryReply>,
    /// `last` is the origin's: the redirect's target, or without one the name as written.
    origin_failed: bool,
    /// Nobody was known to have the image; what was pulled at all was a last resort.
    nothing_found: bool,
    /// The chosen candidate, and what its pull has come to already.
    early: Option<(usize, AttemptResult)>,
}

impl Progress {
    /// The message that the caller gets anyway; one message need not have it twice.
    fn reported(&self) -> Option<&str> {
        self.last
            .as_ref()
            .filter(|_| !self.nothing_found)
            .map(|last| last.status().message.as_str())
    }
}

/// What a failed pull is called in the trail.
fn failure(status: &Status, reported: Option<&str>) -> String {
    if reported == Some(status.message.as_str()) {
        return "pull failed, as said above".to_owned();
    }
    format!("pull failed: {}", one_line(&status.message, SHOWN))
}

impl Pull<'_> {
    async fn run(&mut self) -> UnaryReply {
        let (resolution, early) = match self.resolve_and_begin().await {
            Ok(begun) => begun,
            Err(error) => return reply(Err(error)),
        };
        let mut progress = Progress {
            verdicts: resolution.verdicts(),
            resolution,
            failed: Vec::new(),
            last: None,
            origin_failed: false,
            nothing_found: true,
            early,
        };
        let mut order = PullOrder::new(&self.plan);
        loop {
            let step = order.next(
                &self.plan,
                &progress.verdicts,
                &progress.resolution.open_circuits(),
            );
            let outcome = match step {
                Step::Candidate(at) => self.candidate(at, &mut progress).await,
                Step::Original => self.original(&mut progress).await,
                Step::ProbeRest => self.probe_rest(&order, &mut progress).await,
                Step::Exhausted => return self.exhausted(&progress),
            };
            match outcome {
                Ok(Some(reply)) => return reply,
                Ok(None) => {}
                // The runtime is gone or time is up: trying on would try the same.
                Err(error) => {
                    let mut reply = reply(Err(error));
                    if !progress.failed.is_empty() {
                        reply.append_line(&self.trail(&progress));
                    }
                    return reply;
                }
            }
        }
    }

    /// Finds out who has the image. Where the repository's last image came from is asked to be pulled from at the
    /// same time: when that place is the one chosen, its answer comes along, and asking has cost no time.
    /// Otherwise that pull is called off, or its image loses the name.
    async fn resolve_and_begin(
        &mut self,
    ) -> Result<(Arc<Resolution>, Option<(usize, AttemptResult)>), AttemptError> {
        let plan = Arc::clone(&self.plan);
        let Some((at, candidate)) = self.begins_with(&plan) else {
            let resolution = self.resolve(Depth::Best).await?;
            self.record.resolved(&resolution);
            return Ok((resolution, None));
        };
        let began = Instant::now();
        let mut answer = None;
        let trace = Trace::of(self.attempts.upstream(), candidate);
        let mut pulling = Box::pin(async {
            trace.look().await;
            ask_runtime(self.attempts, &plan, candidate).await
        });
        let resolution = {
            let mut resolving = pin!(self.resolve(Depth::Best));
            loop {
                tokio::select! {
                    // What is remembered is there at the first look: then nothing has been begun.
                    biased;
                    resolution = &mut resolving => break resolution?,
                    pulled = &mut pulling, if answer.is_none() => answer = Some(pulled),
                }
            }
        };
        self.record.resolved(&resolution);
        if resolution.chosen() != Some(at) {
            self.record.called_off(candidate);
            drop(pulling);
            trace.remove().await;
            return Ok((resolution, None));
        }
        self.record.pulling(candidate, began);
        let answer = match answer {
            Some(answer) => answer,
            None => pulling.await,
        };
        Ok((resolution, Some((at, answer))))
    }

    /// The candidate whose pull may begin before anybody has said that it has the image. Only where the runtime
    /// is known to end a pull that is called off, as containerd does: CRI-O would go on.
    fn begins_with<'p>(&self, plan: &'p Arc<Plan>) -> Option<(usize, &'p Candidate)> {
        if !self.shared.names_api.is_present() {
            return None;
        }
        let at = self.shared.last_places.candidate(plan)?;
        let known = self.shared.resolver.known(plan, self.caller.as_ref());
        let candidate = plan.candidates.get(at)?;
        early::may_begin(at, &known).then_some((at, candidate))
    }

    async fn resolve(&self, depth: Depth) -> Result<Arc<Resolution>, AttemptError> {
        let resolving = self
            .shared
            .resolver
            .resolve(&self.plan, self.caller.as_ref(), depth);
        tokio::time::timeout_at(self.attempts.deadline(), resolving)
            .await
            .map_err(|_elapsed| self.attempts.timed_out())
    }

    /// Asks those whose probes were cut short, until the best of them that has the image is certain: a
    /// silent one below it holds nothing up. What pulls have shown since is kept.
    async fn probe_rest(
        &mut self,
        order: &PullOrder,
        progress: &mut Progress,
    ) -> Result<Option<UnaryReply>, AttemptError> {
        let verdicts = progress.verdicts.iter().enumerate();
        let failed = verdicts.filter(|(_, verdict)| **verdict == Some(Verdict::PullFailed));
        let failed: Vec<usize> = failed.map(|(at, _)| at).collect();
        progress.resolution = self.resolve(Depth::BestBut(failed)).await?;
        self.record.asked_on(&progress.resolution);
        order.learn(&mut progress.verdicts, &progress.resolution.verdicts());
        // What is remembered is there without waiting, and other calls share this thread.
        tokio::task::yield_now().await;
        Ok(None)
    }

    async fn candidate(
        &mut self,
        at: usize,
        progress: &mut Progress,
    ) -> Result<Option<UnaryReply>, AttemptError> {
        let plan = Arc::clone(&self.plan);
        let Some(candidate) = plan.candidates.get(at) else {
            return Ok(None);
        };
        let is_original = self.plan.is_original(candidate);
        let verdict = progress.verdicts.get(at).copied().flatten();
        let has_it = matches!(verdict, Some(Verdict::Found | Verdict::PullFailed));
        if has_it || matches!(candidate.kind, CandidateKind::Redirect(_)) {
            progress.nothing_found = false;
        }
        let answer = match progress.early.take_if(|(early, _)| *early == at) {
            Some((_, answer)) => answer,
            None => {
                self.record.pulling(candidate, Instant::now());
                ask_runtime(self.attempts, &plan, candidate).await
            }
        };
        if matches!(answer, Err(AttemptError::TimedOut(_))) && self.attempts.bounded_by_config() {
            // It had all the time there is; the next pull of this image goes elsewhere first.
            self.shared.resolver.pull_failed(
                &self.plan,
                at,
                self.caller.as_ref(),
                "not done within `timeout`",
            );
        }
        self.record.pulled(&answer);
        let reply = answer?;
        if reply.status().is_ok() {
            self.shared.last_places.remember(&plan, Some(at));
            let alias = (!is_original).then_some(candidate.image.as_str());
            self.shared.remember(&self.plan.key, alias);
            if let Some(alias) = alias {
                names::after_pull(self.shared, self.settings, self.attempts, &plan, alias).await;
            }
            let trail = self.trail_of_success(progress);
            self.record
                .came_from(candidate, &progress.resolution, &trail);
            return Ok(Some(reply));
        }
        if is_not_ready(reply.status()) {
            return Ok(Some(reply));
        }
        let message = one_line(&reply.status().message, SHOWN);
        tracing::debug!(
            "pull failed: image={} action=PullImage tried={} code={} message={message:?}; trying the next source",
            self.plan.reference,
            candidate.image,
            reply.status().code.0,
        );
        self.shared
            .resolver
            .pull_failed(&self.plan, at, self.caller.as_ref(), &message);
        if let Some(verdict) = progress.verdicts.get_mut(at) {
            *verdict = Some(Verdict::PullFailed);
        }
        progress
            .failed
            .push((candidate.image.clone(), reply.status().clone()));
        let is_origin = is_original || matches!(candidate.kind, CandidateKind::Redirect(_));
        if is_origin || !progress.origin_failed {
            progress.last = Some(reply);
        }
        progress.origin_failed |= is_origin;
        Ok(None)
    }

    /// The name as written, with the caller's own credentials.
    async fn original(
        &mut self,
        progress: &mut Progress,
    ) -> Result<Option<UnaryReply>, AttemptError> {
        self.record.pulling_origin();
        let answer = self.attempts.unchanged().await;
        self.record.pulled(&answer);
        let reply = answer?;
        if reply.status().is_ok() {
            self.shared.last_places.remember(&self.plan, None);
            self.shared.remember(&self.plan.key, None);
            let trail = self.trail_of_success(progress);
            self.record.came_from_origin(&progress.resolution, &trail);
            return Ok(Some(reply));
        }
        if is_not_ready(reply.status()) {
            return Ok(Some(reply));
        }
        let name = self.plan.reference.as_written().to_owned();
        progress.failed.push((name, reply.status().clone()));
        progress.nothing_found = false;
        if !progress.origin_failed {
            progress.origin_failed = true;
            progress.last = Some(reply);
        }
        Ok(None)
    }

    /// Nothing has worked: the origin's status (the last one's where the origin was not tried), and
    /// one line that says what was tried.
    fn exhausted(&self, progress: &Progress) -> UnaryReply {
        let trail = self.trail(progress);
        // Without registries or redirects there is nothing to add to what the runtime says.
        let routed = !self.plan.candidates.is_empty();
        match progress.last.clone().filter(|_| !progress.nothing_found) {
            Some(mut reply) => {
                if routed {
                    reply.append_line(&trail);
                }
                reply
            }
            None => {
                let code = if progress.resolution.absent_everywhere() {
                    Code::NOT_FOUND
                } else {
                    Code::UNAVAILABLE
                };
                let message = format!(
                    "no configured registry has {}, and `fallbackToOrigin: false` forbids asking its origin\n{trail}",
                    self.plan.reference
                );
                UnaryReply::from_status(&Status::new(code, message))
            }
        }
    }

    /// Who was asked, what they said, and what became of the pulls, in one line.
    fn trail(&self, progress: &Progress) -> String {
        let mut parts = self.tried(progress, progress.reported());
        let origin = self.plan.reference.as_written();
        if let Some(why) = &self.plan.untouched {
            parts.push(why.clone());
        }
        if !self.plan.fallback_to_origin {
            parts.push(format!(
                "origin {origin}: not allowed (fallbackToOrigin: false)"
            ));
        }
        if parts.is_empty() {
            parts.push("no registry is configured for this image".to_owned());
        }
        format!("image-cri-shim tried: {}", parts.join("; "))
    }

    /// The same of a pull that succeeded, for the log.
    fn trail_of_success(&self, progress: &Progress) -> String {
        let parts = self.tried(progress, None);
        if parts.is_empty() {
            "no registry is configured for this image".to_owned()
        } else {
            format!("tried: {}", parts.join("; "))
        }
    }

    fn tried(&self, progress: &Progress, reported: Option<&str>) -> Vec<String> {
        let failed = |image: &str| progress.failed.iter().find(|(failed, _)| failed == image);
        let candidates = &self.plan.candidates;
        let answers = &progress.resolution.answers;
        let mut parts = Vec::with_capacity(candidates.len() + 1);
        for (candidate, answer) in candidates.iter().zip(answers) {
            let mut outcome = match (failed(&candidate.image), answer) {
                (Some((_, status)), _) => failure(status, reported),
                (None, Some(answer)) => answer.detail.clone(),
                (None, None) => "not asked to the end".to_owned(),
            };
            if let Some(note) = &candidate.note {
                outcome.push_str(&format!(" ({note})"));
            }
            parts.push(format!("{}: {outcome}", candidate.endpoint));
        }
        let origin = self.plan.reference.as_written();
        if let Some((_, status)) = failed(origin) {
            parts.push(format!("origin {origin}: {}", failure(status, reported)));
        }
        parts
    }
}
