//! The server side: accepts connections, routes calls, drains at shutdown.

use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::poll_fn;
use h2::RecvStream;
use h2::server::SendResponse;
use http::request::Parts;
use http::{Request, Response};
use telemetry::Telemetry;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::authority::AuthorityFix;
use crate::call::{CallHead, ImageCalls, PassThrough, UnaryCall, Waited};
use crate::flow;
use crate::forward::{self, Forwarded, forward};
use crate::grpc::{self, Code, Message, Status};
use crate::http2::Http2Tuning;
use crate::inspect::{self, Inspect};
use crate::listener::Listener;
use crate::method::{self, ImageMethod};
use crate::upstream::{UnaryReply, Upstream, strip_connection_headers};

/// Largest image call that is looked into: 16 MiB, which is what the runtime accepts. A larger
/// one is streamed through for the runtime to refuse.
const MAX_IMAGE_CALL: usize = 16 << 20;
/// First and longest pause after `accept` failed, so that a node out of file descriptors is not
/// also out of CPU.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Below the two minutes that a kubelet gives most of its calls.
const TICK: Duration = Duration::from_secs(60);
/// How long a client that has connected may take to say anything once the server is to end.
const HELLO_PATIENCE: Duration = Duration::from_millis(250);

/// What answers calls that are not just forwarded, and what counts all of them.
#[derive(Clone)]
pub struct Services {
    /// Answers the image calls.
    pub calls: Arc<dyn ImageCalls>,
    /// Answers the shim's own service.
    pub inspection: Arc<dyn Inspect>,
    /// Counts calls.
    pub telemetry: Telemetry,
}

/// Serves clients until `shutdown` is ready.
///
/// Then the socket file is removed, no connection is accepted any more, clients are told to make no
/// new calls (GOAWAY), and calls in flight have `drain` to end; what is left then is cut off.
///
/// Must run inside a tokio runtime; it and its calls run as tasks of that runtime, which is best a
/// current-thread one: passing a call between threads costs more than the call.
pub async fn serve(
    listener: Listener,
    upstream: Upstream,
    services: Services,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) {
    let service = Arc::new(Service {
        upstream,
        services,
        http2: Http2Tuning::SHIM.server(),
    });
    let _ticking = AbortOnDrop(tokio::spawn(tick()));
    // Sender dropped means: drain.
    let (running, draining) = watch::channel(());
    let mut connections = JoinSet::new();
    {
        let mut sharing = pin!(listener.share().fuse());
        // At once, so that nobody whom the socket answers finds it with the wrong owner.
        let _ = sharing.as_mut().now_or_never();
        tokio::select! {
            biased;
            () = shutdown => {}
            () = accept_all(&listener, &service, &draining, &mut connections) => {}
            // Ends, and then the others go on.
            () = sharing.then(|()| std::future::pending()) => {}
        }
    }
    // Whoever connected before the file was gone was let in.
    for stream in listener.retire() {
        connections.spawn(service.clone().connection(stream, draining.clone()));
    }
    drop((running, draining));
    let drained = tokio::time::timeout(drain, async {
        while connections.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "calls were still in flight after {drain:?}; cutting them off"
        );
        connections.shutdown().await;
    }
}

/// Keeps a timer in the runtime that is due before any ordinary call's deadline.
///
/// Tokio wakes itself, through a descriptor and another round of `epoll`, for each timer that is due
/// before all others. Every image call has a deadline and mostly is alone, so each would pay for that.
async fn tick() {
    loop {
        tokio::time::sleep(TICK).await;
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Accepts connections for ever.
async fn accept_all(
    listener: &Listener,
    service: &Arc<Service>,
    draining: &watch::Receiver<()>,
    connections: &mut JoinSet<()>,
) {
    let mut pause = ACCEPT_PAUSE.0;
    let mut failing = false;
    loop {
        tokio::select! {
            // Takes finished connections out of the set, which would grow without end.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(stream) => {
                    pause = ACCEPT_PAUSE.0;
                    if std::mem::take(&mut failing) {
                        tracing::info!("connections are accepted again");
                    }
                    connections.spawn(service.clone().connection(stream, draining.clone()));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "cannot accept connections; trying until it works");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE.1);
                }
            },
        }
    }
}

/// What every connection needs.
struct Service {
    upstream: Upstream,
    services: Services,
    http2: h2::server::Builder,
}

impl Service {
    async fn connection(self: Arc<Self>, stream: UnixStream, mut draining: watch::Receiver<()>) {
        let state = draining.clone();
        let mut drain = pin!(async move { while draining.changed().await.is_ok() {} });
        let handshake = self.http2.handshake::<_, Bytes>(AuthorityFix::new(stream));
        let handshake = tokio::select! {
            handshake = handshake => handshake,
            // A client that connected just before gets its answer, one that only connected does not
            // hold up the end.
            () = drain.as_mut().then(|()| tokio::time::sleep(HELLO_PATIENCE)) => return,
        };
        let mut connection = match handshake {
            Ok(connection) => connection,
            Err(error) => return tracing::debug!(%error, "a client does not speak HTTP/2"),
        };
        let mut told = state.has_changed().is_err();
        if told {
            connection.graceful_shutdown();
        }
        loop {
            let accepted = poll_fn(|cx| {
                if !told && drain.as_mut().poll(cx).is_ready() {
                    told = true;
                    connection.graceful_shutdown();
                }
                connection.poll_accept(cx)
            });
            match accepted.await {
                None => return,
                Some(Ok((request, respond))) => {
                    tokio::spawn(self.clone().call(request, respond));
                }
                Some(Err(error)) => {
                    return tracing::debug!(%error, "a client's connection ended");
                }
            }
        }
    }

    async fn call(self: Arc<Self>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let began = Instant::now();
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        if let Some(name) = path.strip_prefix(inspect::SERVICE) {
            let name = name.to_owned();
            return self.inspect(&name, &head, body, respond).await;
        }
        let label = method::label(path);
        let image_call = ImageMethod::from_path(path).filter(|_| head.method == http::Method::POST);
        let ended = match image_call {
            Some(method) => self.image_call(began, method, head, body, respond).await,
            None => {
                let prefix = Vec::new();
                let upstream = &self.upstream;
                Some(forward(upstream, began, head, prefix, body, respond).await)
            }
        };
        let metrics = self.services.telemetry.metrics();
        if let Some(Forwarded { code, added }) = ended {
            metrics.call(label, code.0);
            metrics.added(label, added);
        }
    }

    /// `None` where the client was gone before it had said what it wants.
    async fn image_call(
        &self,
        began: Instant,
        method: ImageMethod,
        head: Parts,
        mut body: RecvStream,
        respond: SendResponse<Bytes>,
    ) -> Option<Forwarded> {
        let upstream = &self.upstream;
        match collect(&mut body).await.ok()? {
            Collected::Whole(received) => {
                // Compressed in a way we do not know: the runtime may.
                let message = Message::parse(&received).and_then(|m| m.decode(&head.headers));
                match message {
                    Ok(message) => {
                        Some(self.answer(method, head, received, message, respond).await)
                    }
                    Err(error) => {
                        tracing::debug!(method = method.name(), %error, "forwarding a call unread");
                        let prefix = vec![received];
                        Some(forward(upstream, began, head, prefix, body, respond).await)
                    }
                }
            }
            Collected::Other(prefix) => {
                Some(forward(upstream, began, head, prefix, body, respond).await)
            }
        }
    }

    /// Answers a call of the shim's own service.
    async fn inspect(
        &self,
        method: &str,
        head: &Parts,
        mut body: RecvStream,
        mut respond: SendResponse<Bytes>,
    ) {
        let message = match collect(&mut body).await {
            Ok(Collected::Whole(received)) => grpc::single_message(&received, &head.headers),
            Ok(Collected::Other(_)) => Err(grpc::FrameError::Truncated),
            // The client is gone.
            Err(_) => return,
        };
        let answered = match message {
            Ok(message) => self.services.inspection.inspect(method, message).await,
            Err(error) => Err(Status::new(Code::INTERNAL, error.to_string())),
        };
        let reply = match answered {
            Ok(message) => UnaryReply::from_message(&message),
            Err(status) => UnaryReply::from_status(&status),
        };
        // Fails only when the client is gone.
        let _ = send_reply(reply, &mut respond).await;
    }

    async fn answer(
        &self,
        method: ImageMethod,
        mut head: Parts,
        received: Bytes,
        message: Bytes,
        mut respond: SendResponse<Bytes>,
    ) -> Forwarded {
        strip_connection_headers(&mut head.headers);
        let began = Instant::now();
        let Some(path) = head.uri.path_and_query().cloned() else {
            let status = Status::new(Code::UNIMPLEMENTED, "not a gRPC request: it has no path");
            forward::refuse(&mut respond, &status);
            return Forwarded {
                code: status.code,
                added: began.elapsed(),
            };
        };
        let waited = Arc::new(Waited::default());
        let call = UnaryCall {
            method,
            head: CallHead::new(path, head.headers),
            message,
            received,
            upstream: self.upstream.clone(),
            waited: Arc::clone(&waited),
        };
        let answering = async {
            let answer = async { self.services.calls.call(call.clone()).await };
            // A defect of ours must not fail a call that the runtime could do.
            match AssertUnwindSafe(answer).catch_unwind().await {
                Ok(reply) => reply,
                Err(_) => {
                    tracing::error!(
                        method = method.name(),
                        "answering a call failed inside the shim; forwarding it as it came"
                    );
                    PassThrough.call(call).await
                }
            }
        };
        let mut answering = pin!(answering);
        let reply = poll_fn(|cx| {
            if respond.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            answering.as_mut().poll(cx).map(Some)
        })
        .await;
        let added = began.elapsed().saturating_sub(waited.total());
        let code = match reply {
            Some(reply) => {
                let code = reply.status().code;
                // Fails only when the client is gone.
                let _ = send_reply(reply, &mut respond).await;
                code
            }
            None => Code::CANCELLED,
        };
        Forwarded { code, added }
    }
}

async fn send_reply(reply: UnaryReply, respond: &mut SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut head = Response::new(());
    *head.status_mut() = reply.http_status;
    *head.headers_mut() = reply.headers;
    let headers_only = reply.body.is_empty() && reply.trailers.is_none();
    let mut to = respond.send_response(head, headers_only)?;
    if headers_only {
        return Ok(());
    }
    if !reply.body.is_empty() {
        flow::send(&mut to, reply.body, reply.trailers.is_none()).await?;
    }
    match reply.trailers {
        Some(trailers) => to.send_trailers(trailers),
        None => Ok(()),
    }
}

/// What came of reading a request's body as one message.
enum Collected {
    /// The whole body, and it has the length that its first message says.
    Whole(Bytes),
    /// Something else; this much of it was read.
    Other(Vec<Bytes>),
}

async fn collect(body: &mut RecvStream) -> Result<Collected, h2::Error> {
    let mut chunks: Vec<Bytes> = Vec::new();
    let mut total = 0;
    // Set once the prefix of the message is there.
    let mut expected = None;
    while !body.is_end_stream() {
        let Some(chunk) = poll_fn(|cx| body.poll_data(cx)).await else {
            if body.is_end_stream() {
                break;
            }
            // Trailers, which gRPC clients do not send.
            return Ok(Collected::Other(chunks));
        };
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        total += chunk.len();
        if !chunk.is_empty() {
            chunks.push(chunk);
        }
        if expected.is_none() {
            expected = match &chunks[..] {
                [one] => Message::length(one),
                several => Message::length(&several.concat()),
            };
        }
        if expected.is_some_and(|length| total > length || length > MAX_IMAGE_CALL) {
            return Ok(Collected::Other(chunks));
        }
    }
    if expected != Some(total) {
        return Ok(Collected::Other(chunks));
    }
    let whole = match <[Bytes; 1]>::try_from(chunks) {
        Ok([one]) => one,
        Err(several) => Bytes::from(several.concat()),
    };
    Ok(Collected::Whole(whole))
}
