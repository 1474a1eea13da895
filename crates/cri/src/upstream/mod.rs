//! The client side: a multiplexed HTTP/2 connection to the container runtime's socket.
//!
//! The connection is made when the first call needs it, shared by all calls, and made anew when the
//! runtime went away or said so (GOAWAY). A call that finds no runtime fails at once with a status
//! that says so; waiting is the caller's business, and kubelet's is to try again.

mod error;
mod unary;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Request, Uri};
use parking_lot::Mutex;
use tokio::net::UnixStream;

pub use error::UpstreamError;
pub use unary::{Outgoing, UnaryReply};

use crate::http2::Http2Tuning;

/// How long a connect may take. A listening unix socket answers at once; only a full backlog does not.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two tries while the runtime's backlog is full.
const BACKLOG_RETRY_INTERVAL: Duration = Duration::from_millis(10);
/// Connections that one call tries: the second is for one that ended just as the call took it.
const ATTEMPTS: usize = 3;

/// The container runtime. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
}

struct Shared {
    socket: PathBuf,
    http2: h2::client::Builder,
    /// The connection that new calls take.
    current: Mutex<Option<SendRequest<Bytes>>>,
    /// Held by the one call that connects, so that a burst makes one connection.
    connecting: tokio::sync::Mutex<()>,
}

impl Upstream {
    /// A runtime that listens on `socket`. Nothing is opened before the first call.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self::with_window(socket.into(), Http2Tuning::SHIM.connection_window)
    }

    /// Whoever is at the other end of `stream`, on that one connection.
    ///
    /// # Errors
    /// [`UpstreamError::Http2`] when it ends before anything was said.
    pub async fn on(stream: UnixStream) -> Result<Self, UpstreamError> {
        // No file has that name, so that nobody else is connected to when it ends.
        let upstream = Self::new(PathBuf::new());
        let connection = upstream.shake_hands(stream).await?;
        *upstream.shared.current.lock() = Some(connection);
        Ok(upstream)
    }

    /// The same runtime by a connection of its own, on which this many bytes may wait unread: whoever
    /// doesn't read his answers then holds up nobody else's.
    pub(crate) fn separate(&self, connection_window: u32) -> Self {
        Self::with_window(self.shared.socket.clone(), connection_window)
    }

    fn with_window(socket: PathBuf, connection_window: u32) -> Self {
        Self {
            shared: Arc::new(Shared {
                socket,
                http2: Http2Tuning::SHIM.client(connection_window),
                current: Mutex::new(None),
                connecting: tokio::sync::Mutex::new(()),
            }),
        }
    }

    /// The runtime's socket.
    pub fn socket(&self) -> &Path {
        &self.shared.socket
    }

    /// Sends the head of a request and gives the two ends of its stream.
    ///
    /// `headers` go as they are, without the ones that name a connection of the client
    /// (see [`strip_connection_headers`]); `:authority` is `localhost`, which every server takes.
    ///
    /// # Errors
    /// [`UpstreamError::Connect`] when the runtime can't be reached, [`UpstreamError::Http2`] when the
    /// connection ended in between.
    pub async fn open(
        &self,
        method: http::Method,
        path: PathAndQuery,
        headers: HeaderMap,
        end_of_stream: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), UpstreamError> {
        let mut connection = self.ready_connection().await?;
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri(path);
        *request.headers_mut() = headers;
        strip_connection_headers(request.headers_mut());
        // There is no await since the connection was found to be alive, so that with the one
        // current-thread runtime that the shim runs on it still is.
        connection
            .send_request(request, end_of_stream)
            .map_err(|error| self.http2_error(error))
    }

    /// A connection that new calls may use now.
    async fn ready_connection(&self) -> Result<SendRequest<Bytes>, UpstreamError> {
        for _ in 1..ATTEMPTS {
            if let Some(connection) = self.usable().await {
                return Ok(connection);
            }
            let _connecting = self.shared.connecting.lock().await;
            // Another call may have connected while this one waited.
            if let Some(connection) = self.usable().await {
                return Ok(connection);
            }
            let connection = self.connect().await?;
            *self.shared.current.lock() = Some(connection);
        }
        self.usable().await.ok_or_else(|| {
            self.connect_error(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "it closes every connection at once",
            ))
        })
    }

    /// The current connection, if it still takes calls. Waits while the runtime's limit of concurrent
    /// streams is reached; `h2` queues one call per handle beyond it.
    async fn usable(&self) -> Option<SendRequest<Bytes>> {
        let connection = self.shared.current.lock().clone()?;
        match connection.ready().await {
            Ok(connection) => Some(connection),
            Err(_) => {
                self.forget_if_dead();
                None
            }
        }
    }

    fn forget_if_dead(&self) {
        let mut current = self.shared.current.lock();
        let dead = current.as_mut().is_some_and(|connection| {
            // Only asks; nothing waits for the answer, so no waker is needed.
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            matches!(connection.poll_ready(&mut context), Poll::Ready(Err(_)))
        });
        if dead {
            *current = None;
        }
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>, UpstreamError> {
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, self.dial())
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| self.connect_error(error))?;
        self.shake_hands(stream).await
    }

    async fn shake_hands(&self, stream: UnixStream) -> Result<SendRequest<Bytes>, UpstreamError> {
        let (sender, connection) = self
            .shared
            .http2
            .handshake(stream)
            .await
            .map_err(|error| self.http2_error(error))?;
        tracing::debug!(socket = %self.socket().display(), "connected to the container runtime");
        let socket = self.shared.socket.clone();
        tokio::spawn(async move {
            // Ends when the runtime closes it, or when no handle and no call is left.
            if let Err(error) = connection.await {
                tracing::debug!(socket = %socket.display(), %error, "the connection to the container runtime ended");
            }
        });
        Ok(sender)
    }

    async fn dial(&self) -> io::Result<UnixStream> {
        loop {
            match UnixStream::connect(&self.shared.socket).await {
                // Linux does not queue a non-blocking connect when the backlog is full.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(BACKLOG_RETRY_INTERVAL).await;
                }
                result => return result,
            }
        }
    }

    fn connect_error(&self, source: io::Error) -> UpstreamError {
        UpstreamError::Connect {
            socket: self.shared.socket.clone(),
            source,
        }
    }

    /// An error of a call that was under way.
    pub(crate) fn http2_error(&self, source: h2::Error) -> UpstreamError {
        UpstreamError::Http2 {
            socket: self.shared.socket.clone(),
            source,
        }
    }
}

fn uri(path: PathAndQuery) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(Authority::from_static("localhost"));
    parts.path_and_query = Some(path);
    // All three parts are there, which is what this may complain about.
    Uri::from_parts(parts).unwrap_or_default()
}

/// Removes what belongs to the client's connection and not to the call: the `host` it dialled and the
/// hop-by-hop headers of RFC 9110 section 7.6.1, which HTTP/2 forbids. `te` stays: gRPC servers ask for it.
pub fn strip_connection_headers(headers: &mut HeaderMap) {
    use http::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
    for name in [HOST, CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}
