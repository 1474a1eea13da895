//! Following one object: by a watch, so that a change is seen at once.
//!
//! A watch begins with the object as it is (`resourceVersion=0`), so that opening one is also a check: while
//! all goes well, a node sends one request every 5 to 10 minutes and no other. The object is asked for by itself
//! only where a new watch shows nothing that can be believed, and every `reloadInterval` where the server lets
//! no watch through.
//!
//! Ten thousand nodes lose their watches in the same moment when the API server restarts. Each opens its own
//! again at a moment of its own of the next `reloadInterval`, once in each such time (`retry`), and goes on by
//! what it knows until then.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::client::ClientProvider;
use crate::failure::{Failure, FailureKind};
use crate::retry::Retry;

/// How long one question may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The shortest time between two questions, however small `reloadInterval` is.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// How long the object may take to come by a watch that was just opened.
const FIRST_EVENT_TIMEOUT: Duration = Duration::from_secs(1);
/// How much longer than it asked for a watch is waited for: who ends it is the server.
const WATCH_MARGIN: Duration = Duration::from_secs(10);

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
        let mut retry = Retry::default();
        let mut version = Version::default();
        loop {
            // A new client begins with a new watch.
            let failure = match self.clients.client().await {
                Ok((client, generation)) => {
                    let api = Api::namespaced(client, self.namespace);
                    let following = Following {
                        target: &self,
                        api,
                        sender: &sender,
                        version: &mut version,
                    };
                    let failure = following.run(&mut retry).await;
                    // A server that knows us and says no would say no to the next client too.
                    if failure.kind != FailureKind::Forbidden {
                        self.clients.failed(generation);
                    }
                    failure
                }
                Err(failure) => failure,
            };
            set(&sender, None, LastSync::Failed(failure));
            let pause = retry.failed(Instant::now(), self.interval(), self.clients.random());
            tokio::time::sleep(pause).await;
        }
    }

    fn interval(&self) -> Duration {
        (self.interval)().max(SHORTEST_INTERVAL)
    }
}

/// Following through one client.
struct Following<'a, K, T> {
    target: &'a Target<K, T>,
    api: Api<K>,
    sender: &'a watch::Sender<Snapshot<T>>,
    version: &'a mut Version,
}

impl<K, T> Following<'_, K, T>
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
    /// Opens one watch after another until the server gives no answer.
    async fn run(mut self, retry: &mut Retry) -> Failure {
        loop {
            let length = between(&self.target.clients.check_interval(), self.random());
            match self.open(length).await {
                Ok(events) => {
                    let opened = Instant::now();
                    let deadline = opened + length + WATCH_MARGIN;
                    match self.follow(events, deadline, retry).await {
                        Ok(true) => {}
                        Ok(false) => match self.poll(retry).await {
                            Ok(()) => continue,
                            Err(failure) => return failure,
                        },
                        Err(failure) => return failure,
                    }
                    let interval = self.target.interval();
                    let pause = retry.ended(opened, length, interval, self.random());
                    tokio::time::sleep(pause).await;
                }
                Err(error) if is_watch_refused(&error) => {
                    if let Err(failure) = self.poll(retry).await {
                        return failure;
                    }
                }
                Err(error) => return failure(&error),
            }
        }
    }

    /// Opens a watch that the server is to end after `length`.
    async fn open(&self, length: Duration) -> Result<Events<K>, OpenError> {
        let seconds = u32::try_from(length.as_secs()).unwrap_or(u32::MAX).max(1);
        let only = WatchParams::default()
            .fields(&format!("metadata.name={}", self.target.name))
            .timeout(seconds);
        let opening = self.api.watch(&only, FROM_NOW);
        match timeout(ANSWER_TIMEOUT, opening).await {
            Ok(Ok(events)) => Ok(events.boxed()),
            Ok(Err(error)) => Err(Some(error)),
            Err(_late) => Err(None),
        }
    }

    /// Takes what a watch says until it ends. False where it has ended before it said anything.
    async fn follow(
        &mut self,
        mut events: Events<K>,
        deadline: Instant,
        retry: &mut Retry,
    ) -> Result<bool, Failure> {
        let first = timeout(FIRST_EVENT_TIMEOUT, events.next()).await;
        let is_believed = match &first {
            Ok(Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)))) => {
                self.version.admits(object)
            }
            Ok(None | Some(Ok(WatchEvent::Error(_)))) => return Ok(false),
            Ok(Some(Err(error))) => return Err(Failure::from_kube(error)),
            // Nothing is there; that is no news where it was so before.
            Ok(Some(Ok(WatchEvent::Bookmark(_) | WatchEvent::Deleted(_)))) | Err(_) => {
                self.sender.borrow().last_sync == LastSync::Absent
            }
        };
        if !is_believed {
            let object = self.ask().await?;
            self.apply(object);
        }
        retry.succeeded();
        let mut next = first.ok().flatten();
        loop {
            match next {
                Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                    if self.version.admits(&object) {
                        self.apply(Some(object));
                    }
                }
                Some(Ok(WatchEvent::Deleted(object))) => {
                    if self.version.admits(&object) {
                        self.apply(None);
                    }
                }
                Some(Ok(WatchEvent::Bookmark(_))) | None => {}
                Some(Ok(WatchEvent::Error(_)) | Err(_)) => return Ok(true),
            }
            next = match timeout_at(deadline, events.next()).await {
                Ok(Some(event)) => Some(event),
                Ok(None) | Err(_) => return Ok(true),
            };
        }
    }

    /// Asks for the object itself, every `reloadInterval`, until it is time to try a watch again.
    async fn poll(&mut self, retry: &mut Retry) -> Result<(), Failure> {
        let until = Instant::now() + retry.refused(self.random());
        loop {
            let object = self.ask().await?;
            self.apply(object);
            retry.answered();
            let next = Instant::now() + self.target.interval();
            if next >= until {
                sleep_until(until).await;
                return Ok(());
            }
            sleep_until(next).await;
        }
    }

    async fn ask(&self) -> Result<Option<K>, Failure> {
        match timeout(ANSWER_TIMEOUT, self.api.get_opt(&self.target.name)).await {
            Ok(Ok(object)) => Ok(object),
            Ok(Err(error)) => Err(Failure::from_kube(&error)),
            Err(_late) => Err(failure(&None)),
        }
    }

    fn apply(&mut self, object: Option<K>) {
        match object {
            Some(object) => {
                *self.version = Version::of(&object);
                let value = (self.target.extract)(object);
                set(self.sender, Some(value), LastSync::Present);
            }
            None => set(self.sender, None, LastSync::Absent),
        }
    }

    fn random(&self) -> f64 {
        self.target.clients.random()
    }
}

/// What a watch says.
type Events<K> = BoxStream<'static, kube::Result<WatchEvent<K>>>;

/// Why a watch was not opened; `None` is: no answer in time.
type OpenError = Option<kube::Error>;

/// Version that a watch begins from: the object as it is, then what becomes of it.
const FROM_NOW: &str = "0";

fn failure(error: &OpenError) -> Failure {
    match error {
        Some(error) => Failure::from_kube(error),
        None => Failure::new(
            FailureKind::Unavailable,
            format!("no answer within {ANSWER_TIMEOUT:?}"),
        ),
    }
}

/// Whether the server has answered, and may still give the object itself: where a role allows no watch, or
/// something on the way lets no stream through. A server that is overloaded or broken is not asked twice.
fn is_watch_refused(error: &OpenError) -> bool {
    match error {
        Some(kube::Error::Api(status)) => !matches!(status.code, 429 | 500 | 503),
        _ => false,
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

/// A time from `range`; `random` is from 0 to 1.
fn between(range: &Range<Duration>, random: f64) -> Duration {
    let width = range.end.saturating_sub(range.start);
    range.start + width.mul_f64(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_of_a_fleet_end_at_different_times() {
        let range = Duration::from_secs(300)..Duration::from_secs(600);
        assert_eq!(between(&range, 0.0), range.start);
        assert_eq!(between(&range, 0.5), Duration::from_secs(450));
        assert_eq!(between(&range, 1.0), range.end);
    }
}
