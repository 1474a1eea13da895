//! A file whose only mistakes are values that the ConfigMap replaces anyway.

use policy::config::{Key, RawConfig, rewrite};

/// `text` without its bad values, where `configmap` sets every one of those fields; else nothing. A text
/// that is no YAML has no fields, so nothing is known about it.
pub(super) fn without_replaced_values(text: &str, configmap: &RawConfig) -> Option<String> {
    let (raw, findings) = RawConfig::read(text);
    let mut bad = Vec::new();
    for finding in findings.iter().filter(|finding| finding.is_error()) {
        let key = replaced_by(configmap, &finding.field)?;
        if !bad.contains(&key) {
            bad.push(key);
        }
    }
    if bad.is_empty() {
        return None;
    }
    rewrite(text, &raw, &bad).ok()
}

/// The key that `configmap` sets and that has `field`, such as `cache.imageCacheTTL`, in it.
fn replaced_by(configmap: &RawConfig, field: &str) -> Option<Key> {
    let cache = &configmap.cache;
    let is_set = match field.strip_prefix("cache.") {
        Some("imageCacheSize") => cache.image_cache_size.is_some(),
        Some("imageCacheTTL") => cache.image_cache_ttl.is_some(),
        Some("domainCacheTTL") => cache.domain_cache_ttl.is_some(),
        Some("negativeTTL") => cache.negative_ttl.is_some(),
        Some("statsLogInterval") => cache.stats_log_interval.is_some(),
        Some("disableStats") => cache.disable_stats.is_some(),
        Some("prefix") => cache.prefix.is_some(),
        Some(_) => false,
        None => true,
    };
    let name = field.split(['.', '[']).next().unwrap_or(field);
    let mut keys = Key::ALL.into_iter();
    let key = keys.find(|key| key.name() == name)?;
    // `cache` itself, such as a list in its place, is more than the values that are set.
    (is_set && field != Key::Cache.name() && key.is_set(configmap)).then_some(key)
}

#[cfg(test)]
mod tests {
    use policy::config::ConfigMap;

    use super::*;

    fn repaired(text: &str, configmap: &str) -> Option<String> {
        let (configmap, _) = ConfigMap::read(configmap).unwrap();
        without_replaced_values(text, configmap.as_written())
    }

    #[test]
    fn only_what_the_configmap_sets_is_left_out() {
        let text = "# ours\ntimeout: soon\ndebug: true\n";
        let without = repaired(text, "timeout: 1m").unwrap();
        assert!(
            !without.contains("soon") && without.contains("debug: true"),
            "{without}"
        );
        assert_eq!(repaired(text, "debug: false"), None);
        let cache = "cache: {statsLogInterval: often, imageCacheTTL: 1h}\n";
        let without = repaired(cache, "cache: {statsLogInterval: 1m}").unwrap();
        assert!(
            !without.contains("often") && without.contains("imageCacheTTL"),
            "{without}"
        );
        assert_eq!(repaired(cache, "cache: {imageCacheTTL: 1h}"), None);
        assert_eq!(repaired("cache: []\n", "cache: {imageCacheTTL: 1h}"), None);
        assert_eq!(repaired("timeout: [\n", "timeout: 1m"), None);
        // Rules that the ConfigMap doesn't set are nobody's to drop.
        let both = "timeout: soon\nfallbackToOrigin: never\n";
        assert_eq!(repaired(both, "timeout: 1m"), None);
    }
}
