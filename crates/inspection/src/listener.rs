//! A small HTTP/1 listener: connections, and limits to what a client may take of us.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

/// What clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at one time. With one more, the oldest is closed: a client that holds on to all of
    /// them keeps nobody else out. Default 64.
    pub connections: usize,
    /// Time for a request's head, and for which a connection may be idle. Default 10 s.
    pub head: Duration,
    /// Bytes of a request's head; at least 8192. Default 16 KiB.
    pub head_size: usize,
    /// Time after which a connection takes no more requests. Default 60 s.
    pub lifetime: Duration,
    /// Time after that for the answer under way. Default 10 s.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            head: Duration::from_secs(10),
            head_size: 16 << 10,
            lifetime: Duration::from_secs(60),
            grace: Duration::from_secs(10),
        }
    }
}

/// Pause after an accept that failed for lack of descriptors, so that the loop doesn't spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Gives every request to `answer`, until it is dropped; connections end with it.
pub async fn serve<H, A>(listener: TcpListener, limits: Limits, answer: H)
where
    H: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
    let mut accepts = true;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                if std::mem::replace(&mut accepts, false) {
                    tracing::warn!("cannot accept connections for metrics and status: {error}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !std::mem::replace(&mut accepts, true) {
            tracing::info!("connections for metrics and status are accepted again");
        }
        while connections.try_join_next().is_some() {}
        oldest_first.retain(|connection| !connection.is_finished());
        while oldest_first.len() >= limits.connections.max(1) {
            if let Some(oldest) = oldest_first.pop_front() {
                oldest.abort();
            }
        }
        oldest_first.push_back(connections.spawn(connection(stream, limits, answer.clone())));
    }
}

async fn connection<H, A>(stream: TcpStream, limits: Limits, answer: H)
where
    H: Fn(Request<Incoming>) -> A,
    A: Future<Output = Response<Full<Bytes>>>,
{
    // Small answers must not wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(limits.head_size)
            .serve_connection(TokioIo::new(stream), service)
    );
    // An error is a client that went away, or spoke no HTTP.
    if timeout(limits.lifetime, serving.as_mut()).await.is_err() {
        serving.as_mut().graceful_shutdown();
        let _ = timeout(limits.grace, serving).await;
    }
}
