//! Which registries answer: a circuit breaker for each, and the trials of those that don't.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};
use std::time::Instant;

use policy::breaker::{Breaker, Change, Signal, State};
use registry::{ExchangeError, Registry};

use super::{Inner, Registries};
use crate::upstream::{Failure, Place};

#[derive(Default)]
pub(super) struct Health {
    pub(super) breaker: Breaker,
    pub(super) last: String,
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
    fn note(&self, place: &Place, signal: Signal<'_>, detail: &str) {
        let change = {
            let mut health = self.inner.health.lock();
            let known = match health.get_mut(&place.endpoint) {
                Some(known) => known,
                // Most registries answer for all of their lives.
                None if signal == Signal::Answered => return,
                None => health.entry(place.endpoint.clone()).or_default(),
            };
            let change = known.breaker.note(signal, Instant::now(), jitter());
            if change == Some(Change::Opened) {
                detail.clone_into(&mut known.last);
            }
            change
        };
        match change {
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
