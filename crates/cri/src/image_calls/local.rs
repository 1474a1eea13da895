//! ImageStatus, RemoveImage and CreateContainer: what a name stands for on this node. None touches the
//! network.
//!
//! A name is looked for as what it was last pulled as, then as it was written, then as every
//! candidate of its plan: an image that a registry served yesterday is present today, whether or
//! not that registry can be reached.

use policy::config::Settings;
use policy::{Plan, Reference};

use super::Shared;
use super::attempt::{AttemptResult, Attempts, reply};
use super::names;
use super::presence::Presence;
use crate::upstream::UnaryReply;

/// ImageStatus.
pub(super) async fn status(
    shared: &Shared,
    settings: &Settings,
    attempts: &Attempts,
    reference: &Reference,
) -> UnaryReply {
    let mut reply = reply(find(shared, settings, attempts, reference).await.answer);
    names::add_to(shared, settings, &mut reply);
    reply
}

/// RemoveImage.
pub(super) async fn remove(
    shared: &Shared,
    settings: &Settings,
    attempts: &Attempts,
    reference: &Reference,
) -> UnaryReply {
    let found = find_for(shared, settings, attempts, reference).await;
    if found.answer.is_err() {
        return reply(found.answer);
    }
    let answer = match &found.name {
        Some(name) => attempts.with_image(name).await,
        // As it was written; or absent, and then the answer is the runtime's own.
        None => attempts.unchanged().await,
    };
    if answer.as_ref().is_ok_and(|answer| answer.status().is_ok()) {
        shared.remember(&Plan::key_of(&settings.rules, reference), None);
        tracing::debug!(
            "rewrite action=RemoveImage cache_hit=true source=local original={reference} result={} replaced={}",
            found.name.as_deref().unwrap_or(reference.as_written()),
            found.name.is_some()
        );
    }
    reply(answer)
}

/// CreateContainer by an image's name: people's, since kubelet passes the ID.
pub(super) async fn create(
    shared: &Shared,
    settings: &Settings,
    attempts: &Attempts,
    reference: &Reference,
) -> UnaryReply {
    let found = find_for(shared, settings, attempts, reference).await;
    let name = found
        .name
        .filter(|_| Presence::of(&found.answer) == Presence::Present);
    reply(match name {
        Some(name) => {
            tracing::debug!(
                "rewrite action=CreateContainer cache_hit=true source=local original={reference} result={name} replaced=true"
            );
            attempts.with_image(&name).await
        }
        // As it was written; or absent, and then the answer is the runtime's own.
        None => attempts.unchanged().await,
    })
}

/// What the runtime says about a name.
struct Found {
    /// The spelling that `answer` is about; `None` for the name as it was written.
    name: Option<String>,
    /// The runtime's answer: that the image is present; else "not present", in whatever spelling it could
    /// say so; else why it can't say.
    answer: AttemptResult,
}

impl Found {
    fn unknown(answer: AttemptResult) -> Self {
        Self { name: None, answer }
    }
}

/// Finds the image that another call than ImageStatus is about.
async fn find_for(
    shared: &Shared,
    settings: &Settings,
    attempts: &Attempts,
    reference: &Reference,
) -> Found {
    match attempts.as_image_status() {
        Ok(questions) => find(shared, settings, &questions, reference).await,
        Err(error) => Found::unknown(Err(error)),
    }
}

async fn find(
    shared: &Shared,
    settings: &Settings,
    attempts: &Attempts,
    reference: &Reference,
) -> Found {
    let alias = shared
        .aliases
        .get(&Plan::key_of(&settings.rules, reference));
    if let Some(alias) = alias.clone() {
        let answer = attempts.with_image(&alias).await;
        // A runtime that can't answer is not asked again by every other name.
        if matches!(Presence::of(&answer), Presence::Present | Presence::Unknown) {
            return Found {
                name: Some(alias),
                answer,
            };
        }
    }
    let as_written = Found::unknown(attempts.unchanged().await);
    let presence = Presence::of(&as_written.answer);
    if matches!(presence, Presence::Present | Presence::Unknown) {
        return as_written;
    }
    // An error is about this spelling only: CRI-O has them for short names.
    let mut best = as_written;
    let mut is_answered = presence == Presence::Absent;
    let plan = Plan::new(&settings.rules, reference);
    let meant = plan.meaning.canonical();
    let canonical = (!is_answered && meant != reference.as_written()).then(|| meant.clone());
    let candidates = plan.candidates.into_iter();
    let candidates = candidates
        .map(|candidate| candidate.image)
        .filter(|image| Some(image) != alias.as_ref() && *image != meant);
    for name in canonical.into_iter().chain(candidates) {
        let answer = attempts.with_image(&name).await;
        let presence = Presence::of(&answer);
        let found = Found {
            name: Some(name),
            answer,
        };
        match presence {
            Presence::Present => return found,
            Presence::Absent if !is_answered => {
                is_answered = true;
                best = found;
            }
            _ => {}
        }
    }
    best
}
