//! Which registries answer: a circuit breaker for each, and the trials of those that don't.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};
use std::time::Instant;

use policy::Endpoint;
use policy::breaker::{Breaker, Change, Signal, State};
use registry::{ExchangeError, Registry};

use super::{Inner, Registries};
use crate::upstream::{Failure, Place};

/// Health is remembered of so many registries that the config does not name, at most. Whoever asks for images of
/// made-up hosts, and is told that they don't answer, must not make this process grow.
pub(super) const MAX_UNNAMED: usize = 1024;

#[derive(Default)]
pub(super) struct Health {
    pub(super) breaker: Breaker,
    pub(super) last: String,
    /// Whether the config names it. It is tried in the background then; any other one by the next question that is
    /// for it after its pause.
    pub(super) is_named: bool,
}

impl Health {
    /// Why the registry is not worth asking at the moment.
    pub(super) fn silence(&self, now: Instant) -> Option<String> {
        let is_silent = match self.breaker.state() {
            State::Closed => false,
            State::Open { until } => self.is_named || now < until,
            State::HalfOpen => self.is_named,
        };
        is_silent.then(|| format!("circuit open: {}", self.last))
    }

    fn note(&mut self, signal: Signal<'_>, now: Instant) -> Option<Change> {
        // What failed for one image says nothing of the registry.
        let is_failure = !matches!(
            signal,
            Signal::Answered | Signal::Alive | Signal::ImageFailed { .. }
        );
        if !self.is_named && is_failure && self.breaker.begin_trial(now) {
            // The question was the trial.
            if let Signal::RateLimited { .. } = signal {
                // It answers, and says how long it wants to be left alone this time.
                self.breaker.note(Signal::Alive, now, jitter());
                return self.breaker.note(signal, now, jitter());
            }
            return self
                .breaker
                .note(Signal::NotAlive { asked: now }, now, jitter());
        }
        self.breaker.note(signal, now, jitter())
    }
}

impl Registries {
    /// Reads an answer for what it says about the registry, and gives it back for what it says about
    /// the question.
    pub(super) fn judge<T>(
        &self,
        place: &Place,
        answer: Result<T, ExchangeError>,
    ) -> Result<T, Failure> {
        let error = match answer {
            Ok(answer) => {
                self.answered(place);
                return Ok(answer);
            }
            Err(error) => error,
        };
        use registry::Failure as Kind;
        let ExchangeError {
            failure,
            status,
            detail,
        } = error;
        if status == Some(508) {
            self.answered(place);
            return Err(Failure::Circle);
        }
        Err(match failure {
            Kind::NotFound => {
                self.answered(place);
                Failure::NotFound
            }
            Kind::Unauthorized => {
                self.answered(place);
                Failure::Refused(detail)
            }
            Kind::RateLimited { retry_after } => {
                if let Some(retry_after) = retry_after {
                    self.note(place, Signal::RateLimited { retry_after }, &detail);
                }
                Failure::RateLimited(retry_after)
            }
            Kind::ImageFailed { cause, .. } if cause.is_silence() => {
                self.look_whether_alive(place, &detail);
                Failure::Silent(detail)
            }
            Kind::ImageFailed { cause, .. } => {
                if cause == registry::Cause::Queue {
                    Failure::Silent(detail)
                } else {
                    let repository = &place.repository;
                    self.note(place, Signal::ImageFailed { repository }, &detail);
                    match status {
                        // It says itself that it, or who stands behind it, can't be reached at the moment.
                        Some(503 | 504) => Failure::Silent(detail),
                        _ => Failure::Wrong(detail),
                    }
                }
            }
            Kind::Unavailable { .. } => {
                self.note(place, Signal::RegistryFailed, &detail);
                Failure::Silent(detail)
            }
        })
    }

    pub(super) fn answered(&self, place: &Place) {
        self.note(place, Signal::Answered, "answered");
    }

    /// Notes what was seen of a registry, and starts the trials where that opens its circuit.
    pub(super) fn note(&self, place: &Place, signal: Signal<'_>, detail: &str) {
        // Most registries answer for all of their lives.
        let is_known = || self.inner.health.lock().contains_key(&place.endpoint);
        if signal == Signal::Answered && !is_known() {
            return;
        }
        // The rules are not to be looked at while the other lock is held.
        let is_named = self.is_named(place);
        let now = Instant::now();
        let change = {
            let mut health = self.inner.health.lock();
            if !health.contains_key(&place.endpoint)
                && (signal == Signal::Answered || !(is_named || has_room(&mut health, now)))
            {
                return;
            }
            let known = health.entry(place.endpoint.clone()).or_default();
            known.is_named = is_named;
            let change = known.note(signal, now);
            if change == Some(Change::Opened) {
                detail.clone_into(&mut known.last);
            }
            if change == Some(Change::Closed) && !is_named {
                health.remove(&place.endpoint);
            }
            change
        };
        match change {
            Some(Change::Opened) if !is_named => {
                tracing::info!(
                    "circuit open: registry {} is not asked for a while: {detail}; the config does not name it, so that \
                     it is tried by the next question for it",
                    place.endpoint
                );
            }
            Some(Change::Opened) => {
                tracing::warn!(
                    "circuit open: registry {} is not asked: {detail}; other sources are used until it answers",
                    place.endpoint
                );
                let registry = registry_of(place);
                tokio::spawn(try_until_it_answers(Arc::downgrade(&self.inner), registry));
            }
            Some(Change::Closed) => {
                tracing::info!("circuit closed: registry {} answers again", place.endpoint);
            }
            None => {}
        }
    }

    fn is_named(&self, place: &Place) -> bool {
        let asking = self.asking();
        let registries = asking.rules.registries.iter().map(|r| &r.endpoint);
        let targets = asking.rules.redirects.iter().map(|r| &r.to);
        let mut named = registries.chain(targets);
        let domain = place.endpoint.domain();
        named.any(|endpoint| endpoint.domain() == domain)
    }

    /// One question was not answered; whether the registry answers at all is another one.
    fn look_whether_alive(&self, place: &Place, detail: &str) {
        let (registries, place) = (self.clone(), place.clone());
        let detail = detail.to_owned();
        tokio::spawn(async move {
            let (asked, timeout) = (Instant::now(), registries.asking().probe_timeout);
            let registry = registry_of(&place);
            let ping = registries.inner.client.ping(&registry, timeout).await;
            let signal = match ping.outcome {
                Ok(()) => Signal::ImageFailed {
                    repository: &place.repository,
                },
                Err(_) => Signal::NotAlive { asked },
            };
            registries.note(&place, signal, &detail);
        });
    }
}

/// Whether one more registry that the config does not name can be remembered. Those whose pause is over go.
fn has_room(health: &mut HashMap<Endpoint, Health>, now: Instant) -> bool {
    let unnamed = |health: &HashMap<Endpoint, Health>| {
        let all = health.values();
        all.filter(|known| !known.is_named).count()
    };
    if health.len() >= MAX_UNNAMED && unnamed(health) >= MAX_UNNAMED {
        health.retain(|_, known| known.is_named || known.silence(now).is_some());
        return unnamed(health) < MAX_UNNAMED;
    }
    true
}

fn registry_of(place: &Place) -> Registry {
    Registry {
        endpoint: place.endpoint.clone(),
        credentials: None,
        tls: place.tls.clone(),
    }
}

/// Tries a registry each time its pause is over, until it answers.
async fn try_until_it_answers(inner: Weak<Inner>, registry: Registry) {
    loop {
        let until = {
            let Some(inner) = inner.upgrade() else { return };
            let health = inner.health.lock();
            match health.get(&registry.endpoint).map(|h| h.breaker.state()) {
                Some(State::Open { until }) => until,
                _ => return,
            }
        };
        tokio::time::sleep_until(until.into()).await;
        let Some(inner) = inner.upgrade() else { return };
        {
            let mut health = inner.health.lock();
            match health.get_mut(&registry.endpoint) {
                Some(known) => {
                    if !known.breaker.begin_trial(Instant::now()) {
                        continue;
                    }
                }
                None => return,
            }
        }
        let (asked, timeout) = (Instant::now(), inner.asking.read().probe_timeout);
        let ping = inner.client.ping(&registry, timeout).await;
        let mut health = inner.health.lock();
        let Some(known) = health.get_mut(&registry.endpoint) else {
            return;
        };
        let signal = match ping.outcome {
            Ok(()) => Signal::Alive,
            Err(_) => Signal::NotAlive { asked },
        };
        let change = known.breaker.note(signal, Instant::now(), jitter());
        if change == Some(Change::Closed) {
            tracing::info!(
                "circuit closed: registry {} answers again",
                registry.endpoint
            );
            return;
        }
        known.last = ping.detail;
    }
}

/// From 0 to 1, another one for each call and node.
fn jitter() -> f64 {
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}
