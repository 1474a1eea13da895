//! The config in force as YAML, each value with where it comes from.

use std::path::Path;

use policy::config::{ConfigMap, Key, Located, RawConfig, Settings, masked, merge};
use policy::duration;
use telemetry::report::ConfigPart;

/// `local` with `configmap` merged into it; credentials masked. `runtime` is the socket that a shim uses where the config
/// names none.
pub fn annotated(
    local: &RawConfig,
    configmap: Option<&ConfigMap>,
    runtime: Option<&Path>,
) -> String {
    Page::of(local, configmap, runtime).text
}

/// Each field, and where its value comes from: `file`, `ConfigMap` or `default`.
pub fn parts(local: &RawConfig, configmap: Option<&ConfigMap>) -> Vec<ConfigPart> {
    Page::of(local, configmap, None).parts
}

struct Page<'a> {
    local: &'a RawConfig,
    /// What of the ConfigMap counts.
    config_map: Option<RawConfig>,
    text: String,
    parts: Vec<ConfigPart>,
}

impl<'a> Page<'a> {
    fn of(local: &'a RawConfig, configmap: Option<&'a ConfigMap>, runtime: Option<&Path>) -> Self {
        let merged = configmap.map(|map| merge(local, map));
        let (merged, config_map) = match merged {
            Some(merged) => (merged.config, Some(merged.allowed)),
            None => (local.clone(), None),
        };
        // Variables stay as they are written: what they hold is nobody's business here.
        let (settings, _) = Settings::from_raw(&merged, &|name| Some(format!("${{{name}}}")));
        let mut page = Self {
            local,
            config_map,
            text: String::new(),
            parts: Vec::new(),
        };
        page.scalars(&settings, runtime);
        for key in [
            Key::Address,
            Key::Auth,
            Key::AuthFile,
            Key::AuthSecret,
            Key::OfflinePriority,
            Key::UseNodeCache,
            Key::Registries,
            Key::Redirects,
        ] {
            page.written(&merged, key);
        }
        page.cache(&settings);
        page.written(&merged, Key::NodeCache);
        page
    }
}

impl Page<'_> {
    fn origin(&self, is_set: impl Fn(&RawConfig) -> bool) -> &'static str {
        if self.config_map.as_ref().is_some_and(&is_set) {
            "ConfigMap"
        } else if is_set(self.local) {
            "file"
        } else {
            "default"
        }
    }

    fn part(&mut self, field: String, origin: &str) {
        self.parts.push(ConfigPart {
            field,
            origin: origin.to_owned(),
        });
    }

    fn line(&mut self, field: &str, value: &str, is_set: impl Fn(&RawConfig) -> bool) {
        let origin = self.origin(is_set);
        self.text
            .push_str(&format!("{field}: {value}  # {origin}\n"));
        // Indented is what stands below `cache:`.
        let field = match field.strip_prefix("  ") {
            Some(field) => format!("cache.{field}"),
            None => field.to_owned(),
        };
        self.part(field, origin);
    }

    fn scalars(&mut self, settings: &Settings, runtime: Option<&Path>) {
        let time = duration::format;
        let socket = settings.shim_socket.display().to_string();
        self.line("shim", &socket, |c| c.shim.is_some());
        let runtime = settings.runtime_socket.as_deref().or(runtime);
        let runtime =
            runtime.map_or_else(|| "\"\"".to_owned(), |socket| socket.display().to_string());
        self.line("cri", &runtime, |c| c.cri.is_some());
        self.line("force", &settings.force.to_string(), |c| c.force.is_some());
        self.line("debug", &settings.debug.to_string(), |c| c.debug.is_some());
        self.line("timeout", &time(settings.timeout), |c| is_some(&c.timeout));
        self.line("reloadInterval", &time(settings.reload_interval), |c| {
            is_some(&c.reload_interval)
        });
        self.line("probeTimeout", &time(settings.probe_timeout), |c| {
            is_some(&c.probe_timeout)
        });
        let fallback = settings.rules.fallback_to_origin.to_string();
        self.line("fallbackToOrigin", &fallback, |c| {
            c.fallback_to_origin.is_some()
        });
        let bypass = settings.bypass.to_string();
        self.line("bypass", &bypass, |c| c.bypass.is_some());
        let strict = settings.strict.to_string();
        self.line("strict", &strict, |c| c.strict.is_some());
        let names = settings.original_names.to_string();
        self.line("originalNames", &names, |c| c.original_names.is_some());
        let names = settings.keep_mirror_names.to_string();
        self.line("keepMirrorNames", &names, |c| c.keep_mirror_names.is_some());
        let metrics = settings.metrics_address;
        let metrics = metrics.map_or_else(|| "off".to_owned(), |address| address.to_string());
        self.line("metricsAddress", &metrics, |c| c.metrics_address.is_some());
        let state = settings.state_dir.display().to_string();
        self.line("image", &state, |c| c.image.is_some());
        if let Some(env) = &self.local.config_map_env {
            // Only the file has it.
            let env = env.value.to_string();
            self.line("configMapEnv", &env, |c| c.config_map_env.is_some());
        }
        if let Some(plugins) = &settings.credential_plugins {
            let config = plugins.config.display().to_string();
            self.line("imageCredentialProviderConfig", &config, |c| {
                c.credential_provider_config.is_some()
            });
            let bin_dir = plugins.bin_dir.display().to_string();
            self.line("imageCredentialProviderBinDir", &bin_dir, |c| {
                c.credential_provider_bin_dir.is_some()
            });
        }
    }

    /// A field as it is written, in the merged config; nothing where it isn't.
    fn written(&mut self, merged: &RawConfig, key: Key) {
        let text = masked(merged, key);
        let origin = self.origin(|config| key.is_set(config));
        for (at, line) in text.lines().enumerate() {
            self.text.push_str(line);
            if at == 0 {
                self.text.push_str(&format!("  # {origin}"));
                if let Some((field, _)) = line.split_once(':') {
                    self.part(field.to_owned(), origin);
                }
            }
            self.text.push('\n');
        }
    }

    fn cache(&mut self, settings: &Settings) {
        let time = duration::format;
        let cache = &settings.cache;
        self.text.push_str("cache:\n");
        let size = match cache.image_cache_size {
            0 => "-1".to_owned(),
            size => size.to_string(),
        };
        self.line("  imageCacheSize", &size, |c| {
            let size = c.cache.image_cache_size.as_ref();
            size.is_some_and(|size| size.value != 0)
        });
        self.line("  imageCacheTTL", &time(cache.image_cache_ttl), |c| {
            is_some(&c.cache.image_cache_ttl)
        });
        self.line("  domainCacheTTL", &time(cache.domain_cache_ttl), |c| {
            is_some(&c.cache.domain_cache_ttl)
        });
        self.line("  negativeTTL", &time(cache.negative_ttl), |c| {
            is_some(&c.cache.negative_ttl)
        });
        if let Some(interval) = cache.stats_log_interval {
            self.line("  statsLogInterval", &time(interval), |c| {
                is_some(&c.cache.stats_log_interval)
            });
        }
        let off = cache.stats_log_interval.is_none().to_string();
        self.line("  disableStats", &off, |c| c.cache.disable_stats.is_some());
    }
}

/// Zero is what "not set" looks like in old files.
fn is_some(written: &Option<Located<std::time::Duration>>) -> bool {
    written
        .as_ref()
        .is_some_and(|written| !written.value.is_zero())
}
