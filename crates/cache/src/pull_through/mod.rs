//! Getting blobs that are not in the store: one download for all who want one, from all who have it.

mod buffers;
pub mod fetch;
pub mod ranges;
pub mod reader;
#[cfg(test)]
mod tests;
pub mod transfer;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

pub use self::fetch::{HostLimits, Wanted};
#[cfg(test)]
pub use self::reader::read_along;
pub use self::reader::{read_along_while_it_is_quick, read_file};
pub use self::transfer::{Parallelism, Progress, State, Transfer};
use crate::digest::Digest;
use crate::storage::Storage;

/// How long a place that sent wrong bytes is not asked for that content.
const LIAR_TTL: Duration = Duration::from_secs(60);
/// More are not remembered; the oldest go.
const MAX_LIARS: usize = 1024;

/// Places that sent wrong bytes a moment ago, each for one content.
#[derive(Debug, Default)]
pub struct Liars {
    known: Mutex<HashMap<(String, Digest), Instant>>,
}

impl Liars {
    /// A place has sent other bytes than it was asked for.
    pub fn note(&self, place: &str, digest: &Digest) {
        let mut known = self.known.lock();
        let now = Instant::now();
        if known.len() >= MAX_LIARS {
            known.retain(|_, until| *until > now);
        }
        if known.len() < MAX_LIARS {
            known.insert((place.to_owned(), digest.clone()), now + LIAR_TTL);
        }
    }

    /// Whether a place is not to be asked for a content.
    pub fn is_one(&self, place: &str, digest: &Digest) -> bool {
        let known = self.known.lock();
        known
            .get(&(place.to_owned(), digest.clone()))
            .is_some_and(|until| *until > Instant::now())
    }
}

/// The downloads under way.
#[derive(Clone, Debug, Default)]
pub struct Transfers {
    running: Arc<Mutex<HashMap<Digest, Arc<Transfer>>>>,
}

impl Transfers {
    /// The download of a blob, if it is under way.
    pub fn get(&self, digest: &Digest) -> Option<Arc<Transfer>> {
        self.running.lock().get(digest).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Transfer>> {
        self.running.lock().values().cloned().collect()
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.running.lock().len()
    }

    /// Joins the download of a blob, or begins one. True where it was begun. It goes on whoever
    /// leaves, on the runtime that this is called on.
    pub fn join(
        &self,
        wanted: Wanted,
        storage: &Arc<Storage>,
        hint: Option<u64>,
        parallelism: Parallelism,
        done: impl FnOnce(&Transfer) + Send + 'static,
    ) -> (Arc<Transfer>, bool) {
        let mut running = self.running.lock();
        // One that is over is about to be forgotten, and may have been for somebody with fewer rights.
        if let Some(transfer) = running.get(&wanted.digest).filter(|t| !t.is_over()) {
            return (Arc::clone(transfer), false);
        }
        let digest = wanted.digest.clone();
        let transfer = Arc::new(Transfer::new(wanted, Arc::clone(storage)));
        running.insert(digest.clone(), Arc::clone(&transfer));
        let (all, ours) = (Arc::clone(&self.running), Arc::clone(&transfer));
        tokio::spawn(async move {
            // Also when the download panics: the next one who wants the blob begins another.
            let _forget = Forget {
                all,
                digest,
                transfer: Arc::clone(&ours),
            };
            ours.run(hint, parallelism).await;
            done(&ours);
        });
        (transfer, true)
    }
}

struct Forget {
    all: Arc<Mutex<HashMap<Digest, Arc<Transfer>>>>,
    digest: Digest,
    transfer: Arc<Transfer>,
}

impl Drop for Forget {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        let is_ours = |known: &Arc<Transfer>| Arc::ptr_eq(known, &self.transfer);
        if all.get(&self.digest).is_some_and(is_ours) {
            all.remove(&self.digest);
        }
    }
}
