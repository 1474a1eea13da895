//! The fields of the local file that a ConfigMap may set.

use super::raw::RawConfig;

/// A field of the local file that the ConfigMap may set; `cache` as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `address`; `sealos.address` in the ConfigMap.
    Address,
    /// `auth`; `sealos.auth`.
    Auth,
    /// `authFile`; `sealos.authFile`.
    AuthFile,
    /// `authSecret`; `sealos.authSecret`.
    AuthSecret,
    /// `offlinePriority`.
    OfflinePriority,
    /// `registries`, replaced as a whole.
    Registries,
    /// `useNodeCache`.
    UseNodeCache,
    /// `imageRedirMapping`, replaced as a whole.
    Redirects,
    /// `force`.
    Force,
    /// `debug`.
    Debug,
    /// `timeout`.
    Timeout,
    /// `reloadInterval`.
    ReloadInterval,
    /// `cache`, merged field by field.
    Cache,
    /// `nodeCache`, merged field by field.
    NodeCache,
}

impl Key {
    /// Every key, in the order in which they are written.
    pub const ALL: [Self; 14] = [
        Self::Address,
        Self::Auth,
        Self::AuthFile,
        Self::AuthSecret,
        Self::OfflinePriority,
        Self::UseNodeCache,
        Self::Registries,
        Self::Redirects,
        Self::Force,
        Self::Debug,
        Self::Timeout,
        Self::ReloadInterval,
        Self::Cache,
        Self::NodeCache,
    ];

    /// Its name in the local file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Auth => "auth",
            Self::AuthFile => "authFile",
            Self::AuthSecret => "authSecret",
            Self::OfflinePriority => "offlinePriority",
            Self::UseNodeCache => "useNodeCache",
            Self::Registries => "registries",
            Self::Redirects => "imageRedirMapping",
            Self::Force => "force",
            Self::Debug => "debug",
            Self::Timeout => "timeout",
            Self::ReloadInterval => "reloadInterval",
            Self::Cache => "cache",
            Self::NodeCache => "nodeCache",
        }
    }

    /// Whether `config` says anything about it.
    pub fn is_set(self, config: &RawConfig) -> bool {
        match self {
            Self::Address => config.address.is_some(),
            Self::Auth => config.auth.is_some(),
            Self::AuthFile => config.auth_file.is_some(),
            Self::AuthSecret => config.auth_secret.is_some(),
            Self::OfflinePriority => config.offline_priority.is_some(),
            Self::UseNodeCache => config.use_node_cache.is_some(),
            Self::Registries => config.registries.is_some(),
            Self::Redirects => config.redirects.is_some(),
            Self::Force => config.force.is_some(),
            Self::Debug => config.debug.is_some(),
            Self::Timeout => config.timeout.is_some(),
            Self::ReloadInterval => config.reload_interval.is_some(),
            Self::NodeCache => !config.node_cache.is_empty(),
            Self::Cache => {
                let cache = &config.cache;
                cache.image_cache_size.is_some()
                    || cache.image_cache_ttl.is_some()
                    || cache.domain_cache_ttl.is_some()
                    || cache.negative_ttl.is_some()
                    || cache.stats_log_interval.is_some()
                    || cache.disable_stats.is_some()
                    || cache.prefix.is_some()
            }
        }
    }

    /// Puts what `from` says about it into `into`.
    pub(super) fn copy(self, from: &RawConfig, into: &mut RawConfig) {
        match self {
            Self::Address => set(&mut into.address, &from.address),
            Self::Auth => set(&mut into.auth, &from.auth),
            Self::AuthFile => set(&mut into.auth_file, &from.auth_file),
            Self::AuthSecret => set(&mut into.auth_secret, &from.auth_secret),
            Self::OfflinePriority => set(&mut into.offline_priority, &from.offline_priority),
            Self::UseNodeCache => set(&mut into.use_node_cache, &from.use_node_cache),
            Self::Registries => set(&mut into.registries, &from.registries),
            Self::Redirects => set(&mut into.redirects, &from.redirects),
            Self::Force => set(&mut into.force, &from.force),
            Self::Debug => set(&mut into.debug, &from.debug),
            Self::Timeout => set(&mut into.timeout, &from.timeout),
            Self::ReloadInterval => set(&mut into.reload_interval, &from.reload_interval),
            Self::NodeCache => into.node_cache.take(&from.node_cache),
            Self::Cache => {
                let (from, into) = (&from.cache, &mut into.cache);
                set(&mut into.image_cache_size, &from.image_cache_size);
                set(&mut into.image_cache_ttl, &from.image_cache_ttl);
                set(&mut into.domain_cache_ttl, &from.domain_cache_ttl);
                set(&mut into.negative_ttl, &from.negative_ttl);
                set(&mut into.stats_log_interval, &from.stats_log_interval);
                set(&mut into.disable_stats, &from.disable_stats);
                set(&mut into.prefix, &from.prefix);
            }
        }
    }
}

fn set<T: Clone>(into: &mut Option<T>, from: &Option<T>) {
    if from.is_some() {
        into.clone_from(from);
    }
}
