//! Who has proved what: callers whose own credentials have opened a repository at a place a moment ago.
//!
//! Kept in memory only, by a keyed hash of the credentials: what is here is of no use to anybody else.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use parking_lot::Mutex;
use policy::Credentials;
use tokio::time::Instant;

use crate::name::Repository;

/// More proofs are not remembered; those that have ended go first.
const MAX_PROOFS: usize = 10_000;

/// A caller, as far as he is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caller(u64, u64);

/// Rights that callers have proved.
#[derive(Debug)]
pub struct Proofs {
    keys: (RandomState, RandomState),
    known: Mutex<HashMap<(Repository, String, Caller), Instant>>,
    /// Repositories that nobody's credentials have opened a moment ago.
    closed: Mutex<HashMap<Repository, Instant>>,
}

impl Default for Proofs {
    fn default() -> Self {
        Self {
            keys: (RandomState::new(), RandomState::new()),
            known: Mutex::default(),
            closed: Mutex::default(),
        }
    }
}

impl Proofs {
    /// What a caller is remembered by: 128 bits, by keys that are new with every start.
    pub fn caller(&self, credentials: &Credentials) -> Caller {
        Caller(
            self.keys.0.hash_one(credentials),
            self.keys.1.hash_one(credentials),
        )
    }

    /// A caller's credentials have opened a repository at a place. What another place has of it may be
    /// for others.
    pub fn prove(&self, repository: &Repository, place: &str, caller: Caller, ttl: Duration) {
        insert(&self.known, key(repository, place, caller), ttl);
    }

    /// Whether they have within the time that proofs last.
    pub fn has(&self, repository: &Repository, place: &str, caller: Caller) -> bool {
        holds(&self.known, &key(repository, place, caller))
    }

    /// They have been refused there.
    pub fn withdraw(&self, repository: &Repository, place: &str, caller: Caller) {
        self.known.lock().remove(&key(repository, place, caller));
    }

    /// Neither the config's nor nobody's credentials open a repository.
    pub fn close(&self, repository: &Repository, ttl: Duration) {
        insert(&self.closed, repository.clone(), ttl);
    }

    /// Whether that was found out a moment ago.
    pub fn is_closed(&self, repository: &Repository) -> bool {
        holds(&self.closed, repository)
    }
}

fn key(repository: &Repository, place: &str, caller: Caller) -> (Repository, String, Caller) {
    (repository.clone(), place.to_owned(), caller)
}

fn insert<K: std::hash::Hash + Eq>(map: &Mutex<HashMap<K, Instant>>, key: K, ttl: Duration) {
    let mut map = map.lock();
    let now = Instant::now();
    if map.len() >= MAX_PROOFS {
        map.retain(|_, until| *until > now);
    }
    if map.len() < MAX_PROOFS {
        map.insert(key, now + ttl);
    }
}

fn holds<K: std::hash::Hash + Eq>(map: &Mutex<HashMap<K, Instant>>, key: &K) -> bool {
    map.lock()
        .get(key)
        .is_some_and(|until| *until > Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_proof_is_for_one_repository_one_place_one_caller_and_its_time() {
        let proofs = Proofs::default();
        let (a, b) = (
            Repository::new("a.test", "x").unwrap(),
            Repository::new("a.test", "y").unwrap(),
        );
        let anna = proofs.caller(&Credentials::new("anna", "secret"));
        let other = proofs.caller(&Credentials::new("anna", "Secret"));
        proofs.prove(&a, "p", anna, Duration::from_secs(10));
        assert!(proofs.has(&a, "p", anna));
        assert!(!proofs.has(&b, "p", anna));
        assert!(!proofs.has(&a, "q", anna));
        assert!(!proofs.has(&a, "p", other));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!proofs.has(&a, "p", anna));
        proofs.prove(&a, "p", anna, Duration::from_secs(10));
        proofs.withdraw(&a, "p", anna);
        assert!(!proofs.has(&a, "p", anna));
        proofs.close(&a, Duration::from_secs(1));
        assert!(proofs.is_closed(&a) && !proofs.is_closed(&b));
    }
}
