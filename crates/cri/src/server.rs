//! The server side: what happens to a connection and to each call on it, and how serving ends.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::poll_fn;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;
use http::request::Parts;
use telemetry::Telemetry;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::accept::accept_all;
use crate::authority::AuthorityFix;
use crate::body::{Collected, collect};
use crate::call::ImageCalls;
use crate::forward::{Forwarded, forward};
use crate::grpc::{self, Code, Status};
use crate::http2::Http2Tuning;
use crate::image_call::image_call;
use crate::inspect::{self, Inspect};
use crate::listener::Listener;
use crate::method::{self, ImageMethod};
use crate::upstream::{UnaryReply, Upstream};

/// Below the two minutes that a kubelet gives most of its calls.
const TICK_INTERVAL: Duration = Duration::from_secs(60);
/// How long a client that has connected may take to say anything once the server is to end.
const HELLO_TIMEOUT: Duration = Duration::from_millis(250);

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
    let _ticking = AbortOnDropHandle::new(tokio::spawn(tick()));
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
        tokio::time::sleep(TICK_INTERVAL).await;
    }
}

/// What every connection needs.
pub(crate) struct Service {
    upstream: Upstream,
    services: Services,
    http2: h2::server::Builder,
}

impl Service {
    /// Serves one client until it goes away, or until all its calls are done after the drain began.
    pub(crate) async fn connection(
        self: Arc<Self>,
        stream: UnixStream,
        mut draining: watch::Receiver<()>,
    ) {
        let state = draining.clone();
        let mut drain = pin!(async move { while draining.changed().await.is_ok() {} });
        let handshake = self.http2.handshake::<_, Bytes>(AuthorityFix::new(stream));
        let handshake = tokio::select! {
            handshake = handshake => handshake,
            // A client that connected just before gets its answer, one that only connected does not
            // hold up the end.
            () = drain.as_mut().then(|()| tokio::time::sleep(HELLO_TIMEOUT)) => return,
        };
        let mut connection = match handshake {
            Ok(connection) => connection,
            Err(error) => return tracing::debug!(%error, "a client does not speak HTTP/2"),
        };
        let mut notified = state.has_changed().is_err();
        if notified {
            connection.graceful_shutdown();
        }
        loop {
            let accepted = poll_fn(|cx| {
                if !notified && drain.as_mut().poll(cx).is_ready() {
                    notified = true;
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
        let method = ImageMethod::from_path(path).filter(|_| head.method == http::Method::POST);
        let upstream = &self.upstream;
        let ended = match method {
            Some(method) => {
                let calls = &*self.services.calls;
                image_call(upstream, calls, began, method, head, body, respond).await
            }
            None => Some(forward(upstream, began, head, Vec::new(), body, respond).await),
        };
        let metrics = self.services.telemetry.metrics();
        if let Some(Forwarded { code, added }) = ended {
            metrics.call(label, code.0);
            metrics.added(label, added);
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
        let _ = reply.send(&mut respond).await;
    }
}
