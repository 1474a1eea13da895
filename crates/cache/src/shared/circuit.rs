//! Whether the bucket is asked at all: one that does not answer costs one bounded wait, not one for each
//! blob.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Weak;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use policy::breaker::{Breaker, Change, Signal, State};
use tokio::sync::watch;

use crate::digest::Digest;
use crate::store::{BlobStore, Bucket};

/// A circuit breaker with what opened it.
pub(super) struct Circuit {
    state: Mutex<(Breaker, String)>,
    open: watch::Sender<bool>,
}

impl Default for Circuit {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            open: watch::Sender::new(false),
        }
    }
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Circuit").field(&self.is_open()).finish()
    }
}

impl Circuit {
    pub(super) fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// What opened it, while it is open.
    pub(super) fn why_open(&self) -> Option<String> {
        let state = self.state.lock();
        (!state.0.is_closed()).then(|| state.1.clone())
    }

    /// Tells when it opens and closes.
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.open.subscribe()
    }

    pub(super) fn answered(&self) {
        self.note(Signal::Answered);
    }

    /// True where this has opened it: trials are to begin, after `pause` where one is given.
    pub(super) fn failed(&self, detail: &str, pause: Option<Duration>) -> bool {
        let signal = match pause {
            Some(retry_after) => Signal::RateLimited { retry_after },
            None => Signal::RegistryFailed,
        };
        let mut state = self.state.lock();
        let change = state.0.note(signal, Instant::now(), jitter());
        if change != Some(Change::Opened) {
            return false;
        }
        detail.clone_into(&mut state.1);
        self.open.send_replace(true);
        drop(state);
        tracing::warn!(
            "circuit open: the shared store is not asked: {detail}; registries are used until it answers"
        );
        true
    }

    fn note(&self, signal: Signal<'_>) -> bool {
        let mut state = self.state.lock();
        let change = state.0.note(signal, Instant::now(), jitter());
        if change != Some(Change::Closed) {
            return false;
        }
        self.open.send_replace(false);
        drop(state);
        tracing::info!("circuit closed: the shared store answers again");
        true
    }

    fn next_trial(&self) -> Option<Instant> {
        match self.state.lock().0.state() {
            State::Open { until } => Some(until),
            State::Closed | State::HalfOpen => None,
        }
    }
}

/// Asks for something small each time the pause is over, until there is an answer.
pub(super) async fn try_until_it_answers(circuit: Weak<Circuit>, bucket: Bucket, limit: Duration) {
    let small = Digest::of(b"");
    loop {
        let Some(until) = circuit.upgrade().and_then(|circuit| circuit.next_trial()) else {
            return;
        };
        tokio::time::sleep_until(until.into()).await;
        let Some(circuit) = circuit.upgrade() else {
            return;
        };
        let asked = Instant::now();
        if !circuit.state.lock().0.begin_trial(asked) {
            continue;
        }
        let answer = tokio::time::timeout(limit, bucket.stat(&small)).await;
        let signal = match answer {
            Ok(Ok(_)) => Signal::Alive,
            Ok(Err(_)) | Err(_) => Signal::NotAlive { asked },
        };
        if circuit.note(signal) {
            return;
        }
    }
}

/// From 0 to 1, another one for each call and node.
fn jitter() -> f64 {
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}
