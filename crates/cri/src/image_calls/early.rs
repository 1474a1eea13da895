//! Beginning a pull while the registries are still asked who has the image.
//!
//! Where the last image of a repository came from, the next one most likely comes from too. Its pull begins
//! together with the questions, so that asking costs no time. What the questions say decides, as always: unless
//! that place is the one chosen, its pull is called off and nothing of it is used.

use std::fmt;
use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;
use policy::{CandidateKind, Plan, Verdict};
use resolver::Resolution;

/// Repositories whose last place is remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Where the last image of each repository came from.
pub(super) struct LastPlaces(Mutex<LruCache<String, Place>>);

/// A candidate, by what stays the same from tag to tag.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    endpoint: String,
    repository: String,
}

impl Default for LastPlaces {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl fmt::Debug for LastPlaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastPlaces").finish_non_exhaustive()
    }
}

impl LastPlaces {
    /// An image of the plan's repository came from candidate `at`; `None` is: from none of them.
    pub(super) fn remember(&self, plan: &Plan, at: Option<usize>) {
        let repository = repository(plan);
        let mut places = self.0.lock();
        match at.and_then(|at| place(plan, at)) {
            Some(place) => {
                places.put(repository, place);
            }
            None => {
                places.pop(&repository);
            }
        }
    }

    /// The candidate whose pull may begin now. `known` is what is remembered of this very image: a place that
    /// is known to lack it, or one below a place that is known to have it, is not begun with.
    pub(super) fn candidate(&self, plan: &Plan, known: &Resolution) -> Option<usize> {
        let last = self.0.lock().get(&repository(plan)).cloned()?;
        let at = (0..plan.candidates.len()).find(|at| place(plan, *at).as_ref() == Some(&last))?;
        let verdicts = known.verdicts();
        let may_have_it = matches!(verdicts.get(at), Some(None | Some(Verdict::Found)));
        let none_better = !verdicts
            .iter()
            .take(at)
            .any(|verdict| *verdict == Some(Verdict::Found));
        (may_have_it && none_better).then_some(at)
    }
}

/// A registry that was pulled from; a redirect's target is pulled from without having been found.
fn place(plan: &Plan, at: usize) -> Option<Place> {
    let candidate = plan.candidates.get(at)?;
    matches!(candidate.kind, CandidateKind::Registry(_)).then(|| Place {
        endpoint: candidate.endpoint.to_string(),
        repository: candidate.repository.clone(),
    })
}

/// The image's name without its tag and digest.
fn repository(plan: &Plan) -> String {
    format!("{}/{}", plan.meaning.domain(), plan.meaning.repository())
}
