//! The config as it was written: every field optional, every value where it stood, nothing expanded.
//!
//! What it *means* is [`super::Settings`]. The two are apart because a ConfigMap is merged with what
//! was written, not with what it means, and because `${NAME}` must never be written back expanded.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::diagnostic::Diagnostic;
use super::fields::{self, Fields, Located};
use super::node_cache::RawNodeCache;
use crate::yaml::{self, Node, Position, Value};

/// The whole file.
#[derive(Clone, Debug, Default)]
pub struct RawConfig {
    /// Socket we listen on.
    pub shim: Option<Located<String>>,
    /// Socket of the runtime.
    pub cri: Option<Located<String>>,
    /// The offline registry.
    pub address: Option<Located<String>>,
    /// Its credentials.
    pub auth: Option<Located<RawAuth>>,
    /// Docker config file that holds its credentials.
    pub auth_file: Option<Located<String>>,
    /// Kubernetes Secret that holds them.
    pub auth_secret: Option<Located<String>>,
    /// Its priority.
    pub offline_priority: Option<Located<i64>>,
    /// Further registries; `None` is absent, an empty list is a list.
    pub registries: Option<Located<Vec<RawRegistry>>>,
    /// Whether and where the node's cache is asked first.
    pub use_node_cache: Option<Located<RawNodeCacheUse>>,
    /// `imageRedirMapping`.
    pub redirects: Option<Located<Vec<RawRedirect>>>,
    /// Which variables the ConfigMap's `${NAME}` may name. Local file only.
    pub config_map_env: Option<Located<RawConfigMapEnv>>,
    /// Start although the runtime's socket isn't there yet.
    pub force: Option<Located<bool>>,
    /// Debug logs.
    pub debug: Option<Located<bool>>,
    /// Upper bound on one forwarded image call.
    pub timeout: Option<Located<Duration>>,
    /// How often file and ConfigMap are re-read without an event.
    pub reload_interval: Option<Located<Duration>>,
    /// Deadline of one probe.
    pub probe_timeout: Option<Located<Duration>>,
    /// Whether an image that nobody has is asked of where it came from.
    pub fallback_to_origin: Option<Located<bool>>,
    /// `bypass`.
    pub bypass: Option<Located<bool>>,
    /// `strict`.
    pub strict: Option<Located<bool>>,
    /// Whether images from mirrors get their original names in the runtime.
    pub original_names: Option<Located<bool>>,
    /// Whether they keep the mirror's names beside them.
    pub keep_mirror_names: Option<Located<bool>>,
    /// Where metrics are served.
    pub metrics_address: Option<Located<String>>,
    /// Directory for state.
    pub image: Option<Located<String>>,
    /// Kubelet's `CredentialProviderConfig`: which plugins know credentials for which registries.
    pub credential_provider_config: Option<Located<String>>,
    /// Directory of those plugins.
    pub credential_provider_bin_dir: Option<Located<String>>,
    /// What the webhook does with an image: `redirect` or `best`.
    pub rewrite: Option<Located<String>>,
    /// Namespaces whose Pods the webhook leaves alone.
    pub exclude_namespaces: Option<Located<Vec<Located<String>>>>,
    /// The `cache` group.
    pub cache: RawCache,
    /// The section `nodeCache`.
    pub node_cache: RawNodeCache,
}

/// `configMapEnv`: which variables of this node's environment a ConfigMap's `${NAME}` may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawConfigMapEnv {
    /// `all`, the default.
    All,
    /// These; `none` is an empty list.
    Names(Vec<String>),
}

impl fmt::Display for RawConfigMapEnv {
    /// As it stands in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Names(names) if names.is_empty() => f.write_str("none"),
            // Quoted: a name may be `1` or `no`.
            Self::Names(names) => write!(f, "[\"{}\"]", names.join("\", \"")),
        }
    }
}

/// `useNodeCache`: `true`, `false`, or the address of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawNodeCacheUse {
    /// Whether the cache of this node is asked, at its usual address.
    Switch(bool),
    /// The cache at this address is asked.
    Address(String),
}

/// The `cache` group.
#[derive(Clone, Debug, Default)]
pub struct RawCache {
    /// Remembered resolutions; negative is off, zero the default.
    pub image_cache_size: Option<Located<i64>>,
    /// How long a found image is remembered.
    pub image_cache_ttl: Option<Located<Duration>>,
    /// How long what is known about a registry is remembered.
    pub domain_cache_ttl: Option<Located<Duration>>,
    /// How long an absent image is remembered.
    pub negative_ttl: Option<Located<Duration>>,
    /// How often the counters are logged.
    pub stats_log_interval: Option<Located<Duration>>,
    /// Whether they are not.
    pub disable_stats: Option<Located<bool>>,
    /// Where the node cache is, for the webhook to lead images through it.
    pub prefix: Option<Located<String>>,
    /// Which images it leads there: `all` or `moved`.
    pub images: Option<Located<String>>,
    /// Of these only those that match one of these patterns.
    pub include: Option<Located<Vec<Located<String>>>>,
    /// None of those that match one of these patterns.
    pub exclude: Option<Located<Vec<Located<String>>>>,
}

/// An entry of `registries`.
#[derive(Clone, Debug, Default)]
pub struct RawRegistry {
    /// Where the entry starts.
    pub position: Position,
    /// Its address, maybe with a path.
    pub address: Option<Located<String>>,
    /// Its credentials.
    pub auth: Option<Located<RawAuth>>,
    /// Docker config file that holds them.
    pub auth_file: Option<Located<String>>,
    /// Kubernetes Secret that holds them.
    pub auth_secret: Option<Located<String>>,
    /// Its priority as written.
    pub priority: Option<Located<i64>>,
    /// Secret that the webhook gives to Pods whose images it moves here.
    pub pull_secret: Option<Located<String>>,
    /// Where in it an image of another host is: `host` or `repository`.
    pub layout: Option<Located<String>>,
    /// Hosts whose images it may serve.
    pub mirror_of: Option<Located<Vec<Located<String>>>>,
    /// PEM file with CAs.
    pub ca_file: Option<Located<String>>,
    /// Accept any certificate.
    pub insecure_skip_verify: Option<Located<bool>>,
}

/// An entry of `imageRedirMapping`.
#[derive(Clone, Debug, Default)]
pub struct RawRedirect {
    /// Where the entry starts.
    pub position: Position,
    /// Prefix that is replaced.
    pub src: Option<Located<String>>,
    /// What replaces it.
    pub to: Option<Located<String>>,
    /// What the rule is called, in the webhook's annotations.
    pub name: Option<Located<String>>,
    /// Secret that the webhook gives to Pods whose images it moves there.
    pub pull_secret: Option<Located<String>>,
    /// Keep the canonical remainder (`library/nginx`), not the written one.
    pub canonical: Option<Located<bool>>,
    /// Credentials of the target.
    pub auth: Option<Located<RawAuth>>,
    /// Docker config file that holds them.
    pub auth_file: Option<Located<String>>,
    /// Kubernetes Secret that holds them.
    pub auth_secret: Option<Located<String>>,
    /// Place among the registries, instead of after them.
    pub priority: Option<Located<i64>>,
    /// PEM file with CAs.
    pub ca_file: Option<Located<String>>,
    /// Accept any certificate.
    pub insecure_skip_verify: Option<Located<bool>>,
}

/// Credentials as written, `${NAME}` unexpanded. Masked in debug output.
#[derive(Clone)]
pub enum RawAuth {
    /// `user:password`, as the local file has it.
    Pair(SecretString),
    /// `{username: …, password: …}`, as the ConfigMap has it.
    Split {
        /// User name.
        username: SecretString,
        /// Password.
        password: SecretString,
    },
}

impl fmt::Debug for RawAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawAuth(***)")
    }
}

impl RawConfig {
    /// Reads the local file's text. Every mistake is in the second part; a field with an error is
    /// absent in the first.
    pub fn read(text: &str) -> (Self, Vec<Diagnostic>) {
        let mut findings = Vec::new();
        let root = match yaml::parse(text) {
            Ok(root) => root,
            Err(error) => {
                findings.push(Diagnostic::not_yaml(error));
                return (Self::default(), findings);
            }
        };
        let mut fields = Fields::open(root, "", &mut findings);
        let mut config = Self {
            shim: fields.text("shim"),
            cri: fields.text("cri"),
            address: fields.text("address"),
            auth: auth(&mut fields),
            auth_file: fields.text("authFile"),
            auth_secret: fields.text("authSecret"),
            use_node_cache: node_cache_use(&mut fields),
            offline_priority: fields.integer("offlinePriority"),
            config_map_env: config_map_env(&mut fields),
            force: fields.boolean("force"),
            debug: fields.boolean("debug"),
            timeout: fields.duration("timeout"),
            reload_interval: fields.duration("reloadInterval"),
            probe_timeout: fields.duration("probeTimeout"),
            fallback_to_origin: fields.boolean("fallbackToOrigin"),
            bypass: fields.boolean("bypass"),
            strict: fields.boolean("strict"),
            original_names: fields.boolean("originalNames"),
            keep_mirror_names: fields.boolean("keepMirrorNames"),
            metrics_address: fields.text("metricsAddress"),
            image: fields.text("image"),
            rewrite: fields.text("rewrite"),
            exclude_namespaces: fields.texts("excludeNamespaces"),
            credential_provider_config: fields.text("imageCredentialProviderConfig"),
            credential_provider_bin_dir: fields.text("imageCredentialProviderBinDir"),
            ..Self::default()
        };
        // Accepted from old files; they never meant anything here.
        fields.node("version");
        fields.node("sync");
        let registries = fields.list("registries", false);
        let redirects = fields.list("imageRedirMapping", false);
        let cache = fields.node("cache");
        let node_cache = fields.node("nodeCache");
        fields.finish();
        config.node_cache = RawNodeCache::read(node_cache, &mut findings);
        config.registries = registries.map(|list| Located {
            value: entries(list.value, "registries", &mut findings, registry),
            position: list.position,
        });
        config.redirects = redirects.map(|list| Located {
            value: entries(list.value, "imageRedirMapping", &mut findings, redirect),
            position: list.position,
        });
        if let Some(cache) = cache {
            config.cache = RawCache::read(Fields::open(cache, "cache", &mut findings));
        }
        (config, findings)
    }
}

impl RawCache {
    pub(super) fn read(mut fields: Fields<'_>) -> Self {
        let cache = Self {
            image_cache_size: fields.integer("imageCacheSize"),
            image_cache_ttl: fields.duration("imageCacheTTL"),
            domain_cache_ttl: fields.duration("domainCacheTTL"),
            negative_ttl: fields.duration("negativeTTL"),
            stats_log_interval: fields.duration("statsLogInterval"),
            disable_stats: fields.boolean("disableStats"),
            prefix: fields.text("prefix"),
            images: fields.text("images"),
            include: fields.texts("include"),
            exclude: fields.texts("exclude"),
        };
        fields.finish();
        cache
    }
}

fn config_map_env(fields: &mut Fields<'_>) -> Option<Located<RawConfigMapEnv>> {
    const NAME: &str = "configMapEnv";
    const EXPECTED: &str = "expected `all`, `none` or a list of variables' names";
    let node = fields.node(NAME)?;
    let position = node.position;
    let value = match node.value {
        Value::Scalar(text) if text.trim() == "all" => RawConfigMapEnv::All,
        Value::Scalar(text) if text.trim() == "none" => RawConfigMapEnv::Names(Vec::new()),
        Value::Sequence(items) => {
            let mut names = Vec::new();
            for item in items {
                match item.value {
                    Value::Scalar(name) if is_variable(name.trim()) => {
                        names.push(name.trim().to_owned());
                    }
                    _ => fields.error(NAME, item.position, EXPECTED),
                }
            }
            RawConfigMapEnv::Names(names)
        }
        _ => {
            fields.error(NAME, position, EXPECTED);
            return None;
        }
    };
    Some(Located { value, position })
}

/// Whether `${name}` is read as a variable.
pub(super) fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl RawAuth {
    /// The texts in which variables may stand.
    pub(super) fn texts(&self) -> Vec<&str> {
        match self {
            Self::Pair(pair) => vec![pair.expose_secret()],
            Self::Split { username, password } => {
                vec![username.expose_secret(), password.expose_secret()]
            }
        }
    }
}

pub(super) fn node_cache_use(fields: &mut Fields<'_>) -> Option<Located<RawNodeCacheUse>> {
    let written = fields.text("useNodeCache")?;
    let value = match fields::switch(&written.value) {
        Some(on) => RawNodeCacheUse::Switch(on),
        None => RawNodeCacheUse::Address(written.value),
    };
    Some(Located {
        value,
        position: written.position,
    })
}

pub(super) fn entries<T>(
    nodes: Vec<Node>,
    list: &str,
    findings: &mut Vec<Diagnostic>,
    read: impl Fn(Position, Fields<'_>) -> T,
) -> Vec<T> {
    nodes
        .into_iter()
        .enumerate()
        .map(|(at, node)| {
            let path = format!("{list}[{}]", at + 1);
            read(node.position, Fields::open(node, path, findings))
        })
        .collect()
}

pub(super) fn registry(position: Position, mut fields: Fields<'_>) -> RawRegistry {
    let entry = RawRegistry {
        position,
        address: fields.text("address"),
        auth: auth(&mut fields),
        auth_file: fields.text("authFile"),
        auth_secret: fields.text("authSecret"),
        priority: fields.integer("priority"),
        pull_secret: fields.text("pullSecret"),
        layout: fields.text("layout"),
        mirror_of: fields.texts("mirrorOf"),
        ca_file: fields.text("caFile"),
        insecure_skip_verify: fields.boolean("insecureSkipVerify"),
    };
    fields.finish();
    entry
}

pub(super) fn redirect(position: Position, mut fields: Fields<'_>) -> RawRedirect {
    let entry = RawRedirect {
        position,
        src: fields.text("src"),
        to: fields.text("to"),
        name: fields.text("name"),
        pull_secret: fields.text("pullSecret"),
        canonical: fields.boolean("canonical"),
        auth: auth(&mut fields),
        auth_file: fields.text("authFile"),
        auth_secret: fields.text("authSecret"),
        priority: fields.integer("priority"),
        ca_file: fields.text("caFile"),
        insecure_skip_verify: fields.boolean("insecureSkipVerify"),
    };
    fields.finish();
    entry
}

pub(super) fn auth(fields: &mut Fields<'_>) -> Option<Located<RawAuth>> {
    let node = fields.node("auth")?;
    let position = node.position;
    let value = match node.value {
        Value::Scalar(pair) => RawAuth::Pair(SecretString::from(pair.trim().to_owned())),
        Value::Mapping(entries) => {
            let part = |name: &str| {
                entries.iter().find_map(|(key, node)| match &node.value {
                    Value::Scalar(text) if key.name == name => Some(text.clone()),
                    _ => None,
                })
            };
            match (part("username"), part("password")) {
                (username, password) if is_blank(&username) && is_blank(&password) => return None,
                (username, password) => RawAuth::Split {
                    username: SecretString::from(username.unwrap_or_default()),
                    password: SecretString::from(password.unwrap_or_default()),
                },
            }
        }
        Value::Sequence(items) if items.is_empty() => return None,
        _ => {
            // Never quotes what was written: it is somebody's password.
            fields.error("auth", position, "expected `user:password`");
            return None;
        }
    };
    Some(Located { value, position })
}

fn is_blank(text: &Option<String>) -> bool {
    text.as_ref().is_none_or(String::is_empty)
}
