//! Plans, probes and pulls as plain data.
//!
//! These types are the JSON of `resolve --json`, `history --json`, `status --json` and of the page.
//! Fields are added, not renamed; times are microseconds unless the name says otherwise. No field
//! ever holds a credential.

mod candidate;
mod decision;
mod explanation;
mod node_cache;
mod place;
mod status;
mod time;

pub use candidate::{CandidateReport, Freshness, ProbeReport, candidates};
pub use decision::{Decision, Outcome, PullReport};
pub use explanation::{Choice, Explanation, Knowledge, LeftOut, OriginReport, RedirectReport};
pub use node_cache::{Arriving, NodeCacheImage, NodeCacheStatus};
pub use place::Place;
pub use policy::Verdict;
pub use status::{
    BypassPeriod, BypassStatus, CacheStatus, ConfigPart, ConfigProblem, ConfigStatus, LinkTarget,
    RegistryState, RegistryStatus, RuntimeStatus, Status,
};
pub use time::{micros, timestamp};

#[cfg(test)]
mod tests {
    use policy::Plan;

    use super::*;

    #[test]
    fn names_are_the_ones_of_json() {
        for place in [
            Place::Offline,
            Place::Registry,
            Place::Redirect,
            Place::Origin,
        ] {
            let json = serde_json::to_string(&place).unwrap();
            assert_eq!(json, format!("\"{}\"", place.name()));
        }
    }

    #[test]
    fn a_candidate_shows_where_its_credentials_stand_and_not_what_they_are() {
        let config =
            "registries: [{address: 'http://a.io', auth: 'hugo:hunter2'}, {address: b.corp}]";
        let (settings, _) = policy::config::Settings::read(config, &|_| None);
        let reference = policy::Reference::parse("b.corp/team/app:1").unwrap();
        let plan = Plan::new(&settings.rules, &reference);
        let shown: Vec<_> = candidates(&plan);
        assert_eq!(shown[0].credentials, "auth in the config");
        assert_eq!(shown[1].credentials, "the pod's own");
        let json = serde_json::to_string(&shown).unwrap();
        assert!(
            !json.contains("hugo") && !json.contains("hunter2"),
            "{json}"
        );
    }
}
