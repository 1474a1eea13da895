//! Where the last image of each repository was: found there, or pulled from there, as whoever remembers it means it.

use std::fmt;
use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;
use policy::{CandidateKind, Plan};

/// Repositories, or hosts, that are remembered.
pub(crate) const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// A registry of the config for each repository; the 4096 that were used last.
pub struct LastPlaces(Mutex<LruCache<String, Place>>);

/// A candidate, by what stays the same from tag to tag.
#[derive(PartialEq, Eq)]
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
    /// An image of the plan's repository was at candidate `at`. `None`, or a candidate that is no registry of the
    /// config (a redirect's target is used without having been found): at none that can be remembered.
    pub fn remember(&self, plan: &Plan, at: Option<usize>) {
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

    /// The candidate at which the last image of the plan's repository was.
    pub fn candidate(&self, plan: &Plan) -> Option<usize> {
        let mut places = self.0.lock();
        let last = places.get(&repository(plan))?;
        (0..plan.candidates.len()).find(|at| place(plan, *at).as_ref() == Some(last))
    }
}

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
