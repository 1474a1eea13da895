//! What the running shim knows, put together for whoever asks: the commands over its socket, browsers
//! and scrapers over `metricsAddress`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use config::ConfigState;
use cri::grpc::{Code, Status as GrpcStatus};
use cri::inspect::{Inspect, unknown};
use cri::upstream::Upstream;
use futures_util::future::BoxFuture;
use installer::bypass::Bypass;
use policy::breaker::State;
use policy::config::Settings;
use policy::rules::{Redirect, Registry};
use policy::{CandidateKind, CredentialSource, Credentials, Endpoint, TlsOptions};
use resolver::explain::explain;
use resolver::{RegistryHealth, Resolver};
use serde::Serialize;
use serde::de::DeserializeOwned;
use telemetry::Telemetry;
use telemetry::history::is_about;
use telemetry::live::Live;
use telemetry::report::{
    CacheStatus, Decision, Knowledge, Place, RegistryState, RegistryStatus, RuntimeStatus, Status,
    micros, timestamp,
};
use tokio::runtime::Handle;

use super::bypass;
use super::handover::give::HandOver;
use crate::node_cache;
use crate::requests::{ExplainRequest, HandOverRequest, HistoryRequest, StatusRequest};

/// How long the runtime may take to say who it is.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an explanation may take: far above any time-out of a probe.
const EXPLAIN_TIMEOUT: Duration = Duration::from_secs(120);
/// Decisions that a status has, unless it is asked for another number.
pub(crate) const DECISIONS: usize = 100;

/// The running shim, to look at. Cheap to clone; clones share everything.
#[derive(Clone)]
pub(crate) struct Inspection {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Arc<ArcSwap<Settings>>,
    socket: PathBuf,
    resolver: Resolver,
    telemetry: Telemetry,
    config: ConfigState,
    upstream: Upstream,
    /// Where the registries are asked.
    background: Handle,
    started: (SystemTime, Instant),
    /// Where metrics and the page are; none where nothing listens.
    metrics_address: ArcSwap<Option<String>>,
    leads_past: bool,
    hand_over: HandOver,
}

/// What an [`Inspection`] looks at.
pub(crate) struct Parts {
    pub(crate) settings: Arc<ArcSwap<Settings>>,
    /// The socket we listen on.
    pub(crate) socket: PathBuf,
    pub(crate) resolver: Resolver,
    pub(crate) telemetry: Telemetry,
    pub(crate) config: ConfigState,
    pub(crate) upstream: Upstream,
    pub(crate) background: Handle,
    /// Whether a script of the packages leads kubelet past the socket while nobody serves it.
    pub(crate) leads_past: bool,
    pub(crate) hand_over: HandOver,
}

impl Inspection {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            shared: Arc::new(Shared {
                settings: parts.settings,
                socket: parts.socket,
                resolver: parts.resolver,
                telemetry: parts.telemetry,
                config: parts.config,
                upstream: parts.upstream,
                background: parts.background,
                started: (SystemTime::now(), Instant::now()),
                metrics_address: ArcSwap::default(),
                leads_past: parts.leads_past,
                hand_over: parts.hand_over,
            }),
        }
    }

    /// What this shim has to hand over.
    pub(crate) fn hand_over(&self) -> &HandOver {
        &self.shared.hand_over
    }

    /// Notes where metrics and the page are.
    pub(crate) fn listening_on(&self, address: String) {
        self.shared.metrics_address.store(Arc::new(Some(address)));
    }

    /// Notes that metrics and the page are nowhere.
    pub(crate) fn not_listening(&self) {
        self.shared.metrics_address.store(Arc::default());
    }

    /// All of it, with the last `decisions` decisions.
    pub(crate) async fn status(&self, decisions: usize) -> Status {
        let shared = &self.shared;
        let settings = shared.settings.load_full();
        let history = shared.telemetry.history();
        let (started, since) = shared.started;
        let (runtime, node_cache) = tokio::join!(self.runtime(), node_cache::status());
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: timestamp(started),
            uptime_seconds: since.elapsed().as_secs(),
            socket: shared.socket.display().to_string(),
            metrics_address: shared.metrics_address.load().as_ref().clone(),
            config: shared.config.status(),
            runtime,
            bypass: self.bypass().map(|seen| bypass::status(&seen, &settings)),
            restart_needed: shared.hand_over.restart_needed().await,
            registries: self.registries(&settings),
            image_calls: shared.telemetry.metrics().image_calls(),
            caches: self.caches(),
            node_cache,
            running: history.running(),
            decisions: history.ended(decisions, |_| true),
            decisions_total: history.total(),
        }
    }

    /// Decisions about `image`, or all of them; newest first.
    pub(crate) fn history(&self, image: Option<&str>) -> Vec<Decision> {
        let history = self.shared.telemetry.history();
        let wanted = |decision: &Decision| image.is_none_or(|image| is_about(decision, image));
        history.ended(usize::MAX, wanted)
    }

    /// Whether kubelet is led past us; none where nobody would do that.
    pub(crate) fn bypass(&self) -> Option<Bypass> {
        let shared = &self.shared;
        shared.leads_past.then(|| Bypass::beside(&shared.socket))?
    }

    /// Whether the runtime answers.
    pub(crate) async fn runtime(&self) -> RuntimeStatus {
        let upstream = &self.shared.upstream;
        let asked = tokio::time::timeout(RUNTIME_TIMEOUT, cri::runtime_version(upstream)).await;
        let (reachable, detail) = match asked {
            Ok(Ok(version)) => (true, version),
            Ok(Err(error)) => (false, error.to_string()),
            Err(_) => (false, format!("no answer within {RUNTIME_TIMEOUT:?}")),
        };
        RuntimeStatus {
            socket: upstream.socket().display().to_string(),
            reachable,
            detail,
        }
    }

    pub(crate) fn caches(&self) -> CacheStatus {
        let images = self.shared.resolver.stats();
        let domains = self.shared.resolver.client().stats();
        CacheStatus {
            image_hits: images.hits,
            image_misses: images.misses,
            image_evictions: images.evictions,
            invalidations: images.invalidations,
            domain_hits: domains.hits,
            domain_misses: domains.misses,
            domain_evictions: domains.evictions,
        }
    }

    /// Pulls under way.
    pub(crate) fn running(&self) -> usize {
        self.shared.telemetry.history().running_count()
    }

    /// Registries of the config in force and whether each one's circuit is open.
    pub(crate) fn circuits_open(&self) -> Vec<(String, bool)> {
        let settings = self.shared.settings.load();
        let states = self.registries(&settings).into_iter();
        states
            .map(|registry| {
                (
                    registry.address,
                    registry.state == RegistryState::CircuitOpen,
                )
            })
            .collect()
    }

    /// When the process started.
    pub(crate) fn started(&self) -> SystemTime {
        self.shared.started.0
    }

    /// All metrics as OpenMetrics text.
    pub(crate) fn encode(&self, live: Live) -> String {
        self.shared.telemetry.metrics().encode(live)
    }

    fn registries(&self, settings: &Settings) -> Vec<RegistryStatus> {
        let known = self.shared.resolver.registries();
        let registries = settings.rules.registries.iter().map(Entry::of_registry);
        let redirects = settings.rules.redirects.iter().map(Entry::of_redirect);
        let mut seen: Vec<&Endpoint> = Vec::new();
        let mut all = Vec::new();
        for entry in registries.chain(redirects) {
            // Several redirects may lead to one place.
            if seen.contains(&entry.endpoint) {
                continue;
            }
            seen.push(entry.endpoint);
            let is_this = |known: &&RegistryHealth| {
                known.endpoint == *entry.endpoint && known.tls == *entry.tls
            };
            let health = known.iter().find(is_this);
            all.push(self.registry(&entry, health));
        }
        all
    }

    fn registry(&self, entry: &Entry<'_>, health: Option<&RegistryHealth>) -> RegistryStatus {
        let address = entry.endpoint.to_string();
        let (probes, hits, pulls) = self.shared.telemetry.metrics().registry_counts(&address);
        let state = match health.map(|health| health.state) {
            None => RegistryState::Unknown,
            Some(State::Closed) => RegistryState::Ok,
            Some(State::Open { .. } | State::HalfOpen) => RegistryState::CircuitOpen,
        };
        let retry_in = match health.map(|health| health.state) {
            Some(State::Open { until }) => Some(until.saturating_duration_since(Instant::now())),
            Some(State::HalfOpen) => Some(Duration::ZERO),
            _ => None,
        };
        RegistryStatus {
            address,
            place: entry.place,
            priority: entry.priority,
            credentials: entry.credentials_shown(),
            note: entry.note.map(ToOwned::to_owned),
            state,
            retry_in_ms: retry_in.map(|rest| micros(rest) / 1000),
            failures: health.map_or(0, |health| health.failures),
            detail: health.map_or_else(String::new, |health| health.last_detail.clone()),
            latency_us: health.map_or(0, |health| micros(health.last_elapsed)),
            probes,
            hits,
            pulls,
        }
    }
}

/// What a registry and a redirect's target have in common.
struct Entry<'a> {
    endpoint: &'a Endpoint,
    tls: &'a TlsOptions,
    place: Place,
    priority: Option<u16>,
    credentials: Option<&'a Credentials>,
    source: Option<&'a CredentialSource>,
    note: Option<&'a str>,
}

impl<'a> Entry<'a> {
    fn of_registry(registry: &'a Registry) -> Self {
        Self {
            endpoint: &registry.endpoint,
            tls: &registry.tls,
            place: CandidateKind::Registry(registry.kind).into(),
            priority: Some(registry.priority.get()),
            credentials: registry.credentials.as_ref(),
            source: registry.source.as_ref(),
            note: registry.note.as_deref(),
        }
    }

    fn of_redirect(redirect: &'a Redirect) -> Self {
        Self {
            endpoint: &redirect.to,
            tls: &redirect.tls,
            place: CandidateKind::Redirect(redirect.number).into(),
            priority: redirect.priority.map(policy::Priority::get),
            credentials: redirect.credentials.as_ref(),
            source: redirect.source.as_ref(),
            note: redirect.note.as_deref(),
        }
    }

    fn credentials_shown(&self) -> String {
        match self.credentials {
            Some(_) => policy::credentials::place(self.source),
            None => "none".to_owned(),
        }
    }
}

impl Inspect for Inspection {
    fn inspect(
        &self,
        method: &str,
        message: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, GrpcStatus>> {
        let this = self.clone();
        let method = method.to_owned();
        Box::pin(async move {
            match method.as_str() {
                StatusRequest::METHOD => {
                    let request: StatusRequest = read(&message)?;
                    written(&this.status(request.decisions.unwrap_or(DECISIONS)).await)
                }
                HistoryRequest::METHOD => {
                    let request: HistoryRequest = read(&message)?;
                    written(&this.history(request.image.as_deref()))
                }
                ExplainRequest::METHOD => {
                    let request: ExplainRequest = read(&message)?;
                    let background = this.shared.background.clone();
                    let explained = background.spawn(async move {
                        let settings = this.shared.settings.load_full();
                        let resolver = &this.shared.resolver;
                        let (image, probe) = (&request.image, request.probe);
                        explain(&settings, resolver, image, probe, Knowledge::Daemon).await
                    });
                    match tokio::time::timeout(EXPLAIN_TIMEOUT, explained).await {
                        Ok(Ok(explanation)) => written(&explanation),
                        Ok(Err(error)) => Err(internal(&error)),
                        Err(_) => Err(GrpcStatus::new(
                            Code::DEADLINE_EXCEEDED,
                            format!(
                                "no answer of the shim's background work within {EXPLAIN_TIMEOUT:?}; its log may say what it waits for"
                            ),
                        )),
                    }
                }
                HandOverRequest::METHOD => {
                    let request: HandOverRequest = read(&message)?;
                    match this.shared.hand_over.hand_over(request).await {
                        Ok(answer) => written(&answer),
                        Err(why) => Err(GrpcStatus::new(Code::FAILED_PRECONDITION, why)),
                    }
                }
                other => Err(unknown(other)),
            }
        })
    }
}

fn read<T: DeserializeOwned>(message: &Bytes) -> Result<T, GrpcStatus> {
    serde_json::from_slice(message).map_err(|error| {
        GrpcStatus::new(
            Code::INVALID_ARGUMENT,
            format!("cannot read the request: {error}"),
        )
    })
}

fn written(answer: &impl Serialize) -> Result<Bytes, GrpcStatus> {
    match serde_json::to_vec(answer) {
        Ok(json) => Ok(Bytes::from(json)),
        Err(error) => Err(internal(&error)),
    }
}

fn internal(error: &dyn std::fmt::Display) -> GrpcStatus {
    GrpcStatus::new(Code::INTERNAL, error.to_string())
}
