//! Which candidate most likely is the best that has an image: the one that had the last image of the same
//! repository, or else of the same host.
//!
//! Those below it are not asked as long as that one may still say yes. Otherwise each pull would cost every
//! registry a question: with ten thousand nodes, a roll-out from the site's own registry would be a million
//! questions to Docker Hub.

use lru::LruCache;
use parking_lot::Mutex;
use policy::{CandidateKind, Plan};

use crate::last_places::{LastPlaces, REMEMBERED};

/// Where the last image of each repository, and of each host, was found.
pub(crate) struct LikelyPlaces {
    of_repositories: LastPlaces,
    /// The registry's address by host.
    of_hosts: Mutex<LruCache<String, String>>,
}

impl Default for LikelyPlaces {
    fn default() -> Self {
        Self {
            of_repositories: LastPlaces::default(),
            of_hosts: Mutex::new(LruCache::new(REMEMBERED)),
        }
    }
}

impl LikelyPlaces {
    /// The plan's image was found at candidate `at`.
    pub(crate) fn remember(&self, plan: &Plan, at: usize) {
        let Some(address) = address(plan, at) else {
            return;
        };
        let host = plan.meaning.domain().to_owned();
        self.of_hosts.lock().put(host, address);
        self.of_repositories.remember(plan, Some(at));
    }

    /// The candidate that most likely is the best that has the plan's image.
    pub(crate) fn candidate(&self, plan: &Plan) -> Option<usize> {
        let of_host = || {
            let mut hosts = self.of_hosts.lock();
            let known = hosts.get(plan.meaning.domain())?;
            (0..plan.candidates.len()).find(|at| address(plan, *at).as_ref() == Some(known))
        };
        self.of_repositories.candidate(plan).or_else(of_host)
    }
}

fn address(plan: &Plan, at: usize) -> Option<String> {
    let candidate = plan.candidates.get(at)?;
    matches!(candidate.kind, CandidateKind::Registry(_)).then(|| candidate.endpoint.to_string())
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
