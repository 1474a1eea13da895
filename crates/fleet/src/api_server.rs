//! The modelled API server: one ConfigMap, asked for, listed or watched. It answers in memory, through the
//! same client as a real one, so that everything above the connection is the product's.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use parking_lot::Mutex;
use policy::jitter::Jitter;
use tokio::sync::watch;
use tokio::time::Instant;
use tower::BoxError;

use crate::meter::Series;
use crate::places::Span;

/// A round trip to it.
const ROUND_TRIP: Duration = Duration::from_millis(2);
/// How often a watch is sent a bookmark.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// What it was asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ApiLoad {
    /// Questions for the object.
    pub questions: Series,
    /// Watches that were opened.
    pub watches: Series,
}

impl ApiLoad {
    /// All requests.
    pub fn all(&self) -> Series {
        self.questions.and(&self.watches)
    }
}

/// An API server. It is away during its outages, and ends all watches when one begins.
pub struct ApiServer {
    started: Instant,
    outages: Vec<Span>,
    load: Mutex<ApiLoad>,
    /// The ConfigMap's version; watches hear of a new one.
    version: watch::Sender<u64>,
    /// Counts the outages that have begun.
    epoch: watch::Sender<u64>,
}

type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

impl ApiServer {
    /// A server whose run begins now.
    pub fn new(outages: Vec<Span>) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            outages,
            load: Mutex::default(),
            version: watch::Sender::new(1),
            epoch: watch::Sender::new(0),
        })
    }

    /// What it was asked so far.
    pub fn load(&self) -> ApiLoad {
        self.load.lock().clone()
    }

    /// Changes the ConfigMap.
    pub fn change(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// Ends every watch, whenever an outage begins. Runs for ever.
    pub async fn cut_watches(&self) {
        for outage in &self.outages {
            tokio::time::sleep_until(self.started + outage.from).await;
            self.epoch.send_modify(|epoch| *epoch += 1);
        }
        std::future::pending().await
    }

    /// A client of it, as a node's.
    pub fn client(self: &Arc<Self>, jitter: &Arc<Jitter>) -> kube::Client {
        let (server, jitter) = (Arc::clone(self), Arc::clone(jitter));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (server, spread) = (Arc::clone(&server), jitter.next());
            let uri = request.uri().clone();
            async move { server.answer(&uri, spread).await }
        });
        kube::Client::new(service, "kube-system")
    }

    /// The version of the ConfigMap, asked for as the predecessor asks.
    ///
    /// # Errors
    /// It is away.
    pub async fn version(&self, spread: f64) -> Result<u64, BoxError> {
        self.reach(spread).await?;
        self.count(|load| &mut load.questions);
        Ok(*self.version.borrow())
    }

    async fn reach(&self, spread: f64) -> Result<(), BoxError> {
        tokio::time::sleep(ROUND_TRIP.mul_f64(1.0 + spread)).await;
        let at = self.started.elapsed();
        if self.outages.iter().any(|span| span.holds(at)) {
            return Err("connection refused".into());
        }
        Ok(())
    }

    fn count(&self, which: fn(&mut ApiLoad) -> &mut Series) {
        which(&mut self.load.lock()).count(self.started.elapsed(), 1);
    }

    async fn answer(&self, uri: &Uri, spread: f64) -> Result<Answer, BoxError> {
        self.reach(spread).await?;
        let query = uri.query().unwrap_or_default();
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        if parameter("watch") == Some("true") {
            self.count(|load| &mut load.watches);
            let seconds = parameter("timeoutSeconds").and_then(|text| text.parse().ok());
            let length = Duration::from_secs(seconds.unwrap_or(300));
            return ok(self.events(length));
        }
        self.count(|load| &mut load.questions);
        let object = object(*self.version.borrow()).to_string();
        let body = Full::new(Bytes::from(object)).map_err(|never: Infallible| match never {});
        ok(body.boxed_unsync())
    }

    fn events(&self, length: Duration) -> UnsyncBoxBody<Bytes, BoxError> {
        let now = Instant::now();
        let events = Events {
            version: self.version.subscribe(),
            epoch: self.epoch.subscribe(),
            ends: now + length,
            bookmark: now + BOOKMARK_INTERVAL,
            kind: Some("ADDED"),
        };
        let frames = futures_util::stream::unfold(events, |mut events| async move {
            let event = events.next().await?;
            Some((event.map(Frame::data), events))
        });
        StreamBody::new(frames).boxed_unsync()
    }
}

fn ok(body: UnsyncBoxBody<Bytes, BoxError>) -> Result<Answer, BoxError> {
    let response = Response::builder().status(StatusCode::OK);
    Ok(response.body(body)?)
}

fn object(version: u64) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "image-cri-shim",
            "namespace": "kube-system",
            "resourceVersion": version.to_string(),
        },
        "data": {"registries.yaml": format!("# {version}")},
    })
}

/// One watch.
struct Events {
    version: watch::Receiver<u64>,
    epoch: watch::Receiver<u64>,
    ends: Instant,
    bookmark: Instant,
    /// What the next object is sent as, where one is to be sent.
    kind: Option<&'static str>,
}

impl Events {
    async fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        loop {
            if let Some(kind) = self.kind.take() {
                let version = *self.version.borrow_and_update();
                return Some(Ok(line(kind, object(version))));
            }
            tokio::select! {
                biased;
                _ = self.epoch.changed() => {
                    let cut = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                    return Some(Err(cut.into()));
                }
                () = tokio::time::sleep_until(self.ends) => return None,
                _ = self.version.changed() => self.kind = Some("MODIFIED"),
                () = tokio::time::sleep_until(self.bookmark) => {
                    self.bookmark += BOOKMARK_INTERVAL;
                    let version = *self.version.borrow();
                    return Some(Ok(line("BOOKMARK", object(version))));
                }
            }
        }
    }
}

fn line(kind: &str, object: serde_json::Value) -> Bytes {
    let event = serde_json::json!({"type": kind, "object": object});
    Bytes::from(format!("{event}\n"))
}
