//! One connection from its first byte to its end.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::limits::{Limits, Options};
use crate::protocols::Protocols;
use crate::tls::Shown;

/// The first byte of a TLS record that begins a handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// What a TLS client gets at a plain port. Go's clients, containerd among them, turn to plain HTTP at once
/// when the answer begins with `HTTP/`, and wait for the end of their patience when it doesn't.
const NO_TLS_HERE: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Connection: close\r\n\r\nthis port speaks plain HTTP; write http:// before it\n";
/// How long a client may take to read the last answer before the connection is closed for good, and how
/// long one that has nothing under way has for its goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often HTTP/2 clients are asked whether they are still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Any error, as hyper takes it from bodies.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
}

/// What decides whether a connection gives way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionState {
    pub(crate) client: IpAddr,
    /// No request of it is being answered.
    pub(crate) idle: bool,
    /// Since when it is idle, or is not.
    pub(crate) since: Instant,
    /// It has sent a request before.
    pub(crate) has_asked: bool,
    /// It was asked to end already.
    pub(crate) is_leaving: bool,
}

/// What a service can know about the connection that a request came on: an `Arc<Connection>` is in the
/// request's extensions.
#[derive(Debug)]
pub struct Connection {
    peer: Peer,
    shown: Mutex<Shown>,
    activity: Mutex<Activity>,
    /// Takes no more requests; answers under way are finished.
    ending: CancellationToken,
    /// The same, for one that has to give way: it has less time.
    leaving: CancellationToken,
    /// Ends at once.
    dead: CancellationToken,
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct Activity {
    requests: usize,
    since: Instant,
    has_asked: bool,
}

impl Connection {
    pub(crate) fn new(peer: Peer, ending: CancellationToken, changed: Arc<Notify>) -> Self {
        Self {
            peer,
            shown: Mutex::default(),
            activity: Mutex::new(Activity {
                requests: 0,
                since: Instant::now(),
                has_asked: false,
            }),
            ending,
            leaving: CancellationToken::new(),
            dead: CancellationToken::new(),
            changed,
        }
    }

    /// One that belongs to no listener: for tests of services.
    pub fn detached(address: SocketAddr) -> Self {
        Self::new(
            Peer { address },
            CancellationToken::new(),
            Arc::new(Notify::new()),
        )
    }

    /// The other end's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer.address
    }

    /// The certificate that the client has shown and that was found good
    /// ([`ClientCertificates`](crate::ClientCertificates)).
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.shown.lock().certificate.clone()
    }

    /// What is wrong with the certificate that the client has shown, where it is no good one.
    pub fn unfit_certificate(&self) -> Option<String> {
        self.shown.lock().unfit.clone()
    }

    /// Ends it at once, with whatever it has under way.
    pub fn abort(&self) {
        self.dead.cancel();
    }

    pub(crate) fn leave(&self) {
        self.leaving.cancel();
    }

    /// Until it has ended: work that is of use to this client alone can stop then.
    pub async fn aborted(&self) {
        self.dead.cancelled().await;
    }

    pub(crate) fn state(&self) -> ConnectionState {
        let activity = self.activity.lock();
        ConnectionState {
            client: self.client(),
            idle: activity.requests == 0,
            since: activity.since,
            has_asked: activity.has_asked,
            is_leaving: self.dead.is_cancelled()
                || self.leaving.is_cancelled()
                || self.ending.is_cancelled(),
        }
    }

    fn client(&self) -> IpAddr {
        self.peer.address.ip().to_canonical()
    }

    fn begin(self: &Arc<Self>) -> UnderWay {
        let mut activity = self.activity.lock();
        if activity.requests == 0 {
            activity.since = Instant::now();
        }
        activity.requests += 1;
        activity.has_asked = true;
        UnderWay(Arc::clone(self))
    }

    /// Until it has been idle for `limit`.
    async fn idle_for(&self, limit: Duration) {
        loop {
            let state = self.state();
            let until = if state.idle {
                state.since + limit
            } else {
                Instant::now() + limit
            };
            if state.idle && until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// A request that is being answered; dropped with the answer's last byte.
struct UnderWay(Arc<Connection>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut activity = self.0.activity.lock();
        activity.requests = activity.requests.saturating_sub(1);
        if activity.requests == 0 {
            activity.since = Instant::now();
            drop(activity);
            self.0.changed.notify_waiters();
        }
    }
}

/// The body of an answer, which holds its request under way.
struct Answering<B> {
    body: B,
    _request: UnderWay,
}

impl<B: Body + Unpin> Body for Answering<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What works for a connection ends with it.
#[derive(Clone)]
struct EndsWith(CancellationToken);

impl<F> Executor<F> for EndsWith
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, work: F) {
        let dead = self.0.clone();
        tokio::spawn(async move { dead.run_until_cancelled_owned(work).await });
    }
}

/// Serves one connection until it ends.
pub(crate) async fn serve<S, B>(
    stream: TcpStream,
    connection: Arc<Connection>,
    options: &Options,
    service: S,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + Unpin + 'static,
    B::Data: Buf + Send,
    B::Error: Into<BoxError>,
{
    let dead = connection.dead.clone();
    // In its own allocation, as each request's answer.
    let begun = Box::pin(begin(stream, &connection, options, service));
    dead.run_until_cancelled(begun).await;
}

async fn begin<S, B>(
    mut stream: TcpStream,
    connection: &Arc<Connection>,
    options: &Options,
    service: S,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + Unpin + 'static,
    B::Data: Buf + Send,
    B::Error: Into<BoxError>,
{
    // Small answers must not wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    let limits = &options.limits;
    let Some(tls) = &options.tls else {
        match timeout(limits.head_timeout, first_byte(&stream)).await {
            Ok(Some(TLS_HANDSHAKE)) => refuse_tls(&mut stream).await,
            Ok(Some(_)) => speak(stream, false, connection, limits, service).await,
            Ok(None) | Err(_) => {}
        }
        return;
    };
    let (stream, shown) = match timeout(limits.handshake_timeout, tls.accept(stream)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => {
            // Who probes the port with plain TCP ends here too, which is no news.
            tracing::debug!("a TLS handshake for {} failed: {error}", options.purpose);
            return;
        }
        Err(_) => return,
    };
    let session = stream.get_ref().1;
    *connection.shown.lock() = shown;
    let http2 =
        options.protocols == Protocols::Http1AndHttp2 && session.alpn_protocol() == Some(b"h2");
    speak(stream, http2, connection, limits, service).await;
}

async fn first_byte(stream: &TcpStream) -> Option<u8> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1..) => Some(first[0]),
        Ok(0) | Err(_) => None,
    }
}

async fn refuse_tls(stream: &mut TcpStream) {
    let goodbye = async {
        stream.write_all(NO_TLS_HERE).await?;
        stream.shutdown().await?;
        // Closed with bytes unread, a connection is reset, and the answer lost with it.
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    let _ = timeout(GOODBYE_TIMEOUT, goodbye).await;
}

/// Speaks HTTP until the connection ends.
async fn speak<IO, S, B>(
    io: IO,
    http2: bool,
    connection: &Arc<Connection>,
    limits: &Limits,
    service: S,
) where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + Unpin + 'static,
    B::Data: Buf + Send,
    B::Error: Into<BoxError>,
{
    let service = counted(service, Arc::clone(connection));
    let io = TokioIo::new(io);
    let window = limits.window;
    if http2 {
        let serving = http2::Builder::new(EndsWith(connection.dead.clone()))
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(u32::try_from(limits.head_size).unwrap_or(u32::MAX))
            .initial_connection_window_size(window)
            .initial_stream_window_size(window / 2)
            .max_send_buf_size(64 << 10)
            .keep_alive_interval(PING_INTERVAL)
            .serve_connection(io, service);
        until_its_end(serving, connection, limits).await;
    } else {
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_timeout)
            .max_buf_size(limits.head_size)
            .serve_connection(io, service);
        until_its_end(serving, connection, limits).await;
    }
}

/// Tells the service about the connection, and the connection about its requests.
fn counted<S, B>(
    service: S,
    connection: Arc<Connection>,
) -> impl HttpService<
    Incoming,
    ResBody = Answering<B>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Answering<B>>, Infallible>> + Send + 'static,
>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body + Send + Unpin + 'static,
{
    service_fn(move |mut request: Request<Incoming>| {
        let under_way = connection.begin();
        request.extensions_mut().insert(Arc::clone(&connection));
        // In its own allocation: what is awaited by a future that owns it takes its size twice in that
        // future, and that again in each future around it.
        let answer = Box::pin(service.call(request));
        async move {
            let response = answer.await?;
            Ok(response.map(|body| Answering {
                body,
                _request: under_way,
            }))
        }
    })
}

/// Runs it until it ends by itself, or has to.
async fn until_its_end<C>(serving: C, connection: &Connection, limits: &Limits)
where
    C: GracefulConnection,
{
    let mut serving = pin!(serving);
    let lifetime = async {
        match limits.lifetime {
            Some(lifetime) => sleep(lifetime).await,
            None => std::future::pending().await,
        }
    };
    let patience = tokio::select! {
        // An error is a client that went away, or spoke no HTTP.
        _ = serving.as_mut() => return,
        () = connection.ending.cancelled() => limits.drain_timeout,
        () = connection.leaving.cancelled() => GOODBYE_TIMEOUT,
        () = connection.idle_for(limits.idle_timeout) => GOODBYE_TIMEOUT,
        () = lifetime => limits.drain_timeout,
    };
    serving.as_mut().graceful_shutdown();
    let _ = timeout(patience, serving).await;
}
