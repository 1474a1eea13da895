//! What is known about each registry, so that the next probe needs one request instead of three.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use policy::Credentials;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

use crate::registry::{Registry, Site};
use crate::ttl::Ttl;

/// Registries that are remembered. A node has a handful; the bound is for configs that change often.
const MAX_REGISTRIES: usize = 1024;
/// Askers per registry whose authorization is remembered: the config's entries for it, and the pull secrets of a
/// node's Pods.
const MAX_ASKERS: usize = 64;

/// What was learnt about one registry. The default knows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Knowledge {
    /// It has answered; for many there is nothing more to know.
    pub(crate) answered: bool,
    /// Whether it answered in plain HTTP; only asked of registries for which both are tried.
    pub(crate) plain: Option<bool>,
    /// It refuses HEAD on manifests and answers GET.
    pub(crate) head_refused: bool,
}

/// Whose questions one memory of authorization is for. One host can be several registries with a token
/// service each, and what one of them takes must not be offered to the service of another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asker {
    /// Path of the entry.
    path: String,
    credentials: Option<Credentials>,
}

impl Asker {
    pub(crate) fn of(registry: &Registry) -> Self {
        Self {
            path: registry.endpoint.path().to_owned(),
            credentials: registry.credentials.clone(),
        }
    }
}

/// The kind of authorization that a registry asked for. A shortcut, never a verdict: what it leads to counts
/// only when the registry has not named anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KnownAuth {
    /// User name and password with every request.
    Basic,
    /// A token from a service, one per repository, with the scope that the specification gives.
    Bearer {
        /// The token service.
        realm: Url,
        /// What the token service knows the registry as.
        service: Option<String>,
    },
    /// Not the same for all repositories: each question waits for its own challenge.
    Varies,
}

/// Counters of what is known about registries ("domain cache" in the stats line).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Questions that found something known about their registry.
    pub hits: u64,
    /// Questions that began from nothing.
    pub misses: u64,
    /// Registries whose knowledge was dropped: too old, or no room.
    pub evictions: u64,
}

/// Knowledge and request slots per registry. Not a cache crate's map: the slots must stay the same
/// ones for as long as a probe holds one, however old the knowledge beside them gets.
pub(crate) struct Registries {
    ttl: Ttl,
    slots_each: usize,
    entries: Mutex<HashMap<Site, Entry>>,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

struct Entry {
    knowledge: Knowledge,
    /// How it wants to be told who asks.
    auth: HashMap<Asker, KnownAuth>,
    learnt_at: Instant,
    slots: Arc<Semaphore>,
}

impl Registries {
    pub(crate) fn new(ttl: Ttl, slots_each: usize) -> Self {
        Self {
            ttl,
            slots_each,
            entries: Mutex::new(HashMap::new()),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    /// The slots of a registry: as many requests as may be under way to it at once.
    pub(crate) fn slots(&self, site: &Site, now: Instant) -> Arc<Semaphore> {
        self.with(site, now, |entry| entry.slots.clone())
    }

    /// What is known and not too old; counted as a hit where that is anything.
    pub(crate) fn recall(
        &self,
        site: &Site,
        asker: &Asker,
        now: Instant,
    ) -> (Knowledge, Option<KnownAuth>) {
        let (known, auth, blank) = self.with(site, now, |entry| {
            let auth = entry.auth.get(asker).cloned();
            (entry.knowledge.clone(), auth, entry.is_blank())
        });
        let counter = if blank { &self.misses } else { &self.hits };
        counter.fetch_add(1, Ordering::Relaxed);
        (known, auth)
    }

    /// Notes something new. Age counts from the first thing learnt, so that all of it is
    /// questioned again after the time to live.
    pub(crate) fn learn(&self, site: &Site, now: Instant, note: impl FnOnce(&mut Knowledge)) {
        self.with(site, now, |entry| {
            if entry.is_blank() {
                entry.learnt_at = now;
            }
            note(&mut entry.knowledge);
        });
    }

    /// Notes how one asker is asked who he is; `None` forgets it. Age counts as in [`Self::learn`].
    pub(crate) fn learn_auth(
        &self,
        site: &Site,
        asker: &Asker,
        now: Instant,
        auth: Option<KnownAuth>,
    ) {
        self.with(site, now, |entry| {
            if entry.is_blank() {
                entry.learnt_at = now;
            }
            let Some(auth) = auth else {
                entry.auth.remove(asker);
                return;
            };
            // Beginning anew costs each asker one request.
            if entry.auth.len() >= MAX_ASKERS && !entry.auth.contains_key(asker) {
                entry.auth.clear();
            }
            entry.auth.insert(asker.clone(), auth);
        });
    }

    /// Forgets all about a registry.
    pub(crate) fn forget(&self, site: &Site, now: Instant) {
        self.with(site, now, Entry::wipe);
    }

    pub(crate) fn stats(&self) -> ClientStats {
        ClientStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }

    fn with<T>(&self, site: &Site, now: Instant, act: impl FnOnce(&mut Entry) -> T) -> T {
        let mut entries = self.entries.lock();
        if !entries.contains_key(site) && entries.len() >= MAX_REGISTRIES {
            self.make_room(&mut entries);
        }
        let entry = entries.entry(site.clone()).or_insert_with(|| Entry {
            knowledge: Knowledge::default(),
            auth: HashMap::new(),
            learnt_at: now,
            slots: Arc::new(Semaphore::new(self.slots_each)),
        });
        if !entry.is_blank() && now.saturating_duration_since(entry.learnt_at) >= self.ttl.get() {
            entry.wipe();
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        act(entry)
    }

    /// Drops the oldest registry that nobody is asking right now.
    fn make_room(&self, entries: &mut HashMap<Site, Entry>) {
        let oldest = entries
            .iter()
            .filter(|(_, entry)| Arc::strong_count(&entry.slots) == 1)
            .min_by_key(|(_, entry)| entry.learnt_at)
            .map(|(site, _)| site.clone());
        if let Some(entry) = oldest.and_then(|site| entries.remove(&site))
            && !entry.is_blank()
        {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Entry {
    fn is_blank(&self) -> bool {
        self.knowledge == Knowledge::default() && self.auth.is_empty()
    }

    fn wipe(&mut self) {
        self.knowledge = Knowledge::default();
        self.auth.clear();
    }
}

#[cfg(test)]
mod tests {
    use policy::Endpoint;

    use std::time::Duration;

    use super::*;

    fn site(address: &str) -> Site {
        Site::of(&Endpoint::parse(address).unwrap().0)
    }

    fn nobody() -> Asker {
        asker("a.io", None)
    }

    fn asker(address: &str, credentials: Option<Credentials>) -> Asker {
        Asker::of(&Registry {
            credentials,
            ..Registry::anonymous(Endpoint::parse(address).unwrap().0)
        })
    }

    fn recall(registries: &Registries, site: &Site, now: Instant) -> Knowledge {
        registries.recall(site, &nobody(), now).0
    }

    #[test]
    fn knowledge_lasts_its_time_and_is_counted() {
        let registries = Registries::new(Ttl::new(Duration::from_secs(60)), 4);
        let (a, b) = (site("a.io"), site("b.io"));
        let start = Instant::now();
        assert_eq!(recall(&registries, &a, start), Knowledge::default());
        registries.learn(&a, start, |k| k.head_refused = true);
        let later = start + Duration::from_secs(59);
        registries.learn_auth(&a, &nobody(), later, Some(KnownAuth::Basic));
        assert!(recall(&registries, &a, later).head_refused);
        assert_eq!(recall(&registries, &b, later), Knowledge::default());

        let expired = start + Duration::from_secs(60);
        let (known, auth) = registries.recall(&a, &nobody(), expired);
        assert_eq!((known, auth), (Knowledge::default(), None));
        assert_eq!(
            registries.stats(),
            ClientStats {
                hits: 1,
                misses: 3,
                evictions: 1
            }
        );
    }

    #[test]
    fn each_asker_has_a_memory_of_his_own() {
        let registries = Registries::new(Ttl::new(Duration::from_secs(60)), 4);
        let (site, now) = (site("a.io"), Instant::now());
        let one = asker("a.io/one", Some(Credentials::new("u", "p")));
        registries.learn_auth(&site, &one, now, Some(KnownAuth::Basic));
        assert_eq!(
            registries.recall(&site, &one, now).1,
            Some(KnownAuth::Basic)
        );
        for other in [
            asker("a.io/two", Some(Credentials::new("u", "p"))),
            asker("a.io/one", Some(Credentials::new("v", "p"))),
            asker("a.io/one", None),
        ] {
            assert_eq!(registries.recall(&site, &other, now).1, None);
        }
        registries.learn_auth(&site, &one, now, None);
        assert_eq!(registries.recall(&site, &one, now).1, None);

        for n in 0..4 * MAX_ASKERS {
            let asker = asker(&format!("a.io/{n}"), None);
            registries.learn_auth(&site, &asker, now, Some(KnownAuth::Basic));
            let known = registries.with(&site, now, |entry| entry.auth.len());
            assert!(known <= MAX_ASKERS);
        }
    }

    #[test]
    fn registries_are_bounded_and_busy_ones_keep_their_slots() {
        let registries = Registries::new(Ttl::new(Duration::from_secs(60)), 4);
        let start = Instant::now();
        let busy = site("busy.io");
        let slots = registries.slots(&busy, start);
        for n in 0..2 * MAX_REGISTRIES {
            let one = site(&format!("r{n}.io"));
            registries.learn(&one, start + Duration::from_millis(n as u64), |k| {
                k.head_refused = true;
            });
        }
        assert_eq!(registries.entries.lock().len(), MAX_REGISTRIES);
        assert!(Arc::ptr_eq(&slots, &registries.slots(&busy, start)));
        assert_eq!(
            registries.stats().evictions as usize,
            2 * MAX_REGISTRIES - (MAX_REGISTRIES - 1)
        );
    }

    #[test]
    fn a_new_time_to_live_holds_for_what_is_known_already() {
        let ttl = Ttl::new(Duration::from_secs(60));
        let registries = Registries::new(ttl.clone(), 4);
        let endpoint = policy::Endpoint::parse("a.io").unwrap().0;
        let (site, start) = (Site::of(&endpoint), Instant::now());
        registries.learn(&site, start, |known| known.head_refused = true);
        let later = start + Duration::from_secs(30);
        assert!(recall(&registries, &site, later).head_refused);
        ttl.set(Duration::from_secs(10));
        assert!(!recall(&registries, &site, later).head_refused);
    }
}
