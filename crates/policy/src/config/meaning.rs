//! Whether two configs mean the same, field by field, however they are written.

use std::time::Duration;

use super::fields::Located;
use super::key::Key;
use super::node_cache::NodeCache;
use super::raw::{RawAuth, RawCache, RawConfig};
use super::settings::{CacheSettings, Settings};
use crate::rules::{EntryKind, Redirect, Registry};
use crate::{Credentials, Endpoint};
use secrecy::ExposeSecret;

/// Whether `key` means something else in `a` than in `b`.
pub(super) fn differs(key: Key, a: &RawConfig, b: &RawConfig) -> bool {
    match key {
        Key::Address => address(a) != address(b),
        Key::Auth => auth(a) != auth(b),
        Key::AuthFile => text(&a.auth_file) != text(&b.auth_file),
        Key::AuthSecret => text(&a.auth_secret) != text(&b.auth_secret),
        Key::OfflinePriority => priority(a) != priority(b),
        Key::UseNodeCache => node_cache_use(a) != node_cache_use(b),
        Key::Registries => registries(a) != registries(b),
        Key::Redirects => redirects(a) != redirects(b),
        Key::Force => is_on(&a.force) != is_on(&b.force),
        Key::Debug => is_on(&a.debug) != is_on(&b.debug),
        Key::Timeout => time(&a.timeout, 900) != time(&b.timeout, 900),
        Key::ReloadInterval => time(&a.reload_interval, 15) != time(&b.reload_interval, 15),
        Key::NodeCache => node_cache(a) != node_cache(b),
        Key::Cache => Cache::of(&a.cache) != Cache::of(&b.cache),
    }
}

fn text(written: &Option<Located<String>>) -> Option<&str> {
    written.as_ref().map(|written| written.value.trim())
}

fn texts(written: &Option<Located<Vec<Located<String>>>>) -> Vec<&str> {
    let list = written.iter().flat_map(|written| &written.value);
    list.map(|text| text.value.trim()).collect()
}

fn is_on(written: &Option<Located<bool>>) -> bool {
    written.as_ref().is_some_and(|written| written.value)
}

fn time(written: &Option<Located<Duration>>, default_seconds: u64) -> Duration {
    written
        .as_ref()
        .map(|written| written.value)
        .filter(|time| !time.is_zero())
        .unwrap_or(Duration::from_secs(default_seconds))
}

fn priority(config: &RawConfig) -> i64 {
    let default = i64::from(crate::rules::OFFLINE_PRIORITY.get());
    let written = config.offline_priority.as_ref().map(|p| p.value);
    written.filter(|p| *p != 0).unwrap_or(default)
}

/// An address that can't be read is only the same as itself.
fn address(config: &RawConfig) -> Option<Result<(Endpoint, Option<Credentials>), &str>> {
    let written = text(&config.address)?;
    Some(Endpoint::parse(written).map_err(|_| written))
}

fn node_cache(config: &RawConfig) -> NodeCache {
    settings(RawConfig {
        node_cache: config.node_cache.clone(),
        ..RawConfig::default()
    })
    .node_cache
}

fn node_cache_use(config: &RawConfig) -> Option<(Endpoint, Option<Credentials>)> {
    let meant = settings(RawConfig {
        use_node_cache: config.use_node_cache.clone(),
        ..RawConfig::default()
    });
    let cache = meant.configured.into_iter().next()?;
    Some((cache.endpoint, cache.credentials))
}

fn auth(config: &RawConfig) -> Option<Credentials> {
    match &config.auth.as_ref()?.value {
        RawAuth::Pair(pair) => Credentials::from_pair(pair.expose_secret()),
        RawAuth::Split { username, password } => Some(Credentials::new(
            username.expose_secret(),
            password.expose_secret(),
        )),
    }
}

/// The `cache` group, each field for itself: one that another field makes idle is still somebody's choice.
#[derive(PartialEq)]
struct Cache<'a> {
    size: i64,
    times: [Duration; 4],
    disable_stats: bool,
    prefix: Option<&'a str>,
    images: Option<&'a str>,
    include: Vec<&'a str>,
    exclude: Vec<&'a str>,
}

impl<'a> Cache<'a> {
    fn of(cache: &'a RawCache) -> Self {
        let default = CacheSettings::default();
        let size = cache.image_cache_size.as_ref().map(|size| size.value);
        let time = |written: &Option<Located<Duration>>, default: Duration| {
            let written = written.as_ref().map(|written| written.value);
            written.filter(|time| !time.is_zero()).unwrap_or(default)
        };
        Self {
            size: match size {
                None | Some(0) => i64::try_from(default.image_cache_size).unwrap_or(i64::MAX),
                Some(size) => size.max(-1),
            },
            times: [
                time(&cache.image_cache_ttl, default.image_cache_ttl),
                time(&cache.domain_cache_ttl, default.domain_cache_ttl),
                time(&cache.negative_ttl, default.negative_ttl),
                time(
                    &cache.stats_log_interval,
                    default.stats_log_interval.unwrap_or_default(),
                ),
            ],
            disable_stats: is_on(&cache.disable_stats),
            prefix: text(&cache.prefix),
            images: text(&cache.images).filter(|images| *images != "all"),
            include: texts(&cache.include),
            exclude: texts(&cache.exclude),
        }
    }
}

/// Each entry beside its priority as written: what is clamped to the same number is not the same.
fn registries(config: &RawConfig) -> Vec<(Registry, Option<i64>)> {
    let list = &config.registries;
    let meant = settings(RawConfig {
        registries: list.clone(),
        ..RawConfig::default()
    });
    let written = |registry: &Registry| match registry.kind {
        EntryKind::Offline | EntryKind::NodeCache => None,
        EntryKind::Listed(number) => list
            .as_ref()
            .and_then(|list| list.value.get(number.checked_sub(1)?))
            .and_then(|entry| entry.priority.as_ref())
            .map(|priority| priority.value)
            .filter(|priority| *priority != 0),
    };
    let mut entries = Vec::new();
    for (at, registry) in meant.configured.iter().enumerate() {
        let written =
            written(registry).filter(|p| *p != i64::from(crate::rules::REGISTRY_PRIORITY.get()));
        let registry = Registry {
            // How it is spelled, and entries that are ignored, mean nothing.
            kind: EntryKind::Listed(at + 1),
            address: String::new(),
            default_priority: false,
            ..registry.clone()
        };
        entries.push((registry, written));
    }
    entries
}

fn redirects(config: &RawConfig) -> Vec<Redirect> {
    let meant = settings(RawConfig {
        redirects: config.redirects.clone(),
        ..RawConfig::default()
    });
    let mut redirects = meant.rules.redirects;
    redirects.sort_by_key(|redirect| redirect.number);
    for (at, redirect) in redirects.iter_mut().enumerate() {
        redirect.number = at + 1;
    }
    redirects
}

fn settings(config: RawConfig) -> Settings {
    // Variables stand for themselves: what they hold is not part of what is written.
    Settings::from_raw(&config, &|name| Some(format!("${{{name}}}"))).0
}
