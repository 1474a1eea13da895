//! What was not there a moment ago.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// More are not remembered; those whose time is over go first.
const MAX: usize = 10_000;

/// Names, each for a time.
#[derive(Debug, Default)]
pub(super) struct Misses {
    known: Mutex<HashMap<String, Instant>>,
}

impl Misses {
    pub(super) fn note(&self, name: &str, ttl: Duration) {
        let mut known = self.known.lock();
        let now = Instant::now();
        if known.len() >= MAX {
            known.retain(|_, until| *until > now);
        }
        if known.len() < MAX {
            known.insert(name.to_owned(), now + ttl);
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        let until = self.known.lock().get(name).copied();
        until.is_some_and(|until| until > Instant::now())
    }

    pub(super) fn clear(&self) {
        self.known.lock().clear();
    }
}
