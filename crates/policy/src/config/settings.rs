//! The config as it is meant: defaults filled in, addresses and credentials understood, rules sorted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::auth::CredentialPlugins;
use super::bounds;
use super::diagnostic::Diagnostic;
use super::fields::Located;
use super::node_cache::NodeCache;
use super::raw::{RawCache, RawConfig, RawNodeCacheUse, RawRedirect, RawRegistry};
use super::reader::{Environment, Reader};
use super::webhook::{self, WebhookSettings};
use crate::endpoint::without_credentials;
use crate::host::{self, canonical_host};
use crate::public_hosts;
use crate::rules::{
    EntryKind, MirrorOf, OFFLINE_PRIORITY, Priority, REGISTRY_PRIORITY, Redirect, Registry, Rules,
};
use crate::{Credentials, Endpoint, Layout, TlsOptions, reference};

/// What the config means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Socket we listen on. Default `/var/run/image-cri-shim.sock`.
    pub shim_socket: PathBuf,
    /// Socket of the runtime; `None` means: look for one.
    pub runtime_socket: Option<PathBuf>,
    /// Start although the runtime's socket isn't there yet. Default false.
    pub force: bool,
    /// Debug logs. Default false.
    pub debug: bool,
    /// Upper bound on one forwarded image call, 5 seconds to 24 hours. Default 15 minutes.
    pub timeout: Duration,
    /// How often the file is looked at without an event, and the API server is asked while no watch
    /// stands; 1 second to 24 hours. Default 15 seconds.
    pub reload_interval: Duration,
    /// Deadline of one probe, 100 milliseconds to 30 seconds. Default 2 seconds.
    pub probe_timeout: Duration,
    /// Whether kubelet is led past the shim, to the runtime, while the shim is down. False where the config says
    /// `bypass: false`, and always with `fallbackToOrigin: false`. Default true.
    pub bypass: bool,
    /// Whether a shim that systemd starts refuses to start where the file can't be used, in place of using the last good
    /// config. Default false.
    pub strict: bool,
    /// Whether an image from a mirror also gets the name that was asked for in the runtime. Default true.
    pub original_names: bool,
    /// Whether such an image keeps the mirror's name where no container needs it. Default true.
    pub keep_mirror_names: bool,
    /// Where metrics and the page are served; `None` is nowhere (`off`). Default `127.0.0.1:7441`.
    pub metrics_address: Option<SocketAddr>,
    /// Directory for state. Default `/var/lib/image-cri-shim`.
    pub state_dir: PathBuf,
    /// Where kubelet's credential-provider plugins are described, and where they stand; `None`
    /// where none are used.
    pub credential_plugins: Option<CredentialPlugins>,
    /// The `cache` group.
    pub cache: CacheSettings,
    /// What concerns the node cache alone.
    pub node_cache: NodeCache,
    /// What concerns the admission webhook alone.
    pub webhook: WebhookSettings,
    /// Registries in the order of the file, the offline one first; for logs.
    pub configured: Vec<Registry>,
    /// Registries and redirects.
    pub rules: Rules,
}

/// The `cache` group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Remembered resolutions, at most 1,000,000; 0 is off. Default 1024.
    pub image_cache_size: u64,
    /// How long a found image is remembered, 1 second to 30 days. Default 30 minutes.
    pub image_cache_ttl: Duration,
    /// How long what is known about a registry is remembered, 1 second to 30 days. Default 10 minutes.
    pub domain_cache_ttl: Duration,
    /// How long an absent image is remembered, 1 second to 24 hours. Default 30 seconds.
    pub negative_ttl: Duration,
    /// How often the counters are logged, 1 second to 24 hours; `None` is never. Default one minute.
    pub stats_log_interval: Option<Duration>,
}

/// Where the node cache of this node answers the shim (`useNodeCache: true`).
const NODE_CACHE_ADDRESS: &str = "http://localhost:7439";

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            image_cache_size: 1024,
            image_cache_ttl: bounds::IMAGE_CACHE_TTL.default,
            domain_cache_ttl: bounds::DOMAIN_CACHE_TTL.default,
            negative_ttl: bounds::NEGATIVE_TTL.default,
            stats_log_interval: Some(bounds::STATS_LOG_INTERVAL.default),
        }
    }
}

const DEFAULT_METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7441);

impl Settings {
    /// Reads a file's text. Findings are sorted by their place; with an error among them the
    /// settings are not to be used.
    pub fn read(text: &str, environment: &Environment<'_>) -> (Self, Vec<Diagnostic>) {
        let (_, settings, findings) = Self::read_with_raw(text, environment);
        (settings, findings)
    }

    /// As [`Settings::read`], with what was written.
    pub fn read_with_raw(
        text: &str,
        environment: &Environment<'_>,
    ) -> (RawConfig, Self, Vec<Diagnostic>) {
        let (raw, mut findings) = RawConfig::read(text);
        let (settings, meant) = Self::from_raw(&raw, environment);
        findings.extend(meant);
        findings.sort_by_key(|finding| finding.position);
        if settings.rules.is_empty() && !findings.iter().any(Diagnostic::is_error) {
            let message = "nothing is routed: neither `address` nor `registries` nor \
                           `imageRedirMapping` names a place; every pull goes to its origin";
            findings.push(Diagnostic::warning(None, "", message));
        }
        (raw, settings, findings)
    }

    /// What `raw` means. Findings are in the order of the fields; with an error among them the
    /// settings are not to be used.
    pub fn from_raw(raw: &RawConfig, environment: &Environment<'_>) -> (Self, Vec<Diagnostic>) {
        let mut reader = Reader {
            environment,
            findings: Vec::new(),
        };
        let mut registries: Vec<Registry> = reader.offline(raw).into_iter().collect();
        registries.extend(reader.node_cache(raw));
        let entries = reader.entries(raw.registries.as_ref(), "registries");
        for (at, entry) in entries.iter().enumerate() {
            registries.extend(reader.registry(entry, at + 1));
        }
        let mut redirects = Vec::new();
        let entries = reader.entries(raw.redirects.as_ref(), "imageRedirMapping");
        for (at, entry) in entries.iter().enumerate() {
            redirects.extend(reader.redirect(entry, at + 1));
        }
        let shim_socket = reader
            .socket(raw.shim.as_ref(), "shim")
            .unwrap_or_else(|| PathBuf::from("/var/run/image-cri-shim.sock"));
        let runtime_socket = reader.socket(raw.cri.as_ref(), "cri");
        if runtime_socket.as_ref() == Some(&shim_socket) {
            let message = "is the same as `shim`; write the socket of the runtime itself";
            let position = raw.cri.as_ref().map(|cri| cri.position).unwrap_or_default();
            reader
                .findings
                .push(Diagnostic::error(position, "cri", message));
        }
        let fallback = raw.fallback_to_origin.as_ref().is_none_or(|f| f.value);
        let settings = Self {
            shim_socket,
            runtime_socket,
            force: raw.force.as_ref().is_some_and(|f| f.value),
            debug: raw.debug.as_ref().is_some_and(|d| d.value),
            timeout: reader.time(raw.timeout.as_ref(), "timeout", bounds::TIMEOUT),
            reload_interval: reader.time(
                raw.reload_interval.as_ref(),
                "reloadInterval",
                bounds::RELOAD_INTERVAL,
            ),
            probe_timeout: reader.time(
                raw.probe_timeout.as_ref(),
                "probeTimeout",
                bounds::PROBE_TIMEOUT,
            ),
            bypass: fallback && raw.bypass.as_ref().is_none_or(|b| b.value),
            strict: raw.strict.as_ref().is_some_and(|s| s.value),
            original_names: raw.original_names.as_ref().is_none_or(|o| o.value),
            keep_mirror_names: raw.keep_mirror_names.as_ref().is_none_or(|k| k.value),
            metrics_address: reader.metrics_address(raw),
            state_dir: raw.image.as_ref().map_or_else(
                || PathBuf::from("/var/lib/image-cri-shim"),
                |dir| PathBuf::from(dir.value.trim()),
            ),
            credential_plugins: reader.credential_plugins(raw),
            cache: reader.cache(&raw.cache),
            node_cache: NodeCache::read(&raw.node_cache, &mut reader),
            webhook: WebhookSettings::read(raw, &mut reader.findings),
            configured: registries.clone(),
            rules: Rules::new(registries, redirects, fallback),
        };
        (settings, reader.findings)
    }
}

impl Reader<'_> {
    fn cache(&mut self, cache: &RawCache) -> CacheSettings {
        let image_cache_size = match &cache.image_cache_size {
            Some(written) if written.value != 0 => {
                let ceiling = i64::try_from(bounds::MAX_IMAGES).unwrap_or(i64::MAX);
                // Any number below zero turns it off.
                let used = self.number(written, "cache.imageCacheSize", i64::MIN, ceiling);
                u64::try_from(used).unwrap_or(0)
            }
            _ => CacheSettings::default().image_cache_size,
        };
        let interval = self.time(
            cache.stats_log_interval.as_ref(),
            "cache.statsLogInterval",
            bounds::STATS_LOG_INTERVAL,
        );
        let is_off = cache.disable_stats.as_ref().is_some_and(|d| d.value);
        CacheSettings {
            image_cache_size,
            image_cache_ttl: self.time(
                cache.image_cache_ttl.as_ref(),
                "cache.imageCacheTTL",
                bounds::IMAGE_CACHE_TTL,
            ),
            domain_cache_ttl: self.time(
                cache.domain_cache_ttl.as_ref(),
                "cache.domainCacheTTL",
                bounds::DOMAIN_CACHE_TTL,
            ),
            negative_ttl: self.time(
                cache.negative_ttl.as_ref(),
                "cache.negativeTTL",
                bounds::NEGATIVE_TTL,
            ),
            stats_log_interval: (!is_off).then_some(interval),
        }
    }

    fn offline(&mut self, raw: &RawConfig) -> Option<Registry> {
        let address = raw.address.as_ref()?;
        let (endpoint, inline) = self.endpoint(address, "address")?;
        let written = raw.auth.is_some() || inline.is_some();
        let priority = self.priority(
            raw.offline_priority.as_ref(),
            OFFLINE_PRIORITY,
            "offlinePriority",
        );
        Some(Registry {
            kind: EntryKind::Offline,
            address: without_credentials(&address.value),
            mirror_of: default_mirror_of(&endpoint),
            endpoint,
            priority,
            default_priority: is_default(raw.offline_priority.as_ref()),
            layout: Layout::default(),
            credentials: self.credentials(raw.auth.as_ref(), "auth").or(inline),
            source: self.source(written, &raw.auth_file, &raw.auth_secret, "auth"),
            note: None,
            tls: TlsOptions::default(),
            pull_secret: None,
        })
    }

    /// `useNodeCache` is a short form of an entry of `registries`.
    fn node_cache(&mut self, raw: &RawConfig) -> Option<Registry> {
        let written = raw.use_node_cache.as_ref()?;
        let address = match &written.value {
            RawNodeCacheUse::Switch(false) => return None,
            RawNodeCacheUse::Switch(true) => NODE_CACHE_ADDRESS.to_owned(),
            RawNodeCacheUse::Address(address) => address.clone(),
        };
        let address = Located {
            value: address,
            position: written.position,
        };
        let (endpoint, credentials) = self.endpoint(&address, "useNodeCache")?;
        Some(Registry {
            kind: EntryKind::NodeCache,
            address: without_credentials(&address.value),
            endpoint,
            priority: Priority::MAX,
            default_priority: false,
            mirror_of: MirrorOf::Any,
            layout: Layout::Host,
            credentials,
            source: None,
            note: None,
            tls: TlsOptions::default(),
            pull_secret: None,
        })
    }

    fn registry(&mut self, raw: &RawRegistry, number: usize) -> Option<Registry> {
        let field = |name: &str| format!("registries[{number}].{name}");
        let Some(address) = &raw.address else {
            let message = "no address, so the entry is ignored; write `address: host[:port]`";
            let path = format!("registries[{number}]");
            self.findings
                .push(Diagnostic::warning(raw.position, path, message));
            return None;
        };
        let (endpoint, inline) = self.endpoint(address, &field("address"))?;
        let written = raw.auth.is_some() || inline.is_some();
        let mirror_of = match &raw.mirror_of {
            Some(list) => self.mirror_of(list, &field("mirrorOf")),
            None => {
                self.hint_at_mirror(address, &endpoint, &field("mirrorOf"));
                default_mirror_of(&endpoint)
            }
        };
        Some(Registry {
            kind: EntryKind::Listed(number),
            address: without_credentials(&address.value),
            priority: self.priority(raw.priority.as_ref(), REGISTRY_PRIORITY, &field("priority")),
            default_priority: is_default(raw.priority.as_ref()),
            mirror_of,
            layout: self.layout(raw.layout.as_ref(), &field("layout")),
            pull_secret: self.pull_secret(raw.pull_secret.as_ref(), &field("pullSecret")),
            endpoint,
            credentials: self
                .credentials(raw.auth.as_ref(), &field("auth"))
                .or(inline),
            source: self.source(written, &raw.auth_file, &raw.auth_secret, &field("auth")),
            note: None,
            tls: tls(raw.ca_file.as_ref(), raw.insecure_skip_verify.as_ref()),
        })
    }

    fn redirect(&mut self, raw: &RawRedirect, number: usize) -> Option<Redirect> {
        let field = |name: &str| format!("imageRedirMapping[{number}].{name}");
        let (Some(src), Some(to)) = (&raw.src, &raw.to) else {
            let message = "a redirect needs `src` and `to`; the entry is ignored";
            let path = format!("imageRedirMapping[{number}]");
            self.findings
                .push(Diagnostic::warning(raw.position, path, message));
            return None;
        };
        let Some((src_domain, src_path)) = prefix(&src.value) else {
            let message = "not a prefix of image names; write a host and maybe a path, such as `docker.io/bitnami/`";
            self.findings
                .push(Diagnostic::error(src.position, field("src"), message));
            return None;
        };
        let (to, inline) = self.endpoint(to, &field("to"))?;
        let written = raw.auth.is_some() || inline.is_some();
        let priority = raw
            .priority
            .as_ref()
            .filter(|p| p.value != 0)
            .map(|written| self.priority(Some(written), REGISTRY_PRIORITY, &field("priority")));
        Some(Redirect {
            number,
            src_domain,
            src_path,
            to,
            name: raw.name.as_ref().map(|name| name.value.trim().to_owned()),
            pull_secret: self.pull_secret(raw.pull_secret.as_ref(), &field("pullSecret")),
            canonical: raw.canonical.as_ref().is_some_and(|c| c.value),
            priority,
            credentials: self
                .credentials(raw.auth.as_ref(), &field("auth"))
                .or(inline),
            source: self.source(written, &raw.auth_file, &raw.auth_secret, &field("auth")),
            note: None,
            tls: tls(raw.ca_file.as_ref(), raw.insecure_skip_verify.as_ref()),
        })
    }

    fn endpoint(
        &mut self,
        address: &Located<String>,
        field: &str,
    ) -> Option<(Endpoint, Option<Credentials>)> {
        match Endpoint::parse(&address.value) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.findings.push(Diagnostic::error(
                    address.position,
                    field,
                    error.to_string(),
                ));
                None
            }
        }
    }

    fn priority(
        &mut self,
        written: Option<&Located<i64>>,
        default: Priority,
        field: &str,
    ) -> Priority {
        let (priority, clamped) = Priority::from_written(written.map(|w| w.value), default);
        if let Some(written) = written.filter(|_| clamped) {
            let message = format!(
                "{} is out of range; {} is used (priorities go from 1 to 10000)",
                written.value,
                priority.get()
            );
            self.findings
                .push(Diagnostic::warning(written.position, field, message));
        }
        priority
    }

    fn pull_secret(&mut self, written: Option<&Located<String>>, field: &str) -> Option<String> {
        webhook::pull_secret(written, field, &mut self.findings)
    }

    fn layout(&mut self, written: Option<&Located<String>>, field: &str) -> Layout {
        let Some(written) = written else {
            return Layout::default();
        };
        Layout::parse(written.value.trim()).unwrap_or_else(|| {
            let message = "neither `host` (images below their host's name) nor `repository`";
            self.findings
                .push(Diagnostic::error(written.position, field, message));
            Layout::default()
        })
    }

    /// A public mirror of one registry has nothing to say about the images of others.
    fn hint_at_mirror(&mut self, address: &Located<String>, endpoint: &Endpoint, field: &str) {
        if let Some(mirrored) = public_hosts::mirrored_at(endpoint.host()) {
            let message = format!(
                "missing: {} is a public mirror of {mirrored}; write `mirrorOf: [{mirrored}]`, so that it is asked for those images, and can't answer for others",
                endpoint.host()
            );
            self.findings
                .push(Diagnostic::warning(address.position, field, message));
        }
    }

    fn mirror_of(&mut self, hosts: &Located<Vec<Located<String>>>, field: &str) -> MirrorOf {
        let mut known = Vec::new();
        for host in self.entries(Some(hosts), field) {
            let text = host.value.trim().trim_end_matches('/');
            if text == "*" {
                return MirrorOf::Any;
            }
            if host::is_domain(text) {
                if !text.contains(['.', ':']) && !text.eq_ignore_ascii_case("localhost") {
                    let message = "a host of one word; image names write it with its port, so no image is of this host: write `host:port`";
                    self.findings
                        .push(Diagnostic::warning(host.position, field, message));
                }
                known.push(canonical_host(text).to_owned());
            } else {
                let message = "not a host; write `host[:port]` or `\"*\"`";
                self.findings
                    .push(Diagnostic::error(host.position, field, message));
            }
        }
        MirrorOf::Hosts(known)
    }

    /// A unix socket's path; `unix://` and `unix:` before it are fine.
    fn socket(&mut self, written: Option<&Located<String>>, field: &str) -> Option<PathBuf> {
        let written = written?;
        let text = written.value.trim();
        let path = text
            .strip_prefix("unix://")
            .or_else(|| text.strip_prefix("unix:"))
            .unwrap_or(text);
        if path.starts_with('/') {
            return Some(PathBuf::from(path));
        }
        let message = "not a unix socket's absolute path; write `/run/….sock`";
        self.findings
            .push(Diagnostic::error(written.position, field, message));
        None
    }

    fn metrics_address(&mut self, raw: &RawConfig) -> Option<SocketAddr> {
        let Some(written) = &raw.metrics_address else {
            return Some(DEFAULT_METRICS);
        };
        self.address_or_off(written, "metricsAddress")
    }
}

fn is_default(written: Option<&Located<i64>>) -> bool {
    written.is_none_or(|written| written.value == 0)
}

fn tls(ca_file: Option<&Located<String>>, skip: Option<&Located<bool>>) -> TlsOptions {
    TlsOptions {
        ca_file: ca_file.map(|file| PathBuf::from(file.value.trim())),
        insecure_skip_verify: skip.is_some_and(|skip| skip.value),
        or_plain: false,
    }
}

/// Rule 5: a public registry serves its own images, a private one everybody's.
fn default_mirror_of(endpoint: &Endpoint) -> MirrorOf {
    if public_hosts::is_public(endpoint.host(), endpoint.path()) {
        MirrorOf::Hosts(vec![endpoint.host().to_owned()])
    } else {
        MirrorOf::Any
    }
}

/// `src` of a redirect: canonical host, and repository prefix as written. A prefix without host is
/// Docker Hub's, as an image name without host is.
fn prefix(written: &str) -> Option<(String, String)> {
    let text = written.trim().trim_end_matches('/');
    let (first, rest) = text.split_once('/').unwrap_or((text, ""));
    let named =
        first.contains(['.', ':']) || first == "localhost" || first.chars().any(char::is_uppercase);
    let (domain, path) = if named {
        (first, rest)
    } else {
        ("docker.io", text)
    };
    let fits = host::is_domain(domain) && (path.is_empty() || reference::is_repository(path));
    fits.then(|| (canonical_host(domain).to_owned(), path.to_owned()))
}
