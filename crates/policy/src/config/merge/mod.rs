//! Local file and ConfigMap, merged by the table in `deploy/node/README.md`.
//!
//! What is merged is what was *written*, so that `${NAME}` stays unexpanded and a priority out of
//! range stays as it is. Whether anything changed is judged by what it *means*: `900s` is `15m`, and a
//! default that is spelled out is no change.

mod variables;

use super::configmap::ConfigMap;
use super::fields::Located;
use super::key::Key;
use super::meaning;
use super::raw::{RawConfig, RawNodeCacheUse, RawRedirect, RawRegistry};
use crate::endpoint::without_credentials;
use crate::rules::REGISTRY_PRIORITY;
use crate::{Endpoint, duration};

/// A merged config, and what the merge did.
#[derive(Clone, Debug)]
pub struct Merged {
    /// What the local file should say.
    pub config: RawConfig,
    /// What the ConfigMap says, without what the local file forbids it.
    pub allowed: RawConfig,
    /// Fields whose meaning changed; empty means that the file is to be left alone.
    pub changed: Vec<Key>,
    /// The log lines that runbooks search for, for everything that the ConfigMap says. Without credentials.
    pub lines: Vec<String>,
    /// Warnings: options of local entries that a replaced list no longer has, and credentials that
    /// `configMapEnv` forbids.
    pub lost: Vec<String>,
}

/// Merges. `local` must be free of errors: a broken file is not to be built upon.
pub fn merge(local: &RawConfig, configmap: &ConfigMap) -> Merged {
    let mut theirs = configmap.config.clone();
    let mut lost = variables::keep_allowed(&mut theirs, local.config_map_env.as_ref());
    let mut config = local.clone();
    let mut changed = Vec::new();
    for key in Key::ALL.into_iter().filter(|key| key.is_set(&theirs)) {
        let mut candidate = config.clone();
        key.copy(&theirs, &mut candidate);
        if meaning::differs(key, &config, &candidate) {
            config = candidate;
            changed.push(key);
        }
    }
    lost.extend(lost_options(local, &config, &changed));
    Merged {
        lost,
        lines: lines(&theirs),
        config,
        allowed: theirs,
        changed,
    }
}

fn lines(theirs: &RawConfig) -> Vec<String> {
    let mut lines = Vec::new();
    let mut synced = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            lines.push(format!("configmap: synced {name}={value}"));
        }
    };
    let number = |value: &Option<Located<i64>>| value.as_ref().map(|v| v.value.to_string());
    let boolean = |value: &Option<Located<bool>>| value.as_ref().map(|v| v.value.to_string());
    let time = |value: &Option<Located<std::time::Duration>>| {
        value.as_ref().map(|v| duration::format(v.value))
    };
    let address = theirs.address.as_ref();
    synced("address", address.map(|a| without_credentials(&a.value)));
    synced("auth", theirs.auth.as_ref().map(|_| "***".to_owned()));
    let text = |value: &Option<Located<String>>| value.as_ref().map(|v| v.value.clone());
    synced("authFile", text(&theirs.auth_file));
    synced("authSecret", text(&theirs.auth_secret));
    synced("offlinePriority", number(&theirs.offline_priority));
    let node_cache = theirs.use_node_cache.as_ref();
    synced(
        "useNodeCache",
        node_cache.map(|used| match &used.value {
            RawNodeCacheUse::Switch(on) => on.to_string(),
            RawNodeCacheUse::Address(address) => without_credentials(address),
        }),
    );
    synced("force", boolean(&theirs.force));
    synced("debug", boolean(&theirs.debug));
    synced("timeout", time(&theirs.timeout));
    synced("reloadInterval", time(&theirs.reload_interval));
    let cache = &theirs.cache;
    synced("cache.imageCacheSize", number(&cache.image_cache_size));
    synced("cache.imageCacheTTL", time(&cache.image_cache_ttl));
    synced("cache.domainCacheTTL", time(&cache.domain_cache_ttl));
    synced("cache.negativeTTL", time(&cache.negative_ttl));
    synced("cache.statsLogInterval", time(&cache.stats_log_interval));
    synced("cache.disableStats", boolean(&cache.disable_stats));
    synced("cache.prefix", text(&cache.prefix));
    if Key::NodeCache.is_set(theirs) {
        lines.push("configmap: synced nodeCache".to_owned());
    }
    if let Some(list) = &theirs.registries {
        lines.extend(list.value.iter().filter_map(registry_line));
        let count = list.value.iter().filter(|e| e.address.is_some()).count();
        lines.push(format!("configmap: merged {count} registries into config"));
    }
    if let Some(list) = &theirs.redirects {
        for entry in &list.value {
            if let (Some(src), Some(to)) = (&entry.src, &entry.to) {
                let to = without_credentials(&to.value);
                let src = src.value.trim();
                lines.push(format!("configmap: syncing redirect {src} to {to}"));
            }
        }
        let count = list.value.len();
        lines.push(format!("configmap: merged {count} redirects into config"));
    }
    lines
}

fn registry_line(entry: &RawRegistry) -> Option<String> {
    let address = without_credentials(&entry.address.as_ref()?.value);
    let priority = match entry.priority.as_ref().map(|priority| priority.value) {
        None | Some(0) => format!("{} (default)", REGISTRY_PRIORITY.get()),
        Some(priority) => priority.to_string(),
    };
    Some(format!(
        "configmap: syncing registry {address} with priority={priority}"
    ))
}

/// Options of local entries that their successors don't have.
fn lost_options(local: &RawConfig, merged: &RawConfig, changed: &[Key]) -> Vec<String> {
    let mut lost = Vec::new();
    if changed.contains(&Key::Registries) {
        let of = |config| entries(config).iter().filter_map(EntryOptions::of_registry);
        let old = of(&local.registries).collect();
        let new = of(&merged.registries).collect();
        EntryOptions::note_lost("registries", "", old, new, &mut lost);
    }
    if changed.contains(&Key::Redirects) {
        let of = |config| entries(config).iter().filter_map(EntryOptions::of_redirect);
        let old = of(&local.redirects).collect();
        let new = of(&merged.redirects).collect();
        EntryOptions::note_lost("redirects", "the one to ", old, new, &mut lost);
    }
    lost
}

/// The options of one entry whose loss is worth a warning.
struct EntryOptions<'a> {
    place: &'a Located<String>,
    /// Name, whether it does something, and whether it is written at all.
    all: [(&'static str, bool, bool); 4],
}

impl<'a> EntryOptions<'a> {
    fn of_registry(entry: &'a RawRegistry) -> Option<Self> {
        let written = (entry.mirror_of.is_some(), entry.layout.is_some());
        let (ca_file, skip) = (&entry.ca_file, &entry.insecure_skip_verify);
        Some(Self::of(entry.address.as_ref()?, written, ca_file, skip))
    }

    fn of_redirect(entry: &'a RawRedirect) -> Option<Self> {
        let (ca_file, skip) = (&entry.ca_file, &entry.insecure_skip_verify);
        Some(Self::of(entry.to.as_ref()?, (false, false), ca_file, skip))
    }

    fn of(
        place: &'a Located<String>,
        (mirror_of, layout): (bool, bool),
        ca_file: &Option<Located<String>>,
        skip: &Option<Located<bool>>,
    ) -> Self {
        Self {
            place,
            all: [
                ("mirrorOf", mirror_of, mirror_of),
                ("layout", layout, layout),
                ("caFile", ca_file.is_some(), ca_file.is_some()),
                ("insecureSkipVerify", is_on(skip), skip.is_some()),
            ],
        }
    }

    fn note_lost(list: &str, the: &str, old: Vec<Self>, new: Vec<Self>, lost: &mut Vec<String>) {
        for old in old {
            let address = without_credentials(&old.place.value);
            let successor = new.iter().find(|new| same_place(old.place, new.place));
            for (at, (name, had, _)) in old.all.into_iter().enumerate() {
                let has = successor
                    .and_then(|new| new.all.get(at))
                    .is_some_and(|(_, _, is_written)| *is_written);
                if had && !has {
                    lost.push(format!(
                        "the ConfigMap's {list} replace the local ones: `{name}` of {the}{address} is lost; write it in the ConfigMap's entry"
                    ));
                }
            }
        }
    }
}

fn is_on(written: &Option<Located<bool>>) -> bool {
    written.as_ref().is_some_and(|written| written.value)
}

fn entries<T>(list: &Option<Located<Vec<T>>>) -> &[T] {
    list.as_ref().map_or(&[], |list| list.value.as_slice())
}

fn same_place(a: &Located<String>, b: &Located<String>) -> bool {
    let parse = |text: &Located<String>| {
        Endpoint::parse(&text.value)
            .ok()
            .map(|(endpoint, _)| endpoint)
    };
    matches!((parse(a), parse(b)), (Some(a), Some(b)) if a.same_place(&b))
}

#[cfg(test)]
mod tests;
