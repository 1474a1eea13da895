//! Taking connections.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Buf;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::connection::{self, BoxError, Peer};
use crate::limits::Options;
use crate::places::Places;

/// Pause after an accept that failed for lack of descriptors, so that the loop doesn't spin.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Listens on `address`. `[::]` is both families, and IPv4 alone where the kernel has no IPv6.
///
/// # Errors
/// The address can't be had.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// Gives every request on `listeners` to `service`, until `shutdown` ends; answers under way are then
/// finished. Nothing that comes from outside ends it. Dropped, it ends at once, with all its connections.
pub async fn serve<S, B>(
    listeners: Vec<TcpListener>,
    options: Options,
    service: S,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: Body + Send + Unpin + 'static,
    B::Data: Buf + Send,
    B::Error: Into<BoxError>,
{
    let limits = options.limits;
    let options = Arc::new(options);
    let places = Arc::new(Places::new(limits.connections, limits.when_full));
    let stop = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut accepts = Accepting::new(listeners, options.purpose);
    tokio::pin!(shutdown);
    loop {
        let accepted = async {
            let (stream, address) = accepts.next().await;
            let place = places.take(Peer { address }, &stop).await;
            (stream, place)
        };
        let (stream, place) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accepted => accepted,
        };
        // What has ended is forgotten here, and not in the select: that would drop what was just accepted.
        while connections.try_join_next().is_some() {}
        let (options, service) = (Arc::clone(&options), service.clone());
        connections.spawn(async move {
            let connection = Arc::clone(&place.connection);
            connection::serve(stream, connection, &options, service).await;
            drop(place);
        });
    }
    drop(accepts);
    stop.cancel();
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.drain_timeout, all).await.is_err() {
        tracing::warn!(
            "answers of {} were still under way after {:?}",
            options.purpose,
            limits.drain_timeout
        );
    }
}

/// Several listeners as one.
struct Accepting {
    listeners: Vec<TcpListener>,
    purpose: &'static str,
    /// Which is asked first, so that a busy one doesn't keep the others waiting.
    first: usize,
    fails: bool,
}

impl Accepting {
    fn new(listeners: Vec<TcpListener>, purpose: &'static str) -> Self {
        Self {
            listeners,
            purpose,
            first: 0,
            fails: false,
        }
    }

    async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.accept().await {
                Ok(accepted) => {
                    if std::mem::replace(&mut self.fails, false) {
                        tracing::info!("connections for {} are accepted again", self.purpose);
                    }
                    return accepted;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.fails, true) {
                        tracing::warn!("cannot accept connections for {}: {error}", self.purpose);
                    }
                    tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                }
            }
        }
    }

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        self.first = self.first.wrapping_add(1);
        let (first, listeners) = (self.first, &self.listeners);
        std::future::poll_fn(|context| {
            for at in 0..listeners.len() {
                let at = first.wrapping_add(at) % listeners.len();
                let Some(listener) = listeners.get(at) else {
                    continue;
                };
                if let Poll::Ready(accepted) = listener.poll_accept(context) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }
}
