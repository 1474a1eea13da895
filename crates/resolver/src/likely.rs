//! Which candidate most likely is the best that has an image: the one that had the last image of the same
//! repository, or else of the same host.
//!
//! Those below it are not asked as long as that one may still say yes. Otherwise each pull would cost every
//! registry a question: with ten thousand nodes, a roll-out from the site's own registry would be a million
//! questions to Docker Hub.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use policy::{CandidateKind, Plan};

/// Repositories and hosts that are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Where the last image of each repository, and of each host, was found.
pub(crate) struct LikelyPlaces(Mutex<LruCache<String, Arc<str>>>);

impl Default for LikelyPlaces {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl LikelyPlaces {
    /// The plan's image was found at candidate `at`.
    pub(crate) fn remember(&self, plan: &Plan, at: usize) {
        let Some(place) = place(plan, at) else {
            return;
        };
        let place: Arc<str> = place.into();
        let mut places = self.0.lock();
        places.put(plan.meaning.domain().to_owned(), Arc::clone(&place));
        places.put(repository(plan), place);
    }

    /// The candidate that most likely is the best that has the plan's image.
    pub(crate) fn candidate(&self, plan: &Plan) -> Option<usize> {
        let mut places = self.0.lock();
        let known = match places.get(&repository(plan)) {
            Some(known) => Arc::clone(known),
            None => Arc::clone(places.get(plan.meaning.domain())?),
        };
        (0..plan.candidates.len()).find(|at| place(plan, *at).as_deref() == Some(&*known))
    }
}

fn place(plan: &Plan, at: usize) -> Option<String> {
    let candidate = plan.candidates.get(at)?;
    matches!(candidate.kind, CandidateKind::Registry(_)).then(|| candidate.endpoint.to_string())
}

fn repository(plan: &Plan) -> String {
    format!("{}/{}", plan.meaning.domain(), plan.meaning.repository())
}

#[cfg(test)]
mod tests {
    use policy::Reference;
    use policy::config::Settings;

    use super::*;

    #[test]
    fn the_repository_counts_and_else_the_host() {
        let file = "registries: [{address: a.io, priority: 600}, {address: b.io}]";
        let (settings, _) = Settings::read(file, &|_| None);
        let plan = |image| Plan::new(&settings.rules, &Reference::parse(image).unwrap());
        let likely = LikelyPlaces::default();
        assert_eq!(likely.candidate(&plan("x/y:1")), None);
        likely.remember(&plan("x/y:1"), 1);
        likely.remember(&plan("x/z:1"), 0);
        assert_eq!(likely.candidate(&plan("x/y:2")), Some(1));
        assert_eq!(likely.candidate(&plan("x/new:1")), Some(0));
        assert_eq!(likely.candidate(&plan("ghcr.io/x/y:2")), None);
    }
}
