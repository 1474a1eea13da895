//! ImageStatus and RemoveImage: what a name stands for on this node. Neither touches the network.
//!
//! A name is looked for as what it was last pulled as, then as it was written, then as every
//! candidate of its plan: an image that a registry served yesterday is present today, whether or
//! not that registry can be reached.

use policy::config::Settings;
use policy::{Plan, Reference};

use super::Shared;
use super::attempt::{Answer, Attempts, reply};
use crate::upstream::UnaryReply;
use crate::wire;

/// ImageStatus.
pub(super) async fn status(
    shared: &Shared,
    settings: &Settings,
    attempts: &Attempts,
    reference: &Reference,
) -> UnaryReply {
    reply(find(shared, settings, attempts, reference).await.answer)
}

/// RemoveImage.
pub(super) async fn remove(
    shared: &Shared,
    settings: &Settings,
    attempts: &Attempts,
    reference: &Reference,
) -> UnaryReply {
    let questions = attempts.as_image_status();
    let found = find(shared, settings, &questions, reference).await;
    if found.answer.is_err() {
        return reply(found.answer);
    }
    let answer = match &found.name {
        Some(name) => attempts.with_image(name).await,
        // As it was written; or absent, and then the answer is the runtime's own.
        None => attempts.unchanged().await,
    };
    if answer.as_ref().is_ok_and(|answer| answer.status().is_ok()) {
        shared.remember(&reference.canonical(), None);
        tracing::debug!(
            "rewrite action=RemoveImage cache_hit=true source=local original={reference} result={} replaced={}",
            found.name.as_deref().unwrap_or(reference.as_written()),
            found.name.is_some()
        );
    }
    reply(answer)
}

/// What the runtime says about a name.
struct Found {
    /// What it knows the image as; `None` where that is the name as written, or where it has no such
    /// image.
    name: Option<String>,
    /// Its answer: for `name`, else for the name as written.
    answer: Answer,
}

async fn find(
    shared: &Shared,
    settings: &Settings,
    attempts: &Attempts,
    reference: &Reference,
) -> Found {
    let key = reference.canonical();
    let alias = shared.aliases.get(&key);
    if let Some(alias) = alias.clone() {
        let answer = attempts.with_image(&alias).await;
        // A runtime that can't be reached is not asked again by every other name.
        if is_present(&answer) || answer.is_err() {
            return Found {
                name: Some(alias),
                answer,
            };
        }
    }
    let as_written = attempts.unchanged().await;
    if is_present(&as_written) || as_written.is_err() {
        return Found {
            name: None,
            answer: as_written,
        };
    }
    let plan = Plan::new(&settings.rules, reference);
    for candidate in plan.candidates {
        if Some(&candidate.image) == alias.as_ref() || candidate.image == key {
            continue;
        }
        let answer = attempts.with_image(&candidate.image).await;
        if is_present(&answer) {
            return Found {
                name: Some(candidate.image),
                answer,
            };
        }
    }
    Found {
        name: None,
        answer: as_written,
    }
}

fn is_present(answer: &Answer) -> bool {
    answer
        .as_ref()
        .ok()
        .and_then(|answer| answer.message().ok())
        .is_some_and(|message| matches!(wire::status_image_id(&message), Ok(Some(_))))
}
