//! Keeping images known by their original names, after pulls and in answers.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use policy::config::Settings;
use policy::{Plan, Reference};

use super::Shared;
use super::attempt::{Attempts, reply};
use super::presence::Presence;
use crate::containerd::{Containerd, ContainerdError};
use crate::original_names::answers::OriginalNames;
use crate::original_names::containerd::{Added, add};
use crate::runtime_name::stored_name;
use crate::upstream::UnaryReply;
use crate::wire;

/// How long names may hold up the answer to a pull.
const NAMES_TIMEOUT: Duration = Duration::from_secs(5);
/// How long finding out what the runtime can do may hold up a list.
const API_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the runtime can keep other names for an image.
#[derive(Debug, Default)]
pub(super) struct NamesApi(AtomicU8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ApiState {
    Unknown,
    Present,
    Missing,
}

impl NamesApi {
    fn get(&self) -> ApiState {
        match self.0.load(Ordering::Relaxed) {
            1 => ApiState::Present,
            2 => ApiState::Missing,
            _ => ApiState::Unknown,
        }
    }

    /// Whether the runtime is a containerd that has its own Images service.
    pub(super) fn is_present(&self) -> bool {
        self.get() == ApiState::Present
    }

    fn learn<T>(&self, result: &Result<T, ContainerdError>) {
        let state = match result {
            Ok(_) | Err(ContainerdError::Refused { .. }) => 1,
            Err(ContainerdError::NoSuchService) => 2,
            Err(_) => return,
        };
        self.0.store(state, Ordering::Relaxed);
    }
}

/// After `image` was pulled for what `plan` is about: gives it its original names in the runtime. Never an
/// error: the pull has succeeded.
pub(super) async fn after_pull(
    shared: &Shared,
    settings: &Settings,
    attempts: &Attempts,
    plan: &Plan,
    image: &str,
) {
    if !settings.original_names {
        // Who begins pulls early has to know.
        return find_out(shared, attempts).await;
    }
    let (Ok(mirror), Ok(questions)) = (Reference::parse(image), attempts.as_image_status()) else {
        return;
    };
    if stored_name(&mirror) == stored_name(&plan.meaning) {
        return;
    }
    let containerd = Containerd::new(attempts.upstream());
    let questions = &questions;
    let is_present = |name: String| async move {
        Presence::of(&questions.with_image(&name).await) == Presence::Present
    };
    let keep = settings.keep_mirror_names;
    let adding = add(&containerd, &mirror, &plan.meaning, keep, is_present);
    let Ok(added) = tokio::time::timeout(NAMES_TIMEOUT, adding).await else {
        return tracing::warn!(
            "{image} may lack its original name {} in the runtime: no answer within {NAMES_TIMEOUT:?}",
            plan.meaning
        );
    };
    shared.names_api.learn(&added);
    let original = plan.meaning.canonical();
    match added {
        Ok(Added::Beside) => tracing::debug!("{image} is known as {original} too"),
        Ok(Added::Instead) => {
            shared.remember(&plan.key, None);
            tracing::debug!("{image} is known as {original} now");
        }
        Ok(Added::Gone) => {
            tracing::debug!("{image} was removed at once; it is not named {original}")
        }
        Ok(Added::NotFollowed) => tracing::warn!(
            "{image} has the name {original} in containerd, but containerd's CRI does not show it; a restart of containerd mends that"
        ),
        // Its names are added to answers.
        Err(ContainerdError::NoSuchService) => {}
        Err(error) => tracing::warn!("{image} has not got its original name {original}: {error}"),
    }
}

/// Whether lists of images have to be edited, as far as is known.
pub(super) fn edits_lists(shared: &Shared, settings: &Settings) -> bool {
    settings.original_names
        && shared.names_api.get() != ApiState::Present
        && !shared.aliases.is_empty()
}

/// Adds the original names to an answer that names images, where the runtime can't keep them.
pub(super) fn add_to(shared: &Shared, settings: &Settings, reply: &mut UnaryReply) {
    if edits_lists(shared, settings) && shared.names_api.get() == ApiState::Missing {
        let names = OriginalNames::of(&shared.aliases);
        reply.map_messages(|message| names.added_to(message));
    }
}

/// Asks the runtime once whether it can keep other names for an image.
pub(super) async fn find_out(shared: &Shared, attempts: &Attempts) {
    if shared.names_api.get() != ApiState::Unknown {
        return;
    }
    let containerd = Containerd::new(attempts.upstream());
    // Any name will do.
    let asked = tokio::time::timeout(API_TIMEOUT, containerd.image("docker.io/library/app:1"));
    if let Ok(answer) = asked.await {
        shared.names_api.learn(&answer);
    }
}

/// ListImages and StreamImages. A filter by an original name is one by the name that the runtime knows.
pub(super) async fn list(shared: &Shared, settings: &Settings, attempts: &Attempts) -> UnaryReply {
    find_out(shared, attempts).await;
    let filter = wire::text_at(attempts.message(), wire::FILTERED_IMAGE_NAME);
    let alias = filter
        .ok()
        .flatten()
        .and_then(|name| Reference::parse(name).ok())
        .filter(|_| shared.names_api.get() == ApiState::Missing)
        .and_then(|name| shared.aliases.get(&Plan::key_of(&settings.rules, &name)));
    let answer = match alias {
        Some(alias) => attempts.with_image(&alias).await,
        None => attempts.unchanged().await,
    };
    let mut reply = reply(answer);
    add_to(shared, settings, &mut reply);
    reply
}
