//! Following one object: by a watch, so that a change is seen at once.
//!
//! While no watch stands, the object is asked for every `reloadInterval`. While one stands, a check every
//! few minutes is enough: ten thousand nodes that asked every 15 seconds would be a load of their own.

use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use policy::backoff::Backoff;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::client::ClientProvider;
use crate::failure::{Failure, FailureKind};

/// How long one question may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The shortest time between two questions, however small `reloadInterval` is.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// Pauses between tries of a server that fails.
const BACKOFF: Backoff = Backoff {
    first: SHORTEST_INTERVAL,
    longest: Duration::from_secs(60),
};
/// How long a watch must be without an error to count as standing again. A watch that fails is tried
/// again at most 30 seconds later, so one that still fails says so within this time.
const QUIET_INTERVAL: Duration = Duration::from_secs(60);

/// What is known about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot<T> {
    /// What it held when it was last read; `None` when it isn't there, or was never read.
    pub value: Option<T>,
    /// How the last try to read it went.
    pub last_sync: LastSync,
}

/// How the last try to read an object went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastSync {
    /// There was none yet.
    Pending,
    /// It is there.
    Present,
    /// It is not there: never made, or deleted.
    Absent,
    /// The server gave no answer; what is known is from before.
    Failed(Failure),
}

impl<T> Default for Snapshot<T> {
    fn default() -> Self {
        Self {
            value: None,
            last_sync: LastSync::Pending,
        }
    }
}

/// A followed object. Following ends when this is dropped.
#[derive(Debug)]
pub struct WatchedObject<T> {
    latest: watch::Receiver<Snapshot<T>>,
    /// Ends with this handle.
    _task: AbortOnDropHandle<()>,
}

impl<T: Clone> WatchedObject<T> {
    /// What is known now.
    pub fn snapshot(&self) -> Snapshot<T> {
        self.latest.borrow().clone()
    }

    /// Marks for [`WatchedObject::changed`] what is known now as known.
    pub fn take_snapshot(&mut self) -> Snapshot<T> {
        self.latest.borrow_and_update().clone()
    }

    /// Waits until something is known that was not taken. Changes that come fast are one.
    pub async fn changed(&mut self) {
        if self.latest.changed().await.is_err() {
            // The task only ends with this handle.
            std::future::pending::<()>().await;
        }
    }
}

/// Which object to follow, and how.
pub(crate) struct Target<K, T> {
    pub(crate) clients: Arc<ClientProvider>,
    pub(crate) namespace: &'static str,
    pub(crate) name: String,
    /// Takes what matters out of it.
    pub(crate) extract: fn(K) -> T,
    /// `reloadInterval`, asked for each time.
    pub(crate) interval: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl<K, T> Target<K, T>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
    T: Clone + PartialEq + Send + Sync + 'static,
{
    /// Starts following on the current runtime; never waits.
    pub(crate) fn start(self) -> WatchedObject<T> {
        let (sender, latest) = watch::channel(Snapshot::default());
        let task = AbortOnDropHandle::new(tokio::spawn(self.run(sender)));
        WatchedObject {
            latest,
            _task: task,
        }
    }

    async fn run(self, sender: watch::Sender<Snapshot<T>>) {
        let mut failures = 0;
        loop {
            // A new client begins with a new question and a new watch.
            match self.clients.client().await {
                Ok((client, generation)) => {
                    let api = Api::namespaced(client, self.namespace);
                    let failure = self.follow(&api, &sender, &mut failures).await;
                    // A server that knows us and says no would say no to the next client too.
                    if failure.kind != FailureKind::Forbidden {
                        self.clients.failed(generation);
                    }
                    set(&sender, None, LastSync::Failed(failure));
                }
                Err(failure) => set(&sender, None, LastSync::Failed(failure)),
            }
            failures = failures.saturating_add(1);
            tokio::time::sleep(BACKOFF.spread_pause(failures, random())).await;
        }
    }

    /// Asks and watches until a question fails.
    async fn follow(
        &self,
        api: &Api<K>,
        sender: &watch::Sender<Snapshot<T>>,
        failures: &mut u32,
    ) -> Failure {
        let only = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut events: BoxStream<'_, _> = watcher(api.clone(), only).default_backoff().boxed();
        let mut version = Version::default();
        let mut watch = WatchState::default();
        loop {
            match self.ask(api).await {
                Ok(object) => {
                    *failures = 0;
                    self.apply(object, sender, &mut version);
                }
                Err(failure) => return failure,
            }
            let asked = Instant::now();
            let check_interval = between(&self.clients.check_interval());
            loop {
                let interval = if watch.stands(Instant::now()) {
                    check_interval
                } else {
                    (self.interval)().max(SHORTEST_INTERVAL)
                };
                let due = asked + interval;
                if Instant::now() >= due {
                    break;
                }
                tokio::select! {
                    event = events.next() => match event {
                        Some(Ok(event)) => {
                            watch.note(&event);
                            self.event(event, sender, &mut version);
                        }
                        // It comes back by itself; whether the server is well, the next question tells.
                        Some(Err(_)) | None => watch.failed(Instant::now()),
                    },
                    () = sleep_until(due) => {}
                }
            }
        }
    }

    async fn ask(&self, api: &Api<K>) -> Result<Option<K>, Failure> {
        match timeout(ANSWER_TIMEOUT, api.get_opt(&self.name)).await {
            Ok(Ok(object)) => Ok(object),
            Ok(Err(error)) => Err(Failure::from_kube(&error)),
            Err(_) => Err(Failure::new(
                FailureKind::Unavailable,
                format!("no answer within {ANSWER_TIMEOUT:?}"),
            )),
        }
    }

    fn event(
        &self,
        event: watcher::Event<K>,
        sender: &watch::Sender<Snapshot<T>>,
        version: &mut Version,
    ) {
        match event {
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                // A watch may run behind what an answer has shown already.
                if version.admits(&object) {
                    self.apply(Some(object), sender, version);
                }
            }
            watcher::Event::Delete(object) => {
                if version.admits(&object) {
                    self.apply(None, sender, version);
                }
            }
            watcher::Event::Init | watcher::Event::InitDone => {}
        }
    }

    fn apply(&self, object: Option<K>, sender: &watch::Sender<Snapshot<T>>, version: &mut Version) {
        match object {
            Some(object) => {
                *version = Version::of(&object);
                set(sender, Some((self.extract)(object)), LastSync::Present);
            }
            None => set(sender, None, LastSync::Absent),
        }
    }
}

/// An object's `resourceVersion`. Servers count upwards; where one doesn't, nothing is held back.
#[derive(Default)]
struct Version(Option<u128>);

impl Version {
    fn of(object: &impl ResourceExt) -> Self {
        Self(object.resource_version().and_then(|v| v.parse().ok()))
    }

    fn admits(&self, object: &impl ResourceExt) -> bool {
        match (self.0, Self::of(object).0) {
            (Some(known), Some(new)) => new >= known,
            _ => true,
        }
    }
}

/// What is known of the watch.
#[derive(Default)]
struct WatchState {
    /// Whether it has told all that there is.
    is_complete: bool,
    last_error: Option<Instant>,
}

impl WatchState {
    fn note<K>(&mut self, event: &watcher::Event<K>) {
        match event {
            watcher::Event::Init => self.is_complete = false,
            watcher::Event::InitDone => {
                self.is_complete = true;
                self.last_error = None;
            }
            // What comes by the watch comes by one that stands.
            watcher::Event::Apply(_) | watcher::Event::Delete(_) => self.last_error = None,
            watcher::Event::InitApply(_) => {}
        }
    }

    fn failed(&mut self, now: Instant) {
        self.last_error = Some(now);
    }

    fn stands(&self, now: Instant) -> bool {
        let is_quiet = |error| now.saturating_duration_since(error) >= QUIET_INTERVAL;
        self.is_complete && self.last_error.is_none_or(is_quiet)
    }
}

fn set<T: Clone + PartialEq>(
    sender: &watch::Sender<Snapshot<T>>,
    value: Option<T>,
    last_sync: LastSync,
) {
    sender.send_if_modified(|snapshot| {
        let value = match last_sync {
            LastSync::Present => value,
            LastSync::Absent => None,
            // What was read before stays in force while the server can't be reached.
            LastSync::Pending | LastSync::Failed(_) => snapshot.value.clone(),
        };
        let new = Snapshot { value, last_sync };
        let changed = *snapshot != new;
        if changed {
            *snapshot = new;
        }
        changed
    });
}

/// A time from `range`.
fn between(range: &Range<Duration>) -> Duration {
    let width = range.end.saturating_sub(range.start);
    range.start + width.mul_f64(random())
}

/// A number from 0 to 1, another one each time and on each node.
fn random() -> f64 {
    // Each state has keys of its own.
    let bits = RandomState::new().hash_one(());
    f64::from((bits >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_watch_stands_when_it_is_complete_and_quiet() {
        let mut watch = WatchState::default();
        let stands = |watch: &WatchState| watch.stands(Instant::now());
        assert!(!stands(&watch));
        watch.note(&watcher::Event::<()>::Init);
        assert!(!stands(&watch));
        watch.note(&watcher::Event::<()>::InitDone);
        assert!(stands(&watch));
        watch.failed(Instant::now());
        assert!(!stands(&watch));
        tokio::time::advance(QUIET_INTERVAL).await;
        assert!(stands(&watch), "no further error came");
        watch.failed(Instant::now());
        watch.note(&watcher::Event::Apply(()));
        assert!(stands(&watch), "it has told something");
        // It begins from the start, as after 410 Gone.
        watch.note(&watcher::Event::<()>::Init);
        assert!(!stands(&watch));
    }

    #[test]
    fn checks_are_spread() {
        let range = Duration::from_secs(300)..Duration::from_secs(600);
        let times: Vec<_> = (0..100).map(|_| between(&range)).collect();
        assert!(
            times
                .iter()
                .all(|time| *time >= range.start && *time <= range.end)
        );
        assert!(times.iter().any(|time| *time < Duration::from_secs(400)));
        assert!(times.iter().any(|time| *time > Duration::from_secs(500)));
    }
}
