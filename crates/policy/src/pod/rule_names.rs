//! The names that rules are recorded by.

use super::scope::PodSettings;
use crate::config::Rewrite;
use crate::plan::CandidateKind;
use crate::rules::{EntryKind, Redirect, Rules};

/// What an image is recorded to have been moved by that goes through the cache only.
pub(super) const CACHE_RULE: &str = "cache.prefix";

/// All rules that can move an image, by the names that they are recorded by.
pub fn rule_names(rules: &Rules, options: &PodSettings) -> Vec<String> {
    let redirects = rules.redirects.iter().map(name_of_redirect);
    let registries = rules.registries.iter().map(|r| name_of_registry(r.kind));
    let registries = registries.filter(|_| options.rewrite == Rewrite::Best);
    let cache = options.cache.iter().map(|_| CACHE_RULE.to_owned());
    redirects.chain(registries).chain(cache).collect()
}

fn name_of_redirect(rule: &Redirect) -> String {
    redirect_name(rule.number, rule.name.as_deref())
}

fn redirect_name(number: usize, name: Option<&str>) -> String {
    name.map_or_else(|| format!("imageRedirMapping[{number}]"), ToOwned::to_owned)
}

fn name_of_registry(entry: EntryKind) -> String {
    match entry {
        EntryKind::Offline => "address".to_owned(),
        EntryKind::NodeCache => "useNodeCache".to_owned(),
        EntryKind::Listed(number) => format!("registries[{number}]"),
    }
}

/// The name of a rule, and the Secret that comes with it.
pub(super) fn rule_of(rules: &Rules, kind: CandidateKind) -> (String, Option<&str>) {
    match kind {
        CandidateKind::Redirect(number) => {
            let rule = rules.redirects.iter().find(|r| r.number == number);
            let name = rule.map_or_else(|| redirect_name(number, None), name_of_redirect);
            (name, rule.and_then(|rule| rule.pull_secret.as_deref()))
        }
        CandidateKind::Registry(entry) => {
            let registry = rules.registries.iter().find(|r| r.kind == entry);
            let secret = registry.and_then(|r| r.pull_secret.as_deref());
            (name_of_registry(entry), secret)
        }
    }
}
