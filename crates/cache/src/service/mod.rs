//! What the cache answers: from its store where it may and can, else from upstream.

mod blobs;
mod counters;
mod lists;
mod manifests;
mod misses;
mod refusal;
mod sharing;
mod tags;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use policy::Credentials;

pub use self::blobs::BlobAnswer;
pub use self::counters::{Counters, Kind as RequestKind, Outcome as RequestOutcome};
pub use self::lists::ListAnswer;
use self::misses::Misses;
pub use self::refusal::Refusal;
use crate::digest::Digest;
use crate::flights::Flights;
use crate::freshness::Freshness;
use crate::index::RepositoryRight;
use crate::name::Repository;
use crate::pull_through::{HostLimits, Liars, Parallelism, Transfers};
use crate::rights::{Caller, Proofs};
use crate::shared::Shared;
use crate::storage::{Storage, StorageError, now};
use crate::upstream::{Asker, Place, Upstream};

/// How the cache behaves; can change while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How fresh tags have to be.
    pub freshness: Freshness,
    /// How long a caller's proof of his right is remembered.
    pub auth_ttl: Duration,
    /// How long it is remembered that nobody has something.
    pub negative_ttl: Duration,
    /// Over how many connections large blobs are fetched.
    pub parallelism: Parallelism,
}

/// Who asks, and for what repository.
#[derive(Clone, Debug)]
pub struct Who {
    /// The repository.
    pub repository: Repository,
    /// What the client sent, where it sent something.
    pub credentials: Option<Credentials>,
    /// The caches that the request has come through already.
    pub via: Arc<[String]>,
}

impl Who {
    /// Nobody in particular: for commands.
    pub fn nobody(repository: Repository) -> Self {
        Self {
            repository,
            credentials: None,
            via: Arc::default(),
        }
    }
}

/// A manifest that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its bytes.
    pub content: Bytes,
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Whether it was in the store.
    pub is_hit: bool,
    /// Why it is not fresh, where it isn't; ours, or a cache's above us.
    pub warning: Option<String>,
}

/// The cache. Clones are the same cache.
#[derive(Clone, Debug)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    /// Replaced when a directory that could not be used can be used again.
    storage: RwLock<Arc<Storage>>,
    settings: RwLock<Arc<Settings>>,
    upstream: Arc<dyn Upstream>,
    /// Replaced when the config names another one.
    shared: RwLock<Option<Shared>>,
    transfers: Transfers,
    limits: Arc<HostLimits>,
    liars: Arc<Liars>,
    proofs: Proofs,
    misses: Misses,
    rounds: Flights<tags::RoundKey, Arc<tags::Outcome>>,
    manifests: Flights<manifests::Key, Result<Manifest, Refusal>>,
    blob_proofs: Flights<manifests::Key, Result<Option<u64>, Refusal>>,
    counters: Counters,
    reported: Misses,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("settings", &self.settings)
            .field("transfers", &self.transfers)
            .finish_non_exhaustive()
    }
}

/// On whose behalf upstream is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// With the config's credentials, or none: what comes of it is for everybody.
    Everybody,
    /// With the caller's: what comes of it is his.
    Caller,
}

/// How long one and the same thing is not reported again in the log.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

impl Cache {
    /// A cache over a store and its upstream.
    pub fn new(
        storage: Arc<Storage>,
        upstream: Arc<dyn Upstream>,
        shared: Option<Shared>,
        settings: Settings,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                storage: RwLock::new(storage),
                settings: RwLock::new(Arc::new(settings)),
                upstream,
                shared: RwLock::new(shared),
                transfers: Transfers::default(),
                limits: Arc::default(),
                liars: Arc::default(),
                proofs: Proofs::default(),
                misses: Misses::default(),
                rounds: Flights::default(),
                manifests: Flights::default(),
                blob_proofs: Flights::default(),
                counters: Counters::default(),
                reported: Misses::default(),
            }),
        }
    }

    /// The store in use.
    pub fn storage(&self) -> Arc<Storage> {
        Arc::clone(&self.inner.storage.read())
    }

    /// Uses another store from now on.
    pub fn replace_storage(&self, storage: Arc<Storage>) {
        *self.inner.storage.write() = storage;
    }

    /// The store that it shares with others.
    pub fn shared(&self) -> Option<Shared> {
        self.inner.shared.read().clone()
    }

    /// Shares another store from now on, or none.
    pub fn set_shared(&self, shared: Option<Shared>) {
        *self.inner.shared.write() = shared;
    }

    /// Changes how it behaves. What is under way goes on as it began.
    pub fn configure(&self, settings: Settings) {
        *self.inner.settings.write() = Arc::new(settings);
        // A miss may be none under the new rules.
        self.inner.misses.clear();
    }

    /// Who is asked.
    pub fn upstream(&self) -> &Arc<dyn Upstream> {
        &self.inner.upstream
    }

    /// What is being downloaded.
    pub fn transfers(&self) -> &Transfers {
        &self.inner.transfers
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.inner.settings.read())
    }

    /// Runs what blocks on the store where blocking is fine.
    pub(crate) async fn stored<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Storage) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let storage = self.storage();
        let done = tokio::task::spawn_blocking(move || work(&storage)).await;
        done.unwrap_or_else(|ended| Err(std::io::Error::other(ended).into()))
    }

    fn caller(&self, who: &Who) -> Option<Caller> {
        let credentials = who.credentials.as_ref()?;
        Some(self.inner.proofs.caller(credentials))
    }

    /// Whether everybody may have what a repository holds, or this caller has proved that he may.
    async fn may(&self, who: &Who) -> bool {
        if self.has_proof(who) {
            return true;
        }
        self.is_open(&who.repository).await
    }

    fn has_proof(&self, who: &Who) -> bool {
        self.caller(who)
            .is_some_and(|caller| self.inner.proofs.has(&who.repository, caller))
    }

    async fn is_open(&self, repository: &Repository) -> bool {
        let wanted = repository.clone();
        let right = self
            .stored(move |storage| Ok(storage.index().right(&wanted)?))
            .await;
        matches!(right, Ok(Some(RepositoryRight { open: true, .. })))
    }

    /// Upstream has given something of a repository.
    async fn opened(&self, who: &Who, class: Class) {
        match class {
            Class::Everybody => {
                if !self.is_open(&who.repository).await {
                    self.set_open(&who.repository, true).await;
                }
            }
            Class::Caller => {
                if let Some(caller) = self.caller(who) {
                    let ttl = self.settings().auth_ttl;
                    self.inner.proofs.prove(&who.repository, caller, ttl);
                }
            }
        }
    }

    /// Upstream refuses a repository.
    async fn closed(&self, who: &Who, class: Class) {
        match class {
            Class::Everybody => {
                let ttl = self.settings().negative_ttl;
                self.inner.proofs.close(&who.repository, ttl);
            }
            Class::Caller => {
                if let Some(caller) = self.caller(who) {
                    self.inner.proofs.withdraw(&who.repository, caller);
                }
            }
        }
    }

    async fn set_open(&self, repository: &Repository, open: bool) {
        let wanted = repository.clone();
        let right = RepositoryRight { open, at: now() };
        let set = self.stored(move |storage| Ok(storage.index().set_right(&wanted, &right)?));
        if let Err(error) = set.await {
            self.storage().report_failure(&error);
        }
    }

    /// The classes to try, in their order: everybody's first, unless that was refused a moment ago and
    /// the caller has something of his own.
    fn classes(&self, who: &Who) -> Vec<Class> {
        let has_own = who.credentials.is_some();
        let was_refused = self.inner.proofs.is_closed(&who.repository);
        match (has_own, was_refused) {
            (false, _) => vec![Class::Everybody],
            (true, false) => vec![Class::Everybody, Class::Caller],
            (true, true) => vec![Class::Caller],
        }
    }

    fn places(&self, who: &Who, class: Class) -> Vec<Place> {
        let mut places = self.inner.upstream.places(&who.repository);
        if class == Class::Caller {
            places.retain(Place::is_callers);
        }
        places
    }

    fn asker(&self, who: &Who, class: Class) -> Asker {
        Asker {
            credentials: match class {
                Class::Everybody => None,
                Class::Caller => who.credentials.clone(),
            },
            via: Arc::clone(&who.via),
        }
    }

    /// Says something that lasts, once a minute.
    fn say(&self, about: &str, text: impl FnOnce() -> String) {
        if !self.inner.reported.has(about) {
            self.inner.reported.note(about, REPORT_INTERVAL);
            tracing::warn!("{}", text());
        }
    }
}
