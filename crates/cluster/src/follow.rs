//! Following one object: by a watch, so that a change is seen at once, and by asking for it every now
//! and then, because a watch can be dead without anybody noticing.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::failure::{Failure, FailureKind};
use crate::link::Link;

/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a server that fails is left alone at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The shortest time between two questions, however small `reloadInterval` is.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// What is known about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen<T> {
    /// What it held when it was last seen; `None` when it isn't there, or was never seen.
    pub value: Option<T>,
    /// How the last look went.
    pub look: Look,
}

/// How a look at an object went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nobody has looked yet.
    Pending,
    /// It is there.
    Present,
    /// It is not there: never made, or deleted.
    Absent,
    /// The server gave no answer; what is known is from before.
    Failed(Failure),
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self {
            value: None,
            look: Look::Pending,
        }
    }
}

/// A followed object. Following ends when this is dropped.
#[derive(Debug)]
pub struct Followed<T> {
    seen: watch::Receiver<Seen<T>>,
    task: JoinHandle<()>,
}

impl<T: Clone> Followed<T> {
    /// What is known now.
    pub fn seen(&self) -> Seen<T> {
        self.seen.borrow().clone()
    }

    /// Marks for [`Followed::changed`] what is known now as known.
    pub fn seen_and_noted(&mut self) -> Seen<T> {
        self.seen.borrow_and_update().clone()
    }

    /// Waits until something is known that was not noted. Changes that come fast are one.
    pub async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            // The task only ends with this handle.
            std::future::pending::<()>().await;
        }
    }
}

impl<T> Drop for Followed<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Which object to follow, and how.
pub(crate) struct Follow<K, T> {
    pub(crate) link: Arc<Link>,
    pub(crate) namespace: &'static str,
    pub(crate) name: String,
    /// Takes what matters out of it.
    pub(crate) extract: fn(K) -> T,
    /// `reloadInterval`, asked for each time.
    pub(crate) interval: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl<K, T> Follow<K, T>
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
    pub(crate) fn start(self) -> Followed<T> {
        let (sender, seen) = watch::channel(Seen::default());
        let task = tokio::spawn(self.run(sender));
        Followed { seen, task }
    }

    async fn run(self, sender: watch::Sender<Seen<T>>) {
        let mut failures = 0;
        loop {
            // One round per client: a new one begins with a new look and a new watch.
            match self.link.client().await {
                Ok((client, generation)) => {
                    let api = Api::namespaced(client, self.namespace);
                    let failure = self.round(&api, &sender, &mut failures).await;
                    // A server that knows us and says no would say no to the next client too.
                    if failure.kind != FailureKind::Forbidden {
                        self.link.failed(generation);
                    }
                    set(&sender, None, Look::Failed(failure));
                }
                Err(failure) => set(&sender, None, Look::Failed(failure)),
            }
            tokio::time::sleep(pause(failures)).await;
            failures = failures.saturating_add(1);
        }
    }

    /// Looks and watches until a look fails.
    async fn round(
        &self,
        api: &Api<K>,
        sender: &watch::Sender<Seen<T>>,
        failures: &mut u32,
    ) -> Failure {
        let only = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut events: BoxStream<'_, _> = watcher(api.clone(), only).default_backoff().boxed();
        let mut version = Version::default();
        loop {
            match self.look(api).await {
                Ok(object) => {
                    *failures = 0;
                    self.apply(object, sender, &mut version);
                }
                Err(failure) => return failure,
            }
            let next = Instant::now() + (self.interval)().max(SHORTEST_PAUSE);
            loop {
                tokio::select! {
                    // A watch that fails comes back by itself; whether the server is well, the next
                    // look tells.
                    event = events.next() => if let Some(Ok(event)) = event {
                        self.event(event, sender, &mut version);
                    },
                    () = sleep_until(next) => break,
                }
            }
        }
    }

    async fn look(&self, api: &Api<K>) -> Result<Option<K>, Failure> {
        match timeout(ANSWER, api.get_opt(&self.name)).await {
            Ok(Ok(object)) => Ok(object),
            Ok(Err(error)) => Err(Failure::from_kube(&error)),
            Err(_) => Err(Failure::new(
                FailureKind::Unavailable,
                format!("no answer within {ANSWER:?}"),
            )),
        }
    }

    fn event(
        &self,
        event: watcher::Event<K>,
        sender: &watch::Sender<Seen<T>>,
        version: &mut Version,
    ) {
        match event {
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                // A watch may run behind what a look has shown already.
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

    fn apply(&self, object: Option<K>, sender: &watch::Sender<Seen<T>>, version: &mut Version) {
        match object {
            Some(object) => {
                *version = Version::of(&object);
                set(sender, Some((self.extract)(object)), Look::Present);
            }
            None => set(sender, None, Look::Absent),
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

fn set<T: Clone + PartialEq>(sender: &watch::Sender<Seen<T>>, value: Option<T>, look: Look) {
    sender.send_if_modified(|seen| {
        let value = match look {
            Look::Present => value,
            Look::Absent => None,
            // What was seen before stays in force while the server is away.
            Look::Pending | Look::Failed(_) => seen.value.clone(),
        };
        let new = Seen { value, look };
        let changed = *seen != new;
        if changed {
            *seen = new;
        }
        changed
    });
}

/// Doubles with every failure in a row, spread so that a cluster's nodes don't come back as one.
fn pause(failures: u32) -> Duration {
    let grown = SHORTEST_PAUSE
        .saturating_mul(2_u32.saturating_pow(failures.min(6)))
        .min(LONGEST_PAUSE);
    // The clock's odd nanoseconds are spread enough for this.
    let odd = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos() % 1000);
    grown.mul_f64(0.75 + f64::from(odd) / 2000.0)
}
