//! The section `nodeCache`: how the cache of a node runs.
//!
//! That the section is written switches nothing on: the cache is a role of its own, and the shim asks it
//! only where `useNodeCache` or an entry of `registries` says so.

mod raw;
mod size;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::bounds::Time;
use super::diagnostic::Diagnostic;
use super::fields::Located;
use super::reader::{Reader, listen_address};
use crate::{Credentials, host};

pub use raw::{RawCacheTls, RawNodeCache, RawS3Credentials, RawS3Store};
pub use size::Size;

/// Where the cache answers when nothing else is written.
const PORT: u16 = 7439;
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7442);
/// Transfers from one upstream host at most; more connections for one blob would only wait.
const MAX_PARALLEL: i64 = 16;
const MIB: u64 = 1024 * 1024;
/// Below this size a second connection costs more than it brings.
const SHORTEST_PARALLEL: u64 = 64 * 1024;

const TAG_TTL: Time = Time::seconds(0, 1, 30 * 24 * 3_600);
const MAX_STALE: Time = Time::seconds(0, 1, 10 * 365 * 24 * 3_600);
const AUTH_STALE: Time = Time::seconds(24 * 3_600, 1, 365 * 24 * 3_600);
const AUTH_TTL: Time = Time::seconds(5 * 60, 1, 24 * 3_600);
/// Below the floor, what one node is uploading could be deleted under its hands.
const UNUSED_FOR: Time = Time::seconds(30 * 24 * 3_600, 3_600, 10 * 365 * 24 * 3_600);

/// What the config says to the node cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCache {
    /// Where it listens. Default `127.0.0.1:7439` and `[::1]:7439`. Read at start only.
    pub listen: Vec<ListenAddress>,
    /// Further names by which clients may ask for it (the `Host` header). Default none.
    pub names: Vec<String>,
    /// Networks that may ask when it listens beyond loopback. Default: everybody who reaches it.
    pub allow: Vec<IpNet>,
    /// Certificate and key. Default: plain HTTP.
    pub tls: Option<CacheTls>,
    /// Directory of the store. Default `/var/lib/image-cri-shim/cache`. Read at start only.
    pub dir: PathBuf,
    /// Size of the store; `None` is half of what is free plus what the store holds, at start.
    pub max_size: Option<Size>,
    /// What stays free on the file system. Default 10 %.
    pub min_free: Size,
    /// How long a tag is served without asking upstream whether it moved. Default 0: never.
    pub tag_ttl: Duration,
    /// How long a tag is served after upstream confirmed it last; `None` is without end, the default.
    pub max_stale: Option<Duration>,
    /// How long what upstream refuses to the config's credentials is served. Default 24 hours.
    pub auth_stale: Duration,
    /// Whether a tag that no upstream has any more is served. Default false.
    pub serve_deleted: bool,
    /// How long a proof of a caller's right is remembered. Default 5 minutes.
    pub auth_ttl: Duration,
    /// Connections that fetch one blob, 1 to 16. Default 4.
    pub parallel: usize,
    /// Size in bytes from which a blob is fetched over several connections. Default 32 MiB.
    pub parallel_above: u64,
    /// A store that several nodes share. Default none.
    pub s3: Option<S3Store>,
    /// Where metrics are served; `None` is nowhere (`off`). Default `127.0.0.1:7442`.
    pub metrics_address: Option<SocketAddr>,
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// The address.
    pub address: SocketAddr,
    /// Whether it is an error that it can't be had. A default one may be missing: not every node has IPv6.
    pub required: bool,
}

/// Files that TLS needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheTls {
    /// PEM file with the certificate and its chain.
    pub cert_file: PathBuf,
    /// PEM file with the key.
    pub key_file: PathBuf,
    /// PEM file with CAs: only clients with a certificate by one of them are answered.
    pub client_ca: Option<PathBuf>,
}

/// An S3-compatible bucket that several caches share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Store {
    /// The bucket's name.
    pub bucket: String,
    /// URL of the server; `None` is AWS.
    pub endpoint: Option<String>,
    /// Region; `None` is what the environment says.
    pub region: Option<String>,
    /// Start of every key in the bucket, without `/` at its ends; may be empty.
    pub prefix: String,
    /// Whether the bucket stands in the URL's path instead of the host's name. Default true with an
    /// `endpoint`, else false.
    pub path_style: bool,
    /// PEM file with CAs that its certificate may be by, besides the system's. Default none.
    pub ca_file: Option<PathBuf>,
    /// How long `cache gc --shared` keeps what no tag names. Default 30 days, at least one hour.
    pub unused_for: Duration,
    /// Access key; `None` is what the environment or the machine gives.
    pub credentials: Option<S3Credentials>,
}

/// An access key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Credentials {
    /// Key's ID as user name, secret as password.
    pub key: Credentials,
    /// Session token as password, where the key is a temporary one.
    pub session_token: Option<Credentials>,
}

impl Default for NodeCache {
    fn default() -> Self {
        Self {
            listen: default_listen(),
            names: Vec::new(),
            allow: Vec::new(),
            tls: None,
            dir: PathBuf::from("/var/lib/image-cri-shim/cache"),
            max_size: None,
            min_free: Size::percent(10),
            tag_ttl: TAG_TTL.default,
            max_stale: None,
            auth_stale: AUTH_STALE.default,
            serve_deleted: false,
            auth_ttl: AUTH_TTL.default,
            parallel: 4,
            parallel_above: 32 * MIB,
            s3: None,
            metrics_address: Some(METRICS),
        }
    }
}

fn default_listen() -> Vec<ListenAddress> {
    let loopback = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    loopback
        .into_iter()
        .map(|ip| ListenAddress {
            address: SocketAddr::new(ip, PORT),
            required: false,
        })
        .collect()
}

impl NodeCache {
    /// Why the cache must not start with this config: what other machines can reach carries the
    /// `Authorization` header of Pods.
    pub fn refusal(&self) -> Option<String> {
        let beyond = self
            .listen
            .iter()
            .find(|listen| !listen.address.ip().is_loopback())?;
        let address = beyond.address;
        let Some(tls) = &self.tls else {
            return Some(format!(
                "{address} can be reached from other machines, which needs TLS; write `tls: {{certFile: …, keyFile: …}}`"
            ));
        };
        if tls.client_ca.is_none() && self.allow.is_empty() {
            return Some(format!(
                "{address} can be reached from other machines; write who may ask: `tls.clientCA` or `allow: [CIDR, …]`"
            ));
        }
        None
    }

    pub(super) fn read(raw: &RawNodeCache, reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        let cache = Self {
            listen: reader.cache_listen(raw),
            names: reader.cache_names(raw),
            allow: reader.cache_allow(raw),
            tls: reader.cache_tls(raw),
            dir: raw.dir.as_ref().map_or(default.dir, |dir| {
                reader.directory(dir, "nodeCache.dir").unwrap_or_default()
            }),
            max_size: reader.size(raw.max_size.as_ref(), "nodeCache.maxSize", MIB, 100),
            min_free: reader
                .size(raw.min_free.as_ref(), "nodeCache.minFree", MIB, 95)
                .unwrap_or(default.min_free),
            tag_ttl: reader.time(raw.tag_ttl.as_ref(), "nodeCache.tagTTL", TAG_TTL),
            max_stale: Some(reader.time(raw.max_stale.as_ref(), "nodeCache.maxStale", MAX_STALE))
                .filter(|stale| !stale.is_zero()),
            auth_stale: reader.time(raw.auth_stale.as_ref(), "nodeCache.authStale", AUTH_STALE),
            serve_deleted: raw.serve_deleted.as_ref().is_some_and(|s| s.value),
            auth_ttl: reader.time(raw.auth_ttl.as_ref(), "nodeCache.authTTL", AUTH_TTL),
            parallel: match raw.parallel.as_ref().filter(|parallel| parallel.value != 0) {
                Some(written) => {
                    let used = reader.number(written, "nodeCache.parallel", 1, MAX_PARALLEL);
                    usize::try_from(used).unwrap_or(default.parallel)
                }
                None => default.parallel,
            },
            parallel_above: reader
                .bytes(raw.parallel_above.as_ref(), "nodeCache.parallelAbove")
                .unwrap_or(default.parallel_above),
            s3: raw.s3.as_ref().and_then(|s3| reader.s3(s3)),
            metrics_address: match &raw.metrics_address {
                Some(written) => reader.address_or_off(written, "nodeCache.metricsAddress"),
                None => default.metrics_address,
            },
        };
        if let (Some(why), Some(listen)) = (cache.refusal(), &raw.listen) {
            let message = format!("the cache refuses to start: {why}");
            reader.findings.push(Diagnostic::warning(
                listen.position,
                "nodeCache.listen",
                message,
            ));
        }
        cache
    }
}

impl Reader<'_> {
    fn error(&mut self, written: &Located<String>, field: &str, message: &str) {
        self.findings
            .push(Diagnostic::error(written.position, field, message));
    }

    fn cache_listen(&mut self, raw: &RawNodeCache) -> Vec<ListenAddress> {
        const FIELD: &str = "nodeCache.listen";
        let mut addresses = Vec::new();
        for written in self.entries(raw.listen.as_ref(), FIELD) {
            match listen_address(written.value.trim()) {
                Some(address) => addresses.push(ListenAddress {
                    address,
                    required: true,
                }),
                None => self.error(
                    written,
                    FIELD,
                    "not an address to listen on; write `127.0.0.1:7439`",
                ),
            }
        }
        if addresses.is_empty() {
            return default_listen();
        }
        addresses
    }

    fn cache_names(&mut self, raw: &RawNodeCache) -> Vec<String> {
        const FIELD: &str = "nodeCache.names";
        let mut names = Vec::new();
        for written in self.entries(raw.names.as_ref(), FIELD) {
            let name = written.value.trim().to_ascii_lowercase();
            if host::is_domain(&name) {
                names.push(name);
            } else {
                self.error(written, FIELD, "not a host; write `host` or `host:port`");
            }
        }
        names
    }

    fn cache_allow(&mut self, raw: &RawNodeCache) -> Vec<IpNet> {
        const FIELD: &str = "nodeCache.allow";
        let mut networks = Vec::new();
        for written in self.entries(raw.allow.as_ref(), FIELD) {
            let text = written.value.trim();
            let network = text
                .parse::<IpNet>()
                .or_else(|error| text.parse::<IpAddr>().map(IpNet::from).map_err(|_| error));
            match network {
                Ok(network) => networks.push(network.trunc()),
                Err(_) => self.error(
                    written,
                    FIELD,
                    "not a network; write an address or a CIDR such as `10.0.0.0/8`",
                ),
            }
        }
        networks
    }

    fn cache_tls(&mut self, raw: &RawNodeCache) -> Option<CacheTls> {
        let tls = raw.tls.as_ref()?;
        let path = |written: &Located<String>| PathBuf::from(written.value.trim());
        match (&tls.value.cert_file, &tls.value.key_file) {
            (Some(cert), Some(key)) => Some(CacheTls {
                cert_file: path(cert),
                key_file: path(key),
                client_ca: tls.value.client_ca.as_ref().map(path),
            }),
            (None, None) if tls.value.client_ca.is_none() => None,
            _ => {
                let message = "needs `certFile` and `keyFile`";
                self.findings
                    .push(Diagnostic::error(tls.position, "nodeCache.tls", message));
                None
            }
        }
    }

    fn directory(&mut self, written: &Located<String>, field: &str) -> Option<PathBuf> {
        let text = written.value.trim();
        if text.starts_with('/') {
            return Some(PathBuf::from(text));
        }
        self.error(written, field, "not an absolute path; write `/var/lib/…`");
        None
    }

    /// A size of at least `floor` bytes or at most `ceiling` percent; zero is the default.
    fn size(
        &mut self,
        written: Option<&Located<String>>,
        field: &str,
        floor: u64,
        ceiling: u16,
    ) -> Option<Size> {
        let written = written?;
        let Some(size) = Size::parse(written.value.trim()) else {
            self.error(
                written,
                field,
                "not a size; write bytes, a quantity such as `50Gi`, or a percentage such as `10%`",
            );
            return None;
        };
        if size.is_zero() {
            return None;
        }
        let used = size.clamped(floor, ceiling);
        if used != size {
            self.bounded(written, field, &used.to_string());
        }
        Some(used)
    }

    /// A size that is no share of anything.
    fn bytes(&mut self, written: Option<&Located<String>>, field: &str) -> Option<u64> {
        match self.size(written, field, SHORTEST_PARALLEL, 100)? {
            Size::Bytes(bytes) => Some(bytes),
            Size::Share(_) => {
                let message = "a number of bytes is wanted here, not a percentage";
                self.error(written?, field, message);
                None
            }
        }
    }

    fn s3(&mut self, raw: &Located<RawS3Store>) -> Option<S3Store> {
        let s3 = &raw.value;
        let text =
            |written: &Option<Located<String>>| written.as_ref().map(|w| w.value.trim().to_owned());
        let Some(bucket) = text(&s3.bucket) else {
            let message = "needs a `bucket`";
            self.findings.push(Diagnostic::error(
                raw.position,
                "nodeCache.store.s3",
                message,
            ));
            return None;
        };
        let endpoint = text(&s3.endpoint);
        if let Some(written) = &s3.endpoint {
            let text = written.value.trim();
            let is_url = text.starts_with("http://") || text.starts_with("https://");
            if !is_url || text.contains('@') {
                self.error(
                    written,
                    "nodeCache.store.s3.endpoint",
                    "not the URL of an S3 server; write `https://host:port`, and credentials under `credentials`",
                );
            }
        }
        Some(S3Store {
            bucket,
            path_style: s3
                .path_style
                .as_ref()
                .map_or(endpoint.is_some(), |path_style| path_style.value),
            endpoint,
            region: text(&s3.region),
            prefix: text(&s3.prefix)
                .unwrap_or_default()
                .trim_matches('/')
                .to_owned(),
            ca_file: s3
                .ca_file
                .as_ref()
                .and_then(|file| self.directory(file, "nodeCache.store.s3.caFile")),
            unused_for: self.time(
                s3.unused_for.as_ref(),
                "nodeCache.store.s3.unusedFor",
                UNUSED_FOR,
            ),
            credentials: s3.credentials.as_ref().and_then(|c| self.s3_credentials(c)),
        })
    }
}
