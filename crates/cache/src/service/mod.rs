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
use self::refusal::SoFar;
use crate::digest::Digest;
use crate::flights::Flights;
use crate::freshness::Freshness;
use crate::index::Link;
use crate::name::Repository;
use crate::pull_through::{HostLimits, Liars, Parallelism, Transfers};
use crate::rights::{Caller, Proofs};
use crate::shared::Shared;
use crate::storage::{Storage, StorageError};
use crate::upstream::{Asker, Failure, Failures, Place, Upstream};

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
    manifests: Flights<manifests::Key, Result<Given<Manifest>, Refusal>>,
    blob_proofs: Flights<manifests::Key, Result<Given<Option<u64>>, Refusal>>,
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

/// What a place has given, or says that it has.
#[derive(Clone, Debug)]
struct Given<T> {
    what: T,
    /// The place's name.
    place: String,
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

    /// Tells of what belongs to the caller's repository whether he may have it: because everybody may, or
    /// because he has proved his right at the place that it came from. What one place gives to everybody
    /// opens nothing of another's, not even under the same name.
    fn rights(&self, who: &Who) -> impl Fn(&Link) -> bool + Send + 'static {
        let (cache, repository) = (self.clone(), who.repository.clone());
        let caller = self.caller(who);
        move |link| {
            let proofs = &cache.inner.proofs;
            let has_proof = |caller| proofs.has(&repository, &link.place, caller);
            link.is_everybodys() || caller.is_some_and(has_proof)
        }
    }

    /// By which right this caller may have what belongs to his repository; None where he has to prove one.
    fn right(&self, who: &Who, link: &Link) -> Option<Class> {
        self.rights(who)(link).then_some(match link.is_everybodys() {
            true => Class::Everybody,
            false => Class::Caller,
        })
    }

    /// A place has given something of a repository. What it gives to everybody is noted with the thing
    /// itself.
    fn proved(&self, who: &Who, class: Class, place: &str) {
        if class == Class::Caller
            && let Some(caller) = self.caller(who)
        {
            let ttl = self.settings().auth_ttl;
            self.inner.proofs.prove(&who.repository, place, caller, ttl);
        }
    }

    /// Places refuse a repository.
    fn closed(&self, who: &Who, class: Class, failures: &Failures) {
        let proofs = &self.inner.proofs;
        match (class, self.caller(who)) {
            (Class::Everybody, _) => {
                proofs.close(&who.repository, self.settings().negative_ttl);
            }
            (Class::Caller, Some(caller)) => {
                for (place, failure) in &failures.0 {
                    if matches!(failure, Failure::Refused(_)) {
                        proofs.withdraw(&who.repository, place, caller);
                    }
                }
            }
            (Class::Caller, None) => {}
        }
    }

    /// What a place gave to everybody of a repository is private now.
    async fn take_back(&self, repository: &Repository, place: &str) {
        let (wanted, place) = (repository.clone(), place.to_owned());
        let closed = self.stored(move |storage| Ok(storage.index().close(&wanted, &place)?));
        if let Err(error) = closed.await {
            self.storage().report_failure(&error);
        }
    }

    /// The classes to try, in their order: everybody's first, unless that was refused a moment ago and
    /// the caller has something of his own.
    fn classes(&self, who: &Who) -> Vec<Class> {
        // Credentials that no place takes are none.
        if who.credentials.is_none() || self.places(who, Class::Caller).is_empty() {
            return vec![Class::Everybody];
        }
        match self.inner.proofs.is_closed(&who.repository) {
            false => vec![Class::Everybody, Class::Caller],
            true => vec![Class::Caller, Class::Everybody],
        }
    }

    /// Why there is nothing to give, in the end. Where nobody has it, that is remembered.
    fn refuse(&self, name: &str, so_far: &SoFar) -> Refusal {
        if so_far.is_miss() {
            let ttl = self.settings().negative_ttl;
            self.inner.misses.note(name, ttl);
        }
        so_far.refusal()
    }

    /// Notes what one class was told. Whether the next one may have something else.
    fn refused(&self, who: &Who, class: Class, refusal: Refusal, so_far: &mut SoFar) -> bool {
        if let Refusal::Unauthorized(failures) = &refusal {
            self.closed(who, class, failures);
        }
        so_far.add(class, refusal)
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
