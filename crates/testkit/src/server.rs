//! The HTTP/1.1 server below the recording proxy and the fake registry.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::background;
use crate::certs::ServerCert;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Drop the connection instead of answering.
#[derive(Debug)]
pub(crate) struct HangUp;

impl std::fmt::Display for HangUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hung up on purpose")
    }
}

impl std::error::Error for HangUp {}

pub(crate) type ResponseFuture =
    Pin<Box<dyn Future<Output = Result<Response<Body>, HangUp>> + Send>>;
pub(crate) type Handler = Arc<dyn Fn(Request<Incoming>) -> ResponseFuture + Send + Sync>;

/// A body that is there as a whole.
pub(crate) fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// A server on a port of 127.0.0.1 that stays its own until it is dropped, also while it is stopped.
pub(crate) struct Server {
    address: SocketAddr,
    /// Bound but not listening: connections to a stopped server are refused, and nobody else gets
    /// the port meanwhile.
    _reservation: TcpSocket,
    tls: Option<TlsAcceptor>,
    handler: Handler,
    black_hole: Arc<AtomicBool>,
    accepting: Option<AbortOnDropHandle<()>>,
}

impl Server {
    pub(crate) fn start(handler: Handler, tls: Option<&ServerCert>) -> Result<Self> {
        let reservation = socket((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = reservation.local_addr()?;
        let tls = tls.map(ServerCert::server_config).transpose()?;
        let mut server = Self {
            address,
            _reservation: reservation,
            tls: tls.map(|config| TlsAcceptor::from(Arc::new(config))),
            handler,
            black_hole: Arc::default(),
            accepting: None,
        };
        server.listen()?;
        Ok(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections are accepted and never read from, as long as this is on.
    pub(crate) fn set_black_hole(&self, on: bool) {
        self.black_hole.store(on, Ordering::SeqCst);
    }

    /// Listens again after [`Server::stop`]; nothing to do when it listens already.
    pub(crate) fn listen(&mut self) -> Result<()> {
        if self.accepting.is_some() {
            return Ok(());
        }
        let _guard = background::handle().enter();
        let listener = socket(self.address)?
            .listen(1024)
            .with_context(|| format!("listening on {}", self.address))?;
        let accepting = accept(
            listener,
            self.tls.clone(),
            Arc::clone(&self.handler),
            Arc::clone(&self.black_hole),
        );
        let accepting = background::handle().spawn(accepting);
        self.accepting = Some(AbortOnDropHandle::new(accepting));
        Ok(())
    }

    /// Closes the listener and every connection; when this returns, connecting is refused.
    pub(crate) async fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
    }
}

fn socket(address: SocketAddr) -> Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Lets the listener have the port of the reservation.
    socket.set_reuseaddr(true)?;
    socket
        .bind(address)
        .with_context(|| format!("binding {address}"))?;
    Ok(socket)
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    handler: Handler,
    black_hole: Arc<AtomicBool>,
) {
    // Dropped with this future, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let (tls, handler) = (tls.clone(), Arc::clone(&handler));
                let black_hole = black_hole.load(Ordering::SeqCst);
                connections.spawn(connection(stream, tls, handler, black_hole));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    handler: Handler,
    black_hole: bool,
) {
    if black_hole {
        // The stream is still owned here, so that the connection stays open.
        pending::<()>().await;
    }
    match tls {
        None => serve(stream, handler).await,
        Some(tls) => {
            // A client that doesn't like our certificate is what some tests are about.
            if let Ok(stream) = tls.accept(stream).await {
                serve(stream, handler).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, handler: Handler) {
    // An error is a client that went away, or a hang-up that the test asked for.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(|request| handler(request)))
        .await;
}
