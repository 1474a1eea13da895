//! A daemon that is only made up, and a listener that shows it.

use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use inspection::Inspected;
use telemetry::Telemetry;
use telemetry::history::is_about;
use telemetry::live::{BypassLive, Live, NodeLive, ProcessLive};
use telemetry::metrics::{Resolved, Reviewed};
use telemetry::report::{
    Arriving, CacheStatus, CandidateReport, ConfigPart, ConfigStatus, Decision, Freshness,
    NodeCacheStatus, Outcome, Place, ProbeReport, PullReport, RegistryState, RegistryStatus,
    RuntimeStatus, Status, Verdict,
};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// What the listener shows.
pub(crate) struct Daemon {
    pub(crate) status: Mutex<Status>,
    pub(crate) missing: Mutex<Option<String>>,
    /// Decisions that a status has no room for.
    pub(crate) older: Mutex<Vec<Decision>>,
    /// Whether a status takes for ever.
    pub(crate) hangs: AtomicBool,
    telemetry: Telemetry,
}

impl Inspected for Daemon {
    fn status(&self) -> BoxFuture<'_, Status> {
        async {
            if self.hangs.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            self.status.lock().clone()
        }
        .boxed()
    }

    fn history(&self, image: Option<&str>) -> Vec<Decision> {
        let (status, older) = (self.status.lock(), self.older.lock());
        let wanted = |decision: &&Decision| image.is_none_or(|image| is_about(decision, image));
        let all = status.decisions.iter().chain(older.iter());
        all.filter(wanted).cloned().collect()
    }

    fn metrics(&self) -> BoxFuture<'_, String> {
        let live = Live {
            node: Some(NodeLive {
                circuits_open: vec![("https://harbor.corp/proxy".to_owned(), true)],
                caches: CacheStatus::default(),
                runtime_reachable: true,
                pulls_running: 1,
                bypass: BypassLive::default(),
            }),
            certificate_ends: Some(1_900_000_000.0),
            process: ProcessLive::default(),
        };
        let text = self.telemetry.metrics().encode(live);
        async { text }.boxed()
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), String>> {
        let missing = self.missing.lock().clone();
        async { missing.map_or(Ok(()), Err) }.boxed()
    }
}

/// A running listener. Dropping it ends it.
pub(crate) struct World {
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) address: SocketAddr,
    serving: AbortOnDropHandle<()>,
}

impl World {
    /// On a free port of loopback.
    pub(crate) async fn start() -> Self {
        Self::at("127.0.0.1:0").await
    }

    pub(crate) async fn at(address: &str) -> Self {
        let daemon = Arc::new(Daemon {
            status: Mutex::new(status()),
            missing: Mutex::default(),
            older: Mutex::default(),
            hangs: AtomicBool::default(),
            telemetry: counted(),
        });
        Self::of(daemon, address).await
    }

    async fn of(daemon: Arc<Daemon>, address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            serving: AbortOnDropHandle::new(tokio::spawn(inspection::serve(
                listener,
                Arc::clone(&daemon) as _,
                std::future::pending(),
            ))),
            daemon,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.address.port())
    }

    /// Ends the listener. The port is free afterwards.
    pub(crate) async fn stop(&mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }

    /// Listens again, where it did before.
    pub(crate) async fn start_again(&mut self) {
        let daemon = Arc::clone(&self.daemon);
        *self = Self::of(daemon, &self.address.to_string()).await;
    }

    /// Changes what is shown.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.daemon.status.lock());
    }
}

/// A client that keeps no connections and follows no proxy of the developer's shell.
pub(crate) fn client() -> reqwest::Client {
    // It wants to know how TLS would be done, also where there is none. Another test may have said so.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder();
    builder
        .no_proxy()
        .pool_max_idle_per_host(0)
        .build()
        .unwrap()
}

/// Something of everything that can be counted, with names that need care.
fn counted() -> Telemetry {
    let telemetry = Telemetry::new();
    let metrics = telemetry.metrics();
    let second = Duration::from_secs(1);
    metrics.call("PullImage", 0);
    metrics.call("ListImages", 5);
    metrics.added("PullImage", second);
    metrics.resolution(Resolved::Found, Some("http://sealos.hub:5000"));
    metrics.resolution(Resolved::Absent, None);
    metrics.probe("http://a.io/\"quoted\\path\"", Verdict::Found, second);
    metrics.pull("origin", Place::Origin, true, second);
    metrics.pull("https://b.io", Place::Registry, false, second);
    metrics.fallback("origin");
    metrics.config_loaded(3, true);
    metrics.review(Reviewed::Patched, second);
    metrics.image_moved("docker.io/ # {not=\"an exemplar\"} 1");
    telemetry
}

const HUB: &str = "http://sealos.hub:5000";
const HARBOR: &str = "https://harbor.corp/proxy";
const DIGEST: &str = "sha256:3f8a4c1b5dd9e0a6b6c5ab4e2d1c0f9e8d7c6b5a493827161504f3e2d1c0b9a8";

fn probe(result: Verdict, detail: &str, elapsed_us: u64, freshness: Freshness) -> ProbeReport {
    ProbeReport {
        result,
        detail: detail.to_owned(),
        digest: (result == Verdict::Found).then(|| DIGEST.to_owned()),
        elapsed_us,
        freshness,
    }
}

fn candidate(registry: &str, image: &str, probe: Option<ProbeReport>) -> CandidateReport {
    let host = registry.split_once("://").unwrap().1;
    let (place, priority, reason) = match registry {
        HUB => (
            Place::Offline,
            Some(1000),
            "offline registry, priority 1000 (default)",
        ),
        HARBOR => (Place::Registry, Some(800), "registry[1], priority 800"),
        _ => (
            Place::Redirect,
            None,
            "imageRedirMapping[1] docker.io/ → eu.azurecr.io/mirror/",
        ),
    };
    CandidateReport {
        image: format!("{host}/{image}"),
        registry: registry.to_owned(),
        place,
        priority,
        reason: reason.to_owned(),
        credentials: if place == Place::Offline {
            "auth in the config"
        } else {
            "none"
        }
        .to_owned(),
        probe,
    }
}

fn pull(registry: &str, image: &str, from_us: u64, elapsed_us: Option<u64>) -> PullReport {
    let host = registry.split_once("://").map_or("", |(_, host)| host);
    PullReport {
        image: format!("{host}{}{image}", if host.is_empty() { "" } else { "/" }),
        registry: registry.to_owned(),
        place: if host.is_empty() {
            Place::Origin
        } else {
            Place::Registry
        },
        started_us: from_us,
        elapsed_us,
        error: None,
    }
}

/// A decision of each kind.
pub(crate) fn decisions() -> Vec<Decision> {
    use Freshness::{CircuitOpen, Probed, Remembered};
    use Verdict::{Found, NotFound, Unauthorized, Unavailable};
    let azure = "https://eu.azurecr.io/mirror";
    let first = Decision {
        id: 1,
        at: "2026-11-21T07:01:12.120Z".to_owned(),
        image: "nginx:1.27".to_owned(),
        candidates: vec![
            candidate(
                HUB,
                "library/nginx:1.27",
                Some(probe(Found, "200", 3_200, Probed)),
            ),
            candidate(HARBOR, "library/nginx:1.27", None),
            candidate(azure, "nginx:1.27", None),
        ],
        resolved_us: Some(3_400),
        from_memory: false,
        pulls: vec![pull(HUB, "library/nginx:1.27", 3_500, Some(1_210_000))],
        outcome: Outcome::Pulled {
            image: "sealos.hub:5000/library/nginx:1.27".to_owned(),
            registry: HUB.to_owned(),
            place: Place::Offline,
        },
        elapsed_us: Some(1_213_900),
    };
    let mut failed_pull = pull(HARBOR, "library/redis:7", 41_500, Some(320_000));
    failed_pull.error = Some("failed to copy: httpReadSeeker: blob sha256:77e1…: 500".to_owned());
    let second = Decision {
        id: 2,
        at: "2026-11-21T07:01:44.007Z".to_owned(),
        image: "redis:7".to_owned(),
        candidates: vec![
            candidate(
                HUB,
                "library/redis:7",
                Some(probe(NotFound, "404", 4_100, Probed)),
            ),
            candidate(
                HARBOR,
                "library/redis:7",
                Some(probe(Found, "200", 40_800, Probed)),
            ),
            candidate(
                azure,
                "redis:7",
                Some(probe(
                    Unauthorized,
                    "401 after the token flow",
                    21_000,
                    Probed,
                )),
            ),
        ],
        resolved_us: Some(41_000),
        pulls: vec![
            failed_pull,
            pull("origin", "redis:7", 362_000, Some(2_840_000)),
        ],
        outcome: Outcome::Pulled {
            image: "redis:7".to_owned(),
            registry: "origin".to_owned(),
            place: Place::Origin,
        },
        elapsed_us: Some(3_202_500),
        ..first.clone()
    };
    let third = Decision {
        id: 3,
        at: "2026-11-21T07:02:30.951Z".to_owned(),
        image: "ghcr.io/team/a-service-with-a-rather-long-name/and-a-path:v2026.11.3-rc.4".to_owned(),
        candidates: vec![
            candidate(HUB, "team/service:2", Some(probe(NotFound, "404", 0, Remembered))),
            candidate(HARBOR, "team/service:2", Some(probe(Unavailable, "circuit open, tried again in 12.3s: connection refused", 0, CircuitOpen))),
        ],
        resolved_us: Some(120),
        from_memory: true,
        pulls: Vec::new(),
        outcome: Outcome::Failed {
            code: "NOT_FOUND".to_owned(),
            message: "no registry has ghcr.io/team/service:2; sealos.hub:5000: 404; harbor.corp: circuit open".to_owned(),
        },
        elapsed_us: Some(900),
    };
    vec![third, second, first]
}

/// One that goes on.
pub(crate) fn running() -> Decision {
    let mut going = decisions().pop().unwrap();
    going.id = 4;
    going.image = "postgres:17".to_owned();
    going.pulls = vec![pull(HUB, "library/postgres:17", 3_500, None)];
    going.outcome = Outcome::Running;
    going.elapsed_us = None;
    going
}

fn registry(address: &str, place: Place, priority: Option<u16>) -> RegistryStatus {
    RegistryStatus {
        address: address.to_owned(),
        place,
        priority,
        credentials: "none".to_owned(),
        note: None,
        state: RegistryState::Ok,
        retry_in_ms: None,
        failures: 0,
        detail: "200".to_owned(),
        latency_us: 3_400,
        probes: 40,
        hits: 22,
        pulls: 21,
    }
}

pub(crate) fn node_cache() -> NodeCacheStatus {
    let nginx = Arriving {
        digest: format!("sha256:{}", "0123456789abcdef".repeat(4)),
        repository: "docker.io/library/nginx".to_owned(),
        bytes: 3 << 20,
        total: Some(12 << 20),
        from: Some("http://mirror.corp:5000/library/nginx".to_owned()),
    };
    NodeCacheStatus {
        version: "0.1.0".to_owned(),
        dir: "/var/lib/image-cri-shim/cache".to_owned(),
        hits: 12,
        misses: 1,
        stale: 2,
        errors: 0,
        sent_bytes: 2 << 30,
        received_bytes: 512 << 20,
        stored_bytes: 1 << 30,
        max_bytes: 50 << 30,
        stored_images: 31,
        evictions: 3,
        passes_through: false,
        arriving: vec![
            nginx.clone(),
            Arriving {
                digest: format!("sha256:{}", "fedcba9876543210".repeat(4)),
                bytes: 0,
                total: None,
                from: None,
                ..nginx
            },
        ],
    }
}

fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        started_at: "2026-11-21T07:00:00.000Z".to_owned(),
        uptime_seconds: 11_530,
        socket: "/var/run/image-cri-shim.sock".to_owned(),
        metrics_address: Some("127.0.0.1:7441".to_owned()),
        config: ConfigStatus {
            forwards_everything: false,
            file: "/etc/image-cri-shim.yaml".to_owned(),
            generation: 3,
            loaded_at: "2026-11-21T07:00:10.000Z".to_owned(),
            parts: [
                ("registries", "ConfigMap"),
                ("cache", "file"),
                ("timeout", "default"),
            ]
            .map(|(field, origin)| ConfigPart {
                field: field.to_owned(),
                origin: origin.to_owned(),
            })
            .to_vec(),
            error: None,
        },
        runtime: RuntimeStatus {
            socket: "/run/containerd/containerd.sock".to_owned(),
            reachable: true,
            detail: "containerd 1.7.24".to_owned(),
        },
        bypass: None,
        registries: vec![
            RegistryStatus {
                credentials: "auth in the config".to_owned(),
                ..registry(HUB, Place::Offline, Some(1000))
            },
            RegistryStatus {
                state: RegistryState::CircuitOpen,
                retry_in_ms: Some(12_300),
                failures: 3,
                detail: "connection refused".to_owned(),
                note: Some("the Secret harbor is missing".to_owned()),
                ..registry(HARBOR, Place::Registry, Some(800))
            },
            RegistryStatus {
                state: RegistryState::Unknown,
                detail: String::new(),
                probes: 0,
                hits: 0,
                pulls: 0,
                ..registry("https://eu.azurecr.io/mirror", Place::Redirect, None)
            },
        ],
        restart_needed: Vec::new(),
        image_calls: 7,
        caches: CacheStatus {
            image_hits: 79,
            image_misses: 49,
            invalidations: 1,
            domain_hits: 130,
            domain_misses: 3,
            ..CacheStatus::default()
        },
        node_cache: None,
        running: Vec::new(),
        decisions: decisions(),
        decisions_total: 3,
    }
}
