//! One registry's circuit: its breaker, and what it said last.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use policy::breaker::{Breaker, Change, Signal, State};
use policy::jitter::Jitter;
use policy::{Credentials, Endpoint, TlsOptions};
use registry::{Cause, Outcome, Ping, Probe, Registry};
use tokio::sync::Notify;

use super::RegistryHealth;
use crate::clock;

/// How often one registry's refusal to show an image is worth a line in the log.
const UNAUTHORIZED_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// One registry's circuit.
#[derive(Debug)]
pub(crate) struct Circuit {
    pub(super) endpoint: Endpoint,
    pub(super) tls: TlsOptions,
    /// The config's, when the registry was first asked. Other ones in a new config are a reason to try
    /// the registry anew.
    pub(super) credentials: Option<Credentials>,
    inner: Mutex<Inner>,
    /// Tells those who wait that a ping has ended.
    pinged: Notify,
    jitter: Arc<Jitter>,
}

#[derive(Debug, Default)]
struct Inner {
    breaker: Breaker,
    last_detail: String,
    last_elapsed: Duration,
    /// When the registry was last back after it had failed.
    back_since: Option<Instant>,
    /// `/v2/` is being asked beside a question that has no answer yet.
    is_checking: bool,
    unauthorized_logged: Option<Instant>,
}

/// What an answer to a question about an image has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Finding {
    /// The registry itself failed: nothing was learnt about the image.
    pub(super) is_registrys: bool,
    /// The circuit was closed and is open now.
    pub(super) opened: bool,
    /// The registry took the question and hung up: `/v2/` is to be asked.
    pub(super) is_doubtful: bool,
}

impl Circuit {
    pub(super) fn new(
        endpoint: Endpoint,
        tls: TlsOptions,
        credentials: Option<Credentials>,
        jitter: Arc<Jitter>,
    ) -> Self {
        Self {
            endpoint,
            tls,
            credentials,
            inner: Mutex::default(),
            pinged: Notify::new(),
            jitter,
        }
    }

    /// What `/v2/` is asked with: never credentials, because it must only show life.
    pub(super) fn anonymous(&self) -> Registry {
        Registry {
            endpoint: self.endpoint.clone(),
            credentials: None,
            tls: self.tls.clone(),
        }
    }

    /// Why the registry is not asked now, where it is not.
    ///
    /// While the first trial goes on after images have failed in a row, nothing is known against the
    /// registry; whoever asks then waits for the trial ([`Self::first_trial`]).
    pub(crate) fn why_open(&self, now: Instant) -> Option<String> {
        let inner = self.inner.lock();
        if inner.breaker.awaits_first_trial() {
            return None;
        }
        match inner.breaker.state() {
            State::Closed => None,
            State::HalfOpen => Some(format!("circuit open, being tried: {}", inner.last_detail)),
            State::Open { until } => {
                let rest = until.saturating_duration_since(now).as_secs_f64();
                let detail = &inner.last_detail;
                Some(format!("circuit open, tried again in {rest:.1}s: {detail}"))
            }
        }
    }

    /// When the registry was last back after it had failed. What failed before may do now.
    pub(crate) fn back_since(&self) -> Option<Instant> {
        self.inner.lock().back_since
    }

    /// Waits for the trial that comes at once after images have failed in a row. So nobody who names bad
    /// images makes a pull of a good one go elsewhere.
    pub(super) async fn first_trial(&self) {
        loop {
            let pinged = self.pinged.notified();
            if !self.inner.lock().breaker.awaits_first_trial() {
                return;
            }
            pinged.await;
        }
    }

    pub(super) fn state(&self) -> State {
        self.inner.lock().breaker.state()
    }

    pub(super) fn has_answered_since(&self, asked: Instant) -> bool {
        self.inner.lock().breaker.has_answered_since(asked)
    }

    pub(super) fn begin_trial(&self) -> bool {
        self.inner.lock().breaker.begin_trial(clock::now())
    }

    /// Takes the right to ask `/v2/` beside a question. [`Self::checked`] gives it back.
    pub(super) fn begin_check(&self) -> bool {
        let mut inner = self.inner.lock();
        let begun = inner.breaker.is_closed() && !inner.is_checking;
        inner.is_checking |= begun;
        begun
    }

    /// Notes what `/v2/` said beside a question. True when that opened the circuit.
    pub(super) fn checked(&self, ping: &Ping, asked: Instant) -> bool {
        self.inner.lock().is_checking = false;
        self.pinged(ping, asked)
    }

    /// Notes what `/v2/` said. True when that opened the circuit.
    pub(super) fn pinged(&self, ping: &Ping, asked: Instant) -> bool {
        let opened = self.note_ping(ping, asked);
        self.pinged.notify_waiters();
        opened
    }

    fn note_ping(&self, ping: &Ping, asked: Instant) -> bool {
        let mut inner = self.inner.lock();
        let signal = match ping.outcome {
            Ok(()) => Signal::Alive,
            Err(_) => Signal::NotAlive { asked },
        };
        let change = self.signal(&mut inner, signal, &ping.detail);
        // A ping beside a question that was answered meanwhile says nothing new.
        if !inner.breaker.is_closed() || change == Some(Change::Closed) {
            inner.last_detail.clone_from(&ping.detail);
            inner.last_elapsed = ping.elapsed;
        }
        change == Some(Change::Opened)
    }

    /// Notes the answer to a question about an image of `repository`.
    pub(super) fn answered(&self, repository: &str, asked: Instant, probe: &Probe) -> Finding {
        let mut inner = self.inner.lock();
        let mut finding = Finding::default();
        let signal = match probe.outcome {
            Outcome::Found { .. } | Outcome::NotFound | Outcome::Unauthorized => Signal::Answered,
            Outcome::RateLimited {
                retry_after: Some(retry_after),
            } => {
                finding.is_registrys = true;
                Signal::RateLimited { retry_after }
            }
            Outcome::RateLimited { retry_after: None } => Signal::ImageFailed { repository },
            Outcome::ImageFailed { cause, .. } => match cause {
                // The registry was never asked.
                Cause::Queue => return finding,
                Cause::Timeout | Cause::Late => {
                    finding.is_registrys = !inner.breaker.has_answered_since(asked);
                    Signal::Unanswered { repository, asked }
                }
                // It answers, though not as a registry should.
                Cause::Status(code) if code < 500 => Signal::Alive,
                cause => {
                    finding.is_doubtful = cause.is_silence();
                    Signal::ImageFailed { repository }
                }
            },
            Outcome::Unavailable { .. } => {
                finding.is_registrys = true;
                Signal::RegistryFailed
            }
        };
        inner.last_detail.clone_from(&probe.detail);
        inner.last_elapsed = probe.elapsed;
        finding.opened = self.signal(&mut inner, signal, &probe.detail) == Some(Change::Opened);
        finding
    }

    fn signal(&self, inner: &mut Inner, signal: Signal<'_>, detail: &str) -> Option<Change> {
        let now = clock::now();
        let had_failed = inner.breaker.failures() > 0;
        let change = inner.breaker.note(signal, now, self.jitter.next());
        match change {
            Some(Change::Opened) => tracing::warn!(
                "circuit open: registry {} is not asked: {detail}; other sources are used until it \
                 answers",
                self.endpoint
            ),
            Some(Change::Closed) => {
                if had_failed {
                    inner.back_since = Some(now);
                }
                tracing::info!("circuit closed: registry {} answers again", self.endpoint);
            }
            None => {}
        }
        change
    }

    /// Tells people that the registry refuses access, and what to do, but not too often.
    pub(super) fn log_unauthorized(&self, detail: &str, remedy: &str) {
        let mut inner = self.inner.lock();
        let now = clock::now();
        let quiet = inner
            .unauthorized_logged
            .is_some_and(|logged| now.duration_since(logged) < UNAUTHORIZED_LOG_INTERVAL);
        if !quiet {
            inner.unauthorized_logged = Some(now);
            tracing::warn!(
                "registry {} refuses access: {detail}; {remedy}",
                self.endpoint
            );
        }
    }

    pub(super) fn health(&self) -> RegistryHealth {
        let inner = self.inner.lock();
        RegistryHealth {
            endpoint: self.endpoint.clone(),
            tls: self.tls.clone(),
            state: inner.breaker.state(),
            failures: inner.breaker.failures(),
            last_detail: inner.last_detail.clone(),
            last_elapsed: inner.last_elapsed,
        }
    }
}
