//! Which blob is fetched, and how many of one host at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::digest::Digest;
use crate::name::Repository;
use crate::pull_through::Liars;
use crate::shared::Shared;
use crate::upstream::{Asker, Place, Upstream};

/// Transfers of one upstream host that run at once; more wait, in the order they came.
const TRANSFERS_PER_HOST: usize = 16;

/// How many of them may be further connections of a blob that has one already. The rest is for the first
/// connections of others: their clients wait for an answer, and give up after half a minute.
const FURTHER_PER_HOST: usize = TRANSFERS_PER_HOST / 2;

/// Transfers that may run at once, per upstream host. Manifests and HEADs don't wait here.
#[derive(Debug, Default)]
pub struct HostLimits {
    hosts: Mutex<HashMap<String, Arc<Turns>>>,
}

#[derive(Debug)]
struct Turns {
    all: Arc<Semaphore>,
    further: Arc<Semaphore>,
}

/// One transfer's turn at a host. Dropping it is the next one's turn.
#[derive(Debug)]
pub struct Turn {
    pub(super) host: String,
    _all: OwnedSemaphorePermit,
    _further: Option<OwnedSemaphorePermit>,
}

impl HostLimits {
    fn turns(&self, host: &str) -> Arc<Turns> {
        let mut hosts = self.hosts.lock();
        if hosts.len() > 1024 {
            hosts.retain(|_, turns| Arc::strong_count(turns) > 1 || turns.is_in_use());
        }
        let entry = hosts.entry(host.to_owned()).or_insert_with(|| {
            Arc::new(Turns {
                all: Arc::new(Semaphore::new(TRANSFERS_PER_HOST)),
                further: Arc::new(Semaphore::new(FURTHER_PER_HOST)),
            })
        });
        Arc::clone(entry)
    }

    /// A turn for what a client waits for.
    pub(super) async fn acquire(&self, host: String) -> Option<Turn> {
        let turns = self.turns(&host);
        // Never closed, so this only ever waits.
        let all = Arc::clone(&turns.all).acquire_owned().await.ok()?;
        Some(Turn {
            host,
            _all: all,
            _further: None,
        })
    }

    /// A turn for one more connection of a blob that is arriving already.
    pub(in crate::pull_through) async fn acquire_further(&self, host: String) -> Option<Turn> {
        let turns = self.turns(&host);
        let further = Arc::clone(&turns.further).acquire_owned().await.ok()?;
        let all = Arc::clone(&turns.all).acquire_owned().await.ok()?;
        Some(Turn {
            host,
            _all: all,
            _further: Some(further),
        })
    }
}

impl Turns {
    fn is_in_use(&self) -> bool {
        self.all.available_permits() < TRANSFERS_PER_HOST
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
    /// Bytes that have come from places, stored or not.
    pub received: Arc<AtomicU64>,
}

impl Wanted {
    /// Whether nothing comes of it for whoever asks on behalf of the same one and for the same repository. For all
    /// others other places may be asked, or the same ones say something else.
    pub fn speaks_for(&self, other: &Self) -> bool {
        self.repository == other.repository
            && self.asker.credentials == other.asker.credentials
            && self.asker.via == other.asker.via
    }

    /// The place that a source's number stands for; none for the shared store.
    pub fn place(&self, source: usize) -> Option<&Place> {
        self.places.get(source.checked_sub(1)?)
    }

    /// Whether it is of little use to ask a source at the moment.
    pub fn is_silent(&self, source: usize) -> bool {
        self.place(source)
            .is_some_and(|place| self.upstream.is_silent(place).is_some())
    }
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wanted")
            .field("digest", &self.digest)
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}
