//! The running shim at a glance.

use serde::{Deserialize, Serialize};

use super::decision::Decision;
use super::node_cache::NodeCacheStatus;
use super::place::Place;

/// State of the running shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The shim's version.
    pub version: String,
    /// When it started, RFC 3339 in UTC. Names this run: another start is another time.
    pub started_at: String,
    /// Seconds since then.
    pub uptime_seconds: u64,
    /// The socket it listens on.
    pub socket: String,
    /// Where metrics and the page are; none where nothing listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_address: Option<String>,
    /// Config.
    pub config: ConfigStatus,
    /// Container runtime.
    pub runtime: RuntimeStatus,
    /// Whether kubelet is led past the shim; none where the packages' units do not start it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bypass: Option<BypassStatus>,
    /// Files of the unit and of its environment that have changed since systemd started the shim, or the first of those
    /// that have handed over to it: only a restart brings them into force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart_needed: Vec<String>,
    /// Registries and redirect targets of the config, in the order in which they are asked.
    pub registries: Vec<RegistryStatus>,
    /// Calls of the image service that have ended since the start, forwarded ones included. Kubelet makes some when it
    /// starts and every few seconds after, so that its image endpoint can be seen to lead here.
    #[serde(default)]
    pub image_calls: u64,
    /// Counters of the caches.
    pub caches: CacheStatus,
    /// The node cache; none where none answers on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_cache: Option<NodeCacheStatus>,
    /// Pulls under way, oldest first.
    pub running: Vec<Decision>,
    /// The last decisions, newest first.
    pub decisions: Vec<Decision>,
    /// Decisions since the start, those under way included.
    pub decisions_total: u64,
}

/// State of the config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The file.
    pub file: String,
    /// Counted from 1 since the start: how many configs have been in force.
    pub generation: u64,
    /// When the one in force was taken, RFC 3339 in UTC.
    pub loaded_at: String,
    /// Where each part comes from: `file`, `ConfigMap` or `default`.
    pub parts: Vec<ConfigPart>,
    /// What is wrong with the newest config, where it is not the one in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ConfigProblem>,
    /// Whether no config is in force, since the file could not be used at start and there was no last good config:
    /// every call is forwarded as it comes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forwards_everything: bool,
}

/// One field of the config and where its value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigPart {
    /// The field: `registries`.
    pub field: String,
    /// `file`, `ConfigMap` or `default`.
    pub origin: String,
}

/// A config that could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigProblem {
    /// When it was seen, RFC 3339 in UTC.
    pub at: String,
    /// What is wrong and where; several lines where there are several mistakes.
    pub message: String,
}

/// State of the container runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeStatus {
    /// Its socket.
    pub socket: String,
    /// Whether it answers.
    pub reachable: bool,
    /// `containerd 1.7.24`; what went wrong where it doesn't answer.
    pub detail: String,
}

/// Where kubelet's link leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkTarget {
    /// To the shim.
    Shim,
    /// Past it, to the container runtime.
    Bypass,
    /// To nobody, since the config allows no bypass.
    Nowhere,
    /// Somebody else has made it, or there is none.
    Elsewhere,
}

/// Whether kubelet is led past the shim, since the node has booted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BypassStatus {
    /// Whether the config in force allows it.
    pub allowed: bool,
    /// Where kubelet's link leads now.
    pub link: LinkTarget,
    /// For how many seconds it has led away from the shim; none where it leads to the shim, or nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// How often a bypass has been in force.
    pub periods: u64,
    /// For how many seconds in all.
    pub total_seconds: u64,
    /// The last time that kubelet was led away and back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<BypassPeriod>,
}

/// A time in which kubelet was led away from the shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BypassPeriod {
    /// Where it was led.
    pub link: LinkTarget,
    /// When that ended, RFC 3339 in UTC.
    pub ended_at: String,
    /// How many seconds it lasted.
    pub seconds: u64,
}

/// Whether a registry is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryState {
    /// It has not been asked yet.
    Unknown,
    /// It answers.
    Ok,
    /// Its circuit is open: it is not asked for a while, because it failed to answer.
    CircuitOpen,
}

/// State of one registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryStatus {
    /// Its address.
    pub address: String,
    /// What kind of place it is.
    pub place: Place,
    /// Priority; none for a redirect's target that comes after the registries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// Where its credentials stand; never what they are.
    pub credentials: String,
    /// Why it has none although it should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Whether it is asked.
    pub state: RegistryState,
    /// Milliseconds until it is tried again, where its circuit is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_in_ms: Option<u64>,
    /// Failures of the registry itself in a row, since its last answer. What fails for one image is not
    /// counted.
    pub failures: u32,
    /// What it said last, or why it said nothing.
    pub detail: String,
    /// How long its last answer took, or the last wait for one, in microseconds.
    pub latency_us: u64,
    /// Times that it was asked for a manifest, since the shim's start or since it came into the config.
    pub probes: u64,
    /// How many of `probes` found the image.
    pub hits: u64,
    /// Pulls from there that succeeded, since the same time.
    pub pulls: u64,
}

/// Counters of the caches, all from the start of the process to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Resolutions that asked nobody.
    pub image_hits: u64,
    /// Resolutions that asked somebody.
    pub image_misses: u64,
    /// Images forgotten because the memory was full.
    pub image_evictions: u64,
    /// Answers dropped because a pull showed them wrong, and clearings of the whole memory.
    pub invalidations: u64,
    /// Probes that knew how to talk to the registry already.
    pub domain_hits: u64,
    /// Probes that had to find out.
    pub domain_misses: u64,
    /// Registries forgotten because the memory was full.
    pub domain_evictions: u64,
}
