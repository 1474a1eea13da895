//! Beginning a pull while the registries are still asked who has the image.
//!
//! Where the last image of a repository came from, the next one most likely comes from too. Its pull begins
//! together with the questions, so that asking costs no time. What the questions say decides, as always: unless
//! that place is the one chosen, its pull is called off and nothing of it is used.

use std::sync::OnceLock;
use std::time::Duration;

use policy::{Candidate, Reference, Verdict};
use resolver::Resolution;

use crate::containerd::Containerd;
use crate::runtime_name::stored_name;
use crate::upstream::Upstream;

/// How long looking what is there may hold up a pull that begins early.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long removing what is left of a pull may hold up the pull from elsewhere.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the pull of candidate `at` may begin now. `known` is what is remembered of this very image: a place that is
/// known to lack it, or one below a place that is known to have it, is not begun with.
pub(super) fn may_begin(at: usize, known: &Resolution) -> bool {
    let verdicts = known.verdicts();
    let may_have_it = matches!(verdicts.get(at), Some(None | Some(Verdict::Found)));
    let is_found = |verdict: &Option<Verdict>| *verdict == Some(Verdict::Found);
    may_have_it && !verdicts.iter().take(at).any(is_found)
}

/// What a pull that begins early may leave behind in containerd: an image by the candidate's name, where the pull is
/// done before it can be called off. ImageStatus would find that image later, when the one that was pulled in its
/// place has gone, and a Pod would start another image than its registries, asked in their order, have.
///
/// Only a tag's name is removed. What a name with a digest stands for is right wherever it came from, and kubelet's
/// garbage collection removes an image without tags as it does others.
pub(super) struct Trace<'a> {
    containerd: Containerd<'a>,
    /// The name that containerd keeps the image under; none where it may stay.
    name: Option<String>,
    /// Whether it was there before. Unset until that is known, and until then nothing has been begun.
    was_there: OnceLock<bool>,
}

impl<'a> Trace<'a> {
    pub(super) fn of(upstream: &'a Upstream, candidate: &Candidate) -> Self {
        let name = Reference::parse(&candidate.image).ok();
        let name = name.filter(|name| name.digest().is_none());
        Self {
            containerd: Containerd::new(upstream),
            name: name.map(|name| stored_name(&name)),
            was_there: OnceLock::new(),
        }
    }

    /// Looks what is there before the pull; for a bounded time, since the pull's own deadline does not count here.
    pub(super) async fn look(&self) {
        if let Some(name) = &self.name {
            let looking = tokio::time::timeout(LOOK_TIMEOUT, self.containerd.image(name));
            // Where that can't be known nothing will be removed.
            let is_absent = matches!(looking.await, Ok(Ok(None)));
            let _first = self.was_there.set(!is_absent);
        }
    }

    /// Removes what the pull has left. Never an error: the pull goes on elsewhere.
    pub(super) async fn remove(&self) {
        let (Some(name), Some(false)) = (&self.name, self.was_there.get()) else {
            return;
        };
        let removing = tokio::time::timeout(REMOVE_TIMEOUT, self.containerd.delete(name));
        match removing.await {
            Ok(Ok(())) => tracing::debug!("{name} was begun early and is not kept"),
            Ok(Err(error)) => tracing::warn!(
                "{name}, whose pull was begun early and is not wanted, may stay in the runtime: {error}; remove it with `crictl rmi` where it is there"
            ),
            Err(_elapsed) => tracing::warn!(
                "{name}, whose pull was begun early and is not wanted, may stay in the runtime: no answer within {REMOVE_TIMEOUT:?}; remove it with `crictl rmi` where it is there"
            ),
        }
    }
}
