//! Which registries answer, and the background trials that find out when a silent one is back.
//!
//! A registry that fails has its circuit opened at once; no pull waits for it while it is open. One task
//! per open circuit tries the registry when its pause is over, so that no pull pays for trying.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use policy::Endpoint;
use policy::breaker::{Breaker, State};
use registry::{Cause, Client, ManifestName, Outcome, Probe, Registry};
use telemetry::Telemetry;
use telemetry::metrics::{NONE, ORIGIN};
use tokio::runtime::Handle;

use crate::resolver::verdict;

/// How often one registry's refusal to show an image is worth a line in the log.
const UNAUTHORIZED_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// One registry's health, for people.
#[derive(Clone, Debug)]
pub struct RegistryHealth {
    /// Its address, without credentials.
    pub endpoint: Endpoint,
    /// Its breaker's state.
    pub state: State,
    /// Failures in a row.
    pub failures: u32,
    /// What it said last, or why it said nothing.
    pub last_detail: String,
    /// How long that took.
    pub last_elapsed: Duration,
}

/// All registries that were ever asked under the present config.
pub(crate) struct Registries {
    client: Client,
    handle: Handle,
    telemetry: Telemetry,
    entries: Mutex<HashMap<Endpoint, Arc<Health>>>,
}

/// What a registry is asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) registry: Registry,
    pub(crate) name: ManifestName,
    pub(crate) deadline: Duration,
}

/// One registry's health.
#[derive(Debug)]
pub(crate) struct Health {
    endpoint: Endpoint,
    telemetry: Telemetry,
    state: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    breaker: Breaker,
    last_detail: String,
    last_elapsed: Duration,
    unauthorized_logged: Option<Instant>,
}

impl Registries {
    pub(crate) fn new(client: Client, handle: Handle, telemetry: Telemetry) -> Self {
        Self {
            client,
            handle,
            telemetry,
            entries: Mutex::new(HashMap::new()),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn of(&self, endpoint: &Endpoint) -> Arc<Health> {
        let mut entries = lock(&self.entries);
        let health = entries.entry(endpoint.clone()).or_insert_with(|| {
            Arc::new(Health {
                endpoint: endpoint.clone(),
                telemetry: self.telemetry.clone(),
                state: Mutex::default(),
            })
        });
        Arc::clone(health)
    }

    /// Forgets all registries but these; their trials end by themselves.
    pub(crate) fn retain(&self, kept: &[&Endpoint]) {
        lock(&self.entries).retain(|endpoint, _| kept.contains(&endpoint));
        let mut names: Vec<String> = kept.iter().map(ToString::to_string).collect();
        names.extend([NONE, ORIGIN].map(ToOwned::to_owned));
        let is_kept = |name: &str| names.iter().any(|kept| kept == name);
        self.telemetry.metrics().retain_registries(is_kept);
    }

    pub(crate) fn snapshot(&self) -> Vec<RegistryHealth> {
        let mut all: Vec<_> = lock(&self.entries)
            .values()
            .map(|health| {
                let inner = lock(&health.state);
                RegistryHealth {
                    endpoint: health.endpoint.clone(),
                    state: inner.breaker.state(),
                    failures: inner.breaker.failures(),
                    last_detail: inner.last_detail.clone(),
                    last_elapsed: inner.last_elapsed,
                }
            })
            .collect();
        all.sort_by_key(|health| health.endpoint.to_string());
        all
    }

    /// Notes what the answer to `question` has shown, and starts the trials where it put the registry
    /// aside.
    pub(crate) fn note(&self, health: &Arc<Health>, question: &Asked, probe: &Probe) {
        if health.note(probe) {
            let trial = try_until_it_answers(
                Arc::downgrade(health),
                self.client.clone(),
                question.clone(),
            );
            self.handle.spawn(trial);
        }
    }
}

impl Health {
    /// Why the registry is not asked now, where it is not.
    pub(crate) fn circuit_open(&self, now: Instant) -> Option<String> {
        let inner = lock(&self.state);
        match inner.breaker.state() {
            State::Closed => None,
            State::HalfOpen => Some(format!("circuit open: {}", inner.last_detail)),
            State::Open { until } => {
                let rest = until.saturating_duration_since(now).as_secs_f64();
                Some(format!(
                    "circuit open, tried again in {rest:.1}s: {}",
                    inner.last_detail
                ))
            }
        }
    }

    fn count(&self, probe: &Probe) {
        let result = verdict(&probe.outcome);
        let name = self.endpoint.to_string();
        self.telemetry.metrics().probe(&name, result, probe.elapsed);
    }

    /// True when this put the registry aside.
    fn note(&self, probe: &Probe) -> bool {
        self.count(probe);
        let now = Instant::now();
        let mut inner = lock(&self.state);
        inner.last_detail.clone_from(&probe.detail);
        inner.last_elapsed = probe.elapsed;
        match effect(&probe.outcome) {
            Effect::Answered => {
                if inner.breaker.succeeded() {
                    tracing::info!("circuit closed: registry {} answers again", self.endpoint);
                }
                if probe.outcome == Outcome::Unauthorized {
                    self.log_unauthorized(&mut inner, now, &probe.detail);
                }
                false
            }
            Effect::Failed(retry_after) => {
                let opened = inner.breaker.failed(now, retry_after, jitter());
                if opened {
                    tracing::warn!(
                        "circuit open: registry {} is not asked: {}; other sources are used until it answers",
                        self.endpoint,
                        probe.detail
                    );
                }
                opened
            }
            Effect::None => false,
        }
    }

    fn log_unauthorized(&self, inner: &mut Inner, now: Instant, detail: &str) {
        let quiet = inner
            .unauthorized_logged
            .is_some_and(|logged| now.duration_since(logged) < UNAUTHORIZED_LOG_INTERVAL);
        if !quiet {
            inner.unauthorized_logged = Some(now);
            tracing::warn!(
                "registry {} refuses access: {detail}; check its auth in the config",
                self.endpoint
            );
        }
    }
}

enum Effect {
    Answered,
    Failed(Option<Duration>),
    /// Says nothing about the registry.
    None,
}

fn effect(outcome: &Outcome) -> Effect {
    match outcome {
        Outcome::Found { .. } | Outcome::NotFound | Outcome::Unauthorized => Effect::Answered,
        Outcome::RateLimited { retry_after } => Effect::Failed(*retry_after),
        Outcome::Unavailable { .. } => Effect::Failed(None),
        Outcome::ImageFailed { cause, retry_after } => match cause {
            // The registry was never asked, or its answer may be about this image alone.
            Cause::Queue => Effect::None,
            Cause::Status(code) if *code < 500 => Effect::None,
            _ => Effect::Failed(*retry_after),
        },
    }
}

/// Tries a registry whose circuit is open each time its pause is over, until it answers or is no longer
/// configured. Asks what had failed, so that a registry that answers `/v2/` but fails manifests
/// stays aside.
async fn try_until_it_answers(health: Weak<Health>, client: Client, question: Asked) {
    loop {
        let until = match health.upgrade() {
            None => return,
            Some(health) => match lock(&health.state).breaker.state() {
                State::Open { until } => until,
                // Somebody's late answer has closed it.
                State::Closed | State::HalfOpen => return,
            },
        };
        tokio::time::sleep_until(until.into()).await;
        match health.upgrade() {
            None => return,
            Some(health) => {
                if !lock(&health.state).breaker.try_half_open(Instant::now()) {
                    continue;
                }
            }
        }
        let probe = client
            .probe(&question.registry, &question.name, question.deadline)
            .await;
        let Some(health) = health.upgrade() else {
            return;
        };
        health.count(&probe);
        let mut inner = lock(&health.state);
        match effect(&probe.outcome) {
            Effect::Failed(retry_after) => {
                inner.breaker.failed(Instant::now(), retry_after, jitter());
                inner.last_detail = probe.detail;
            }
            Effect::Answered | Effect::None => {
                inner.breaker.succeeded();
                inner.last_detail = probe.detail;
                drop(inner);
                tracing::info!("circuit closed: registry {} answers again", health.endpoint);
                return;
            }
        }
    }
}

/// A number from 0 to 1 that differs from call to call and node to node. Good enough to spread
/// retries; nothing secret hangs on it.
fn jitter() -> f64 {
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

/// Locks what this crate shares. Every change under its locks is a single step, so a panic elsewhere
/// leaves nothing half-done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
