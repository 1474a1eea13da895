//! Which blob is fetched, and how many of one host at once.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::digest::Digest;
use crate::name::Repository;
use crate::pull_through::Liars;
use crate::shared::Shared;
use crate::upstream::{Asker, Place, Upstream};

/// Transfers of one upstream host that run at once; more wait, in the order they came.
const TRANSFERS_PER_HOST: usize = 16;

/// Transfers that may run at once, per upstream host. Manifests and HEADs don't wait here.
#[derive(Debug, Default)]
pub struct HostLimits {
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl HostLimits {
    pub(super) async fn acquire(&self, host: String) -> Option<OwnedSemaphorePermit> {
        let semaphore = {
            let mut hosts = self.hosts.lock();
            if hosts.len() > 1024 {
                hosts.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
            }
            let entry = hosts
                .entry(host)
                .or_insert_with(|| Arc::new(Semaphore::new(TRANSFERS_PER_HOST)));
            Arc::clone(entry)
        };
        // Never closed, so this only ever waits.
        semaphore.acquire_owned().await.ok()
    }
}

/// Which blob is fetched, on whose behalf, and from where.
#[derive(Clone)]
pub struct Wanted {
    /// Who is asked.
    pub upstream: Arc<dyn Upstream>,
    /// What is fetched.
    pub digest: Digest,
    /// The repository that it is fetched for.
    pub repository: Repository,
    /// The places, best first.
    pub places: Vec<Place>,
    /// For whom.
    pub asker: Asker,
    /// The shared store, which is looked at first.
    pub shared: Option<Shared>,
    /// The length that a manifest of the repository gives, where one does: nothing else is worth fetching
    /// from the shared store.
    pub size: Option<u64>,
    /// How many transfers a host takes.
    pub limits: Arc<HostLimits>,
    /// Who has sent wrong bytes.
    pub liars: Arc<Liars>,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wanted")
            .field("digest", &self.digest)
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}
