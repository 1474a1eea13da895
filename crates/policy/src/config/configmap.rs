//! The ConfigMap `kube-system/image-cri-shim`: what a cluster's operator says to every node at once.
//!
//! It is read into the same types as the local file, so that the two can be merged field by field.
//! Nothing in it can stop a node: a value that can't be used is left out, with a warning that names it.

use super::diagnostic::{Diagnostic, Severity};
use super::fields::{Fields, Located, is_nothing};
use super::key::Key;
use super::node_cache::RawNodeCache;
use super::raw::{self, RawCache, RawConfig, RawRedirect, RawRegistry};
use super::reader::Reader;
use super::settings::Settings;
use crate::yaml;

/// Name of the ConfigMap.
pub const CONFIG_MAP_NAME: &str = "image-cri-shim";
/// Namespace of the ConfigMap, and of the Secrets that `authSecret` names.
pub const CONFIG_MAP_NAMESPACE: &str = "kube-system";
/// Key in the ConfigMap's data.
pub const CONFIG_MAP_KEY: &str = "registries.yaml";

/// Fields of the local file that a ConfigMap can't set: they are about this node, or about how far the
/// ConfigMap is trusted.
const LOCAL_ONLY: &[&str] = &[
    "shim",
    "cri",
    "address",
    "auth",
    "authFile",
    "authSecret",
    "image",
    "sync",
    "metricsAddress",
    "probeTimeout",
    "fallbackToOrigin",
    "bypass",
    "strict",
    "originalNames",
    "keepMirrorNames",
    "configMapEnv",
    "imageCredentialProviderConfig",
    "imageCredentialProviderBinDir",
];

/// What the ConfigMap says. A field that it doesn't set, or sets to nothing or to zero, is absent.
#[derive(Clone, Debug, Default)]
pub struct ConfigMap {
    pub(super) config: RawConfig,
}

impl ConfigMap {
    /// Reads the text under [`CONFIG_MAP_KEY`]. The findings are warnings: each names a field that is
    /// left out, or one that nobody knows.
    ///
    /// # Errors
    /// The text is not YAML, or no mapping: nothing of it can be used.
    pub fn read(text: &str) -> Result<(Self, Vec<Diagnostic>), Diagnostic> {
        let root = yaml::parse(text).map_err(Diagnostic::not_yaml)?;
        if !matches!(root.value, yaml::Value::Mapping(_)) && !is_nothing(&root.value) {
            let message = "expected fields (`name: value`)";
            return Err(Diagnostic::error(root.position, "", message));
        }
        let mut findings = Vec::new();
        let mut config = fields(root, &mut findings);
        drop_zeros(&mut config);
        cut_lists(&mut config, &mut findings);
        // What parses may still mean nothing, such as an address with a blank in it.
        let (_, meant) = Settings::from_raw(&config, &|name| Some(format!("${{{name}}}")));
        for finding in meant.into_iter().filter(Diagnostic::is_error) {
            leave_out(&mut config, &finding);
            findings.push(finding);
        }
        leave_out_useless_lists(&mut config, &mut findings);
        for finding in findings.iter_mut().filter(|finding| finding.is_error()) {
            finding.severity = Severity::Warning;
            let left_out = if finding.field.contains('[') {
                "; left out"
            } else {
                "; the local value stays"
            };
            finding.message.push_str(left_out);
        }
        findings.sort_by_key(|finding| finding.position);
        Ok((Self { config }, findings))
    }

    /// What is written in it, for who uses it without a local file: the webhook.
    pub fn as_written(&self) -> &RawConfig {
        &self.config
    }

    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        !Key::ALL.iter().any(|key| key.is_set(&self.config))
    }

    /// Whether it says anything about `key`.
    pub fn sets(&self, key: Key) -> bool {
        key.is_set(&self.config)
    }
}

fn fields(root: yaml::Node, findings: &mut Vec<Diagnostic>) -> RawConfig {
    let mut fields = Fields::open(root, "", findings);
    fields.known_elsewhere(LOCAL_ONLY);
    let mut config = RawConfig {
        offline_priority: fields.integer("offlinePriority"),
        force: fields.boolean("force"),
        debug: fields.boolean("debug"),
        timeout: fields.duration("timeout"),
        reload_interval: fields.duration("reloadInterval"),
        use_node_cache: raw::node_cache_use(&mut fields),
        rewrite: fields.text("rewrite"),
        exclude_namespaces: fields.texts("excludeNamespaces"),
        ..RawConfig::default()
    };
    fields.node("version");
    let offline = fields.node("sealos");
    let registries = fields.list("registries", false);
    let redirects = fields.list("imageRedirMapping", false);
    let cache = fields.node("cache");
    let node_cache = fields.node("nodeCache");
    fields.finish();
    config.node_cache = RawNodeCache::read(node_cache, findings);
    if let Some(offline) = offline {
        let mut fields = Fields::open(offline, "sealos", findings);
        config.address = fields.text("address");
        config.auth = raw::auth(&mut fields);
        config.auth_file = fields.text("authFile");
        config.auth_secret = fields.text("authSecret");
        fields.finish();
    }
    config.registries = registries.map(|list| Located {
        value: raw::entries(list.value, "registries", findings, raw::registry),
        position: list.position,
    });
    config.redirects = redirects.map(|list| Located {
        value: raw::entries(list.value, "imageRedirMapping", findings, raw::redirect),
        position: list.position,
    });
    if let Some(cache) = cache {
        config.cache = RawCache::read(Fields::open(cache, "cache", findings));
    }
    config
}

/// Zero is nothing, but for the cache's size: in the ConfigMap that zero is written by a person, who
/// means an empty cache; in the local file it is what the predecessor wrote for "not set".
fn drop_zeros(config: &mut RawConfig) {
    config.offline_priority.take_if(|number| number.value == 0);
    for duration in [
        &mut config.timeout,
        &mut config.reload_interval,
        &mut config.cache.image_cache_ttl,
        &mut config.cache.domain_cache_ttl,
        &mut config.cache.negative_ttl,
        &mut config.cache.stats_log_interval,
        &mut config.node_cache.tag_ttl,
        &mut config.node_cache.max_stale,
        &mut config.node_cache.auth_stale,
        &mut config.node_cache.auth_ttl,
    ] {
        duration.take_if(|duration| duration.value.is_zero());
    }
    config
        .node_cache
        .parallel
        .take_if(|parallel| parallel.value == 0);
    if let Some(size) = &mut config.cache.image_cache_size
        && size.value == 0
    {
        size.value = -1;
    }
}

/// Cuts lists that are too long, so that the local file never gets more entries than are used.
fn cut_lists(config: &mut RawConfig, findings: &mut Vec<Diagnostic>) {
    let mut reader = Reader {
        environment: &|_| None,
        findings: Vec::new(),
    };
    let kept = reader
        .entries(config.registries.as_ref(), "registries")
        .len();
    if let Some(list) = &mut config.registries {
        list.value.truncate(kept);
        for (at, entry) in list.value.iter_mut().enumerate() {
            let field = format!("registries[{}].mirrorOf", at + 1);
            let kept = reader.entries(entry.mirror_of.as_ref(), &field).len();
            if let Some(hosts) = &mut entry.mirror_of {
                hosts.value.truncate(kept);
            }
        }
    }
    let kept = reader
        .entries(config.redirects.as_ref(), "imageRedirMapping")
        .len();
    if let Some(list) = &mut config.redirects {
        list.value.truncate(kept);
    }
    findings.extend(reader.findings);
}

/// A list in which nothing is left that can be used is a bad value as a whole, and not the same as an empty one: where
/// its only address is mistyped, a node must not lose the registries that it has.
fn leave_out_useless_lists(config: &mut RawConfig, findings: &mut Vec<Diagnostic>) {
    let useless = "none of its entries can be used";
    let registries = config.registries.take_if(|list| {
        let is_useless = |entry: &RawRegistry| entry.address.is_none();
        !list.value.is_empty() && list.value.iter().all(is_useless)
    });
    if let Some(list) = registries {
        findings.push(Diagnostic::error(list.position, "registries", useless));
    }
    let redirects = config.redirects.take_if(|list| {
        let is_useless = |entry: &RawRedirect| entry.src.is_none() || entry.to.is_none();
        !list.value.is_empty() && list.value.iter().all(is_useless)
    });
    if let Some(list) = redirects {
        findings.push(Diagnostic::error(
            list.position,
            "imageRedirMapping",
            useless,
        ));
    }
}

/// Takes the field out that `finding` is about.
fn leave_out(config: &mut RawConfig, finding: &Diagnostic) {
    if finding.field.starts_with("nodeCache.") {
        return config.node_cache.leave_out(finding);
    }
    let Some((list, rest)) = finding.field.split_once('[') else {
        match finding.field.as_str() {
            "address" => config.address = None,
            "authSecret" => config.auth_secret = None,
            "useNodeCache" => config.use_node_cache = None,
            "cache.prefix" => config.cache.prefix = None,
            "cache.images" => config.cache.images = None,
            "cache.include" => config.cache.include = None,
            "cache.exclude" => config.cache.exclude = None,
            "rewrite" => config.rewrite = None,
            _ => {}
        }
        return;
    };
    let Some((number, field)) = rest.split_once("].") else {
        return;
    };
    let Some(at) = number.parse::<usize>().ok().and_then(|n| n.checked_sub(1)) else {
        return;
    };
    if list == "registries" {
        let entries = config.registries.as_mut().map(|list| &mut list.value);
        let Some(entry) = entries.and_then(|entries| entries.get_mut(at)) else {
            return;
        };
        match field {
            "address" => entry.address = None,
            "pullSecret" => entry.pull_secret = None,
            "layout" => entry.layout = None,
            "authSecret" => entry.auth_secret = None,
            // Only the host that is none goes: without the whole list, a registry that was meant for
            // few hosts would serve every one.
            "mirrorOf" => {
                if let Some(hosts) = &mut entry.mirror_of {
                    hosts
                        .value
                        .retain(|host| Some(host.position) != finding.position);
                }
            }
            _ => {}
        }
        return;
    }
    let entries = config.redirects.as_mut().map(|list| &mut list.value);
    let Some(entry) = entries.and_then(|entries| entries.get_mut(at)) else {
        return;
    };
    match field {
        "src" => entry.src = None,
        "to" => entry.to = None,
        "pullSecret" => entry.pull_secret = None,
        "authSecret" => entry.auth_secret = None,
        _ => {}
    }
}
