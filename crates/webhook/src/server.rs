//! The HTTPS listener: connections, TLS, limits, draining.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::admit::Admission;
use crate::http::{BodyBudget, answer};

/// What clients may take. API servers stay far below all of it; it is there for who isn't one.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest body. Default 8 MiB: twice what fits into etcd, for a Pod and its old self.
    pub body: usize,
    /// Bodies in memory at one time, over all connections. Default 64 MiB.
    pub bodies: usize,
    /// Longest time for an answer, whatever the API server says. Default 25 s.
    pub patience: Duration,
    /// Connections at one time. Default 1024.
    pub connections: usize,
    /// Time for a TLS handshake, and for a request's head. Default 10 s.
    pub handshake: Duration,
    /// Time that reviews in flight may take after the shutdown began. Default 20 s.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 8 << 20,
            bodies: 64 << 20,
            patience: Duration::from_secs(25),
            connections: 1024,
            handshake: Duration::from_secs(10),
            drain: Duration::from_secs(20),
        }
    }
}

/// HTTP/2 streams of one connection at one time: Go's client opens another connection for more.
const STREAMS: u32 = 250;
/// Pause after an accept that failed for lack of descriptors, so that the loop doesn't spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

struct Shared {
    admission: Admission,
    limits: Limits,
    budget: BodyBudget,
    tls: TlsAcceptor,
}

/// Serves reviews until `shutdown` ends, then lets those in flight finish.
///
/// # Errors
/// The TLS settings can't be made, which depends on nothing from outside.
pub async fn serve(
    listener: TcpListener,
    certificates: Arc<dyn ResolvesServerCert>,
    admission: Admission,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> Result<(), rustls::Error> {
    let connections = Arc::new(Semaphore::new(limits.connections));
    let shared = Arc::new(Shared {
        admission,
        budget: BodyBudget::new(limits.bodies),
        tls: TlsAcceptor::from(Arc::new(tls(certificates)?)),
        limits,
    });
    let graceful = GracefulShutdown::new();
    tokio::pin!(shutdown);
    loop {
        let (stream, permit) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &connections) => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        tokio::spawn(connection(
            stream,
            permit,
            Arc::clone(&shared),
            graceful.watcher(),
        ));
    }
    drop(listener);
    if timeout(shared.limits.drain, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(
            "reviews were still in flight after {:?}",
            shared.limits.drain
        );
    }
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await;
    let permit = permit.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

async fn connection(
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
    shared: Arc<Shared>,
    watcher: Watcher,
) {
    // Small answers must not wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    let stream = match timeout(shared.limits.handshake, shared.tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            // Who probes the port with plain TCP ends here too, which is no news.
            tracing::debug!("a TLS handshake failed: {error}");
            return;
        }
        Err(_) => return,
    };
    let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(|request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move {
            let Shared {
                admission,
                limits,
                budget,
                ..
            } = &*shared;
            Ok::<_, Infallible>(answer(admission, limits, budget, request).await)
        }
    });
    let io = TokioIo::new(stream);
    let served = if speaks_http2 {
        let serving = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .keep_alive_interval(Duration::from_secs(30))
            .serve_connection(io, service);
        watcher.watch(serving).await
    } else {
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(shared.limits.handshake)
            .serve_connection(io, service);
        watcher.watch(serving).await
    };
    if let Err(error) = served {
        tracing::debug!("a connection ended: {error}");
    }
}

fn tls(certificates: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
