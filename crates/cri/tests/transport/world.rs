//! A proxy in this process, and a client that sees every header and byte.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use cri::call::{ImageCalls, PassThrough};
use cri::grpc::Status;
use cri::inspect::{Inspect, unknown};
use cri::listener::Listener;
use cri::upstream::Upstream;
use cri::{Leave, Services, serve};
use futures_util::future::{BoxFuture, join, poll_fn};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, StatusCode};
use telemetry::Telemetry;
use tempfile::TempDir;
use testkit::fake_runtime::FakeRuntime;
use testkit::wait::until;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};

/// A proxy in front of a fake runtime.
pub(crate) struct World {
    pub(crate) runtime: FakeRuntime,
    pub(crate) socket: PathBuf,
    pub(crate) telemetry: Telemetry,
    stop: Option<oneshot::Sender<Leave>>,
    pub(crate) server: JoinHandle<()>,
    _dir: TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(Arc::new(PassThrough), Duration::from_secs(30)).await
    }

    pub(crate) async fn with(calls: Arc<dyn ImageCalls>, drain: Duration) -> Self {
        let runtime = FakeRuntime::start().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("shim.sock");
        let listener = Listener::bind(&socket, runtime.socket()).unwrap();
        let upstream = Upstream::new(runtime.socket());
        let telemetry = Telemetry::new();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(
            listener,
            upstream,
            Services {
                calls,
                inspection: Arc::new(Echo),
                telemetry: telemetry.clone(),
            },
            async { stopped.await.unwrap_or(Leave::Stop) },
            drain,
        ));
        Self {
            runtime,
            socket,
            telemetry,
            stop: Some(stop),
            server,
            _dir: dir,
        }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.socket).await
    }

    /// Begins the shutdown.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Another process has taken over. What is still in flight is cut off when what is given back is used or dropped.
    pub(crate) fn hand_over(&mut self) -> oneshot::Sender<()> {
        let (cut_off, until) = oneshot::channel();
        let until = Box::pin(async move {
            let _ = until.await;
        });
        let told = self.stop.take().unwrap().send(Leave::HandedOver { until });
        assert!(told.is_ok(), "it has stopped");
        cut_off
    }

    pub(crate) async fn cancellations(&self, count: usize) {
        until("the runtime to see cancellations", || async {
            (self.runtime.cancellations() >= count).then_some(())
        })
        .await;
    }
}

/// The shim's own service, with one method: it says back what it is told.
struct Echo;

impl Inspect for Echo {
    fn inspect(&self, method: &str, message: Bytes) -> BoxFuture<'static, Result<Bytes, Status>> {
        let known = method == "Echo";
        let refusal = unknown(method);
        Box::pin(async move { if known { Ok(message) } else { Err(refusal) } })
    }
}

/// A raw HTTP/2 client.
#[derive(Clone)]
pub(crate) struct Client(pub(crate) SendRequest<Bytes>);

/// A call under way.
pub(crate) struct Call {
    pub(crate) sending: SendStream<Bytes>,
    pub(crate) response: ResponseFuture,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) http_status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Client {
    pub(crate) async fn connect(socket: &Path) -> Self {
        Self::connect_mortal(socket).await.0
    }

    /// A client, and the task that is its connection: aborting it is a crash.
    pub(crate) async fn connect_mortal(socket: &Path) -> (Self, AbortHandle) {
        let stream = UnixStream::connect(socket).await.unwrap();
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(8 << 20)
            .max_header_list_size(1 << 20)
            .handshake(stream)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        (Self(sender), connection.abort_handle())
    }

    pub(crate) async fn open(&self, path: &str, headers: &[(&str, &str)]) -> Call {
        let mut request = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut sender = self.0.clone().ready().await.unwrap();
        let (response, sending) = sender
            .send_request(request.body(()).unwrap(), false)
            .unwrap();
        Call { sending, response }
    }

    /// An empty message, and the answer from its head on.
    pub(crate) async fn stream(&self, path: &str) -> RecvStream {
        let mut call = self.open(path, &[]).await;
        call.send(frame(false, b""), true).await;
        let response = patiently("the head", call.response).await.unwrap();
        response.into_body()
    }

    /// One message (or whatever else `body` is), and the whole answer.
    pub(crate) async fn call(&self, path: &str, headers: &[(&str, &str)], body: Bytes) -> Reply {
        let Call {
            mut sending,
            response,
        } = self.open(path, headers).await;
        // At once: who does not read while it writes may be asked to stop writing.
        let (_, reply) = join(send(&mut sending, body, true), read(response)).await;
        reply.unwrap()
    }
}

impl Call {
    pub(crate) async fn send(&mut self, data: Bytes, end: bool) {
        send(&mut self.sending, data, end).await;
    }

    pub(crate) async fn reply(self) -> Result<Reply, h2::Error> {
        read(self.response).await
    }
}

async fn send(to: &mut SendStream<Bytes>, mut data: Bytes, end: bool) {
    while !data.is_empty() {
        to.reserve_capacity(data.len());
        let Some(Ok(room)) = poll_fn(|cx| to.poll_capacity(cx)).await else {
            return; // Refused; the answer says why.
        };
        let piece = data.split_to(room.min(data.len()));
        let last = end && data.is_empty();
        if to.send_data(piece, last).is_err() || last {
            return;
        }
    }
    if end {
        let _ = to.send_data(data, true);
    }
}

async fn read(response: ResponseFuture) -> Result<Reply, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let mut all = BytesMut::new();
    while let Some(chunk) = next(&mut body).await {
        all.extend_from_slice(&chunk?);
    }
    Ok(Reply {
        http_status: head.status,
        headers: head.headers,
        body: all.freeze(),
        trailers: poll_fn(|cx| body.poll_trailers(cx)).await?,
    })
}

impl Reply {
    /// Where the gRPC status is: in the trailers, or in the headers of a trailers-only answer.
    pub(crate) fn told(&self) -> &HeaderMap {
        self.trailers.as_ref().unwrap_or(&self.headers)
    }

    pub(crate) fn code(&self) -> &str {
        self.told()["grpc-status"].to_str().unwrap()
    }

    pub(crate) fn text(&self) -> &str {
        self.told()["grpc-message"].to_str().unwrap()
    }
}

pub(crate) async fn next(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let chunk = poll_fn(|cx| body.poll_data(cx)).await;
    if let Some(Ok(chunk)) = &chunk {
        body.flow_control().release_capacity(chunk.len()).unwrap();
    }
    chunk
}

/// A message with its prefix.
pub(crate) fn frame(compressed: bool, message: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(compressed.into());
    out.put_u32(message.len() as u32);
    out.put_slice(message);
    out.freeze()
}

pub(crate) async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(testkit::wait::TIMEOUT, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for: {what}"),
    }
}
