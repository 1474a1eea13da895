//! The server side: what happens to a connection and to each call on it, and how serving ends.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, poll_fn};
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;
use http::request::Parts;
use telemetry::Telemetry;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::accept::accept_all;
use crate::authority::AuthorityFix;
use crate::body::{Collected, Room, collect};
use crate::budget::{Budget, Share};
use crate::call::ImageCalls;
use crate::forward::{Call, Forwarded, forward};
use crate::grpc::{self, Code, Status};
use crate::http2::Http2Tuning;
use crate::image_call::image_call;
use crate::inspect::{self, Inspect};
use crate::listener::Listener;
use crate::method::{self, ImageMethod};
use crate::stop::{Ending, InFlight, Phase};
use crate::upstream::{UnaryReply, Upstream};

/// Below the two minutes that a kubelet gives most of its calls.
const TICK_INTERVAL: Duration = Duration::from_secs(60);
/// How long a client that has connected may take to say anything once the server closes.
const HELLO_TIMEOUT: Duration = Duration::from_millis(250);
/// The same where another process serves the next ones: nobody waits for us.
const PATIENT_HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// When the calls in flight end within this, none of them is one to wait for: the server may close.
const QUIET_INTERVAL: Duration = Duration::from_millis(250);
/// How long clients get to take what was sent to them, where the time for calls is up.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client that was asked to go may take to hang up.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Lists of images that one client may have under way where they are held whole.
const MAX_LISTS: usize = 8;

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

/// Why serving ends.
pub enum Leave {
    /// The process is to stop.
    Stop,
    /// Another process has [taken over](Listener::take_over) the socket, and accepts connections by now.
    HandedOver {
        /// What is still in flight when this ends is cut off.
        until: BoxFuture<'static, ()>,
    },
}

/// Serves clients until `shutdown` is ready, and ends in three steps.
///
/// Streams that never end by themselves end at once, with UNAVAILABLE. Calls in flight have `drain` to end;
/// meanwhile connections and calls are taken as before, so that nobody is without a runtime because one
/// pull is long. Then the socket file is removed, clients are asked to make no new calls (GOAWAY), and
/// what is left after `drain` is cut off.
///
/// Where the socket was [handed over](Leave::HandedOver) the file stays, nothing new is accepted, and clients are asked
/// to make no new calls at once: their next connection is the other process's.
///
/// Must run inside a tokio runtime; it and its calls run as tasks of that runtime, which is best a
/// current-thread one: passing a call between threads costs more than the call.
pub async fn serve(
    listener: Listener,
    upstream: Upstream,
    services: Services,
    shutdown: impl Future<Output = Leave>,
    drain: Duration,
) {
    let (phase, phases) = watch::channel(Phase::Serving);
    let service = Arc::new(Service {
        upstream,
        services,
        phases,
        in_flight: InFlight::default(),
        budget: Budget::new(&Http2Tuning::SHIM),
        room: Room::default(),
    });
    let _ticking = AbortOnDropHandle::new(tokio::spawn(tick()));
    let mut connections = JoinSet::new();
    let deadline = {
        let mut sharing = pin!(listener.share().fuse());
        // At once, so that nobody whom the socket answers finds it with the wrong owner.
        let _ = sharing.as_mut().now_or_never();
        let mut serving = pin!(async {
            // Sharing ends, and then accepting goes on.
            tokio::join!(
                accept_all(&listener, &mut connections, |stream| Arc::clone(&service)
                    .connection(stream)),
                sharing.as_mut()
            )
        });
        let leave = tokio::select! {
            biased;
            leave = shutdown => leave,
            _ = serving.as_mut() => Leave::Stop,
        };
        match leave {
            Leave::HandedOver { until } => Err(until),
            Leave::Stop => {
                let deadline = Instant::now() + drain;
                phase.send_replace(Phase::Stopping);
                tokio::select! {
                    biased;
                    () = service.wait_for_calls(drain) => {}
                    () = tokio::time::sleep_until(deadline.into()) => {}
                    _ = serving.as_mut() => {}
                }
                Ok(deadline)
            }
        }
    };
    let (cut_off, patience): (BoxFuture<'static, ()>, _) = match deadline {
        Err(until) => {
            listener.leave();
            phase.send_replace(Phase::HandedOver);
            match service.in_flight.to_string() {
                calls if calls.is_empty() => {
                    tracing::info!("handed over: no call is in flight");
                }
                calls => {
                    tracing::info!("handed over: waiting for calls in flight: {calls}");
                }
            }
            (until, PATIENT_HELLO_TIMEOUT)
        }
        Ok(deadline) => {
            // Whoever connected before the file was gone was let in.
            for stream in listener.retire() {
                connections.spawn(Arc::clone(&service).connection(stream));
            }
            phase.send_replace(Phase::Closing);
            let deadline = deadline.max(Instant::now() + CLOSE_TIMEOUT);
            let cut_off = Box::pin(tokio::time::sleep_until(deadline.into()));
            (cut_off, GOODBYE_TIMEOUT)
        }
    };
    let closed = async { while connections.join_next().await.is_some() {} };
    let in_time = tokio::select! {
        biased;
        () = closed => true,
        // A client that does not read, such as a stopped `crictl`, never goes by itself.
        () = service.idle_for(CLOSE_TIMEOUT + patience) => false,
        () = cut_off => false,
    };
    if !in_time {
        match service.in_flight.to_string() {
            calls if calls.is_empty() => {
                tracing::debug!("hanging up on clients that were asked to go and did not");
            }
            calls => tracing::warn!(
                "calls were still in flight when their time was up; cutting them off: {calls}"
            ),
        }
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
struct Service {
    /// The runtime; each client gets a connection of its own to it.
    upstream: Upstream,
    services: Services,
    /// How far the end has come.
    phases: watch::Receiver<Phase>,
    in_flight: InFlight,
    budget: Budget,
    /// For messages that are read whole.
    room: Room,
}

/// One connected client, for as long as it is or one of its calls is under way.
struct Client {
    service: Arc<Service>,
    /// Its own connection to the runtime: what it doesn't read holds up nobody else.
    upstream: Upstream,
    /// Lists of images that it may have under way where these are edited.
    lists: Semaphore,
    /// What the windows of its connections come out of.
    _share: Share,
}

impl Service {
    /// Ends when no call is in flight but such as come and go. Says what it waits for.
    async fn wait_for_calls(&self, most: Duration) {
        let calls = self.in_flight.to_string();
        if calls.is_empty() {
            return tracing::info!("stopping: no call is in flight");
        }
        tracing::info!("stopping: waiting up to {most:?} for calls in flight: {calls}");
        loop {
            let began = Instant::now();
            self.in_flight.wait_for_present().await;
            // Those that have begun meanwhile may be long ones too.
            if began.elapsed() < QUIET_INTERVAL {
                return;
            }
        }
    }

    /// Ends when no call has been in flight for so long.
    async fn idle_for(&self, time: Duration) {
        loop {
            self.in_flight.wait_for_present().await;
            tokio::time::sleep(time).await;
            if self.in_flight.to_string().is_empty() {
                return;
            }
        }
    }

    /// Serves one client until it goes away, or until all its calls are done after the server has closed.
    pub(crate) async fn connection(self: Arc<Self>, mut stream: UnixStream) {
        if self.converse(&mut stream).await == Ended::Asked {
            say_goodbye(stream).await;
        }
    }

    async fn converse(self: Arc<Self>, stream: &mut UnixStream) -> Ended {
        let share = self.budget.share();
        let http2 = Http2Tuning::SHIM.server(share.window());
        let mut phases = self.phases.clone();
        let mut closing = pin!(async move {
            // An error is the end of the server itself.
            let phase = phases.wait_for(|phase| phase.is_closing()).await;
            match phase.is_ok_and(|phase| *phase == Phase::HandedOver) {
                true => PATIENT_HELLO_TIMEOUT,
                false => HELLO_TIMEOUT,
            }
        });
        let handshake = http2.handshake::<_, Bytes>(AuthorityFix::new(stream));
        let handshake = tokio::select! {
            handshake = handshake => handshake,
            // A client that connected just before gets its answer, one that only connected does not
            // hold up the end.
            () = closing.as_mut().then(tokio::time::sleep) => return Ended::Otherwise,
        };
        let mut connection = match handshake {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%error, "a client does not speak HTTP/2");
                return Ended::Otherwise;
            }
        };
        let client = Arc::new(Client {
            upstream: self.upstream.separate(share.window()),
            lists: Semaphore::new(MAX_LISTS),
            _share: share,
            service: self,
        });
        let mut notified = client.service.phases.borrow().is_closing();
        if notified {
            connection.graceful_shutdown();
        }
        loop {
            let accepted = poll_fn(|cx| {
                if !notified && closing.as_mut().poll(cx).is_ready() {
                    notified = true;
                    connection.graceful_shutdown();
                }
                connection.poll_accept(cx)
            });
            match accepted.await {
                None if notified => return Ended::Asked,
                None => return Ended::Otherwise,
                Some(Ok((request, respond))) => {
                    tokio::spawn(Arc::clone(&client).call(request, respond));
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "a client's connection ended");
                    return Ended::Otherwise;
                }
            }
        }
    }
}

/// How a connection has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The client was asked to go, and all its calls are done.
    Asked,
    /// The client has hung up, or was never understood.
    Otherwise,
}

/// Lets a client hang up that was asked to go (GOAWAY). A call that it had sent before it read that is not taken, and it knows so
/// from the last GOAWAY. Where its write failed, because nobody is there to read, it may see only that.
async fn say_goodbye(mut stream: UnixStream) {
    let hung_up = async {
        let mut unread = [0; 4096];
        while matches!(stream.read(&mut unread).await, Ok(length) if length > 0) {}
    };
    // Who does not hang up is hung up on.
    let _ = tokio::time::timeout(GOODBYE_TIMEOUT, hung_up).await;
}

impl Client {
    async fn call(self: Arc<Self>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let began = Instant::now();
        let service = &*self.service;
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let label = method::label(path);
        let _in_flight = (!method::is_endless(label)).then(|| service.in_flight.begin(label));
        if let Some(name) = path.strip_prefix(inspect::SERVICE) {
            let name = name.to_owned();
            return service.inspect(&name, &head, body, respond).await;
        }
        let calls = &*service.services.calls;
        let method = ImageMethod::from_path(path)
            .filter(|method| head.method == http::Method::POST && calls.answers(*method));
        let call = Call {
            began,
            head,
            prefix: Vec::new(),
            body,
            respond,
            ending: Ending::new(service.phases.clone(), label),
        };
        let ended = match method {
            Some(method) => {
                // A whole list is held until its client has taken it.
                let _list = match method {
                    ImageMethod::List => self.lists.acquire().await.ok(),
                    _ => None,
                };
                let place = service.room.place();
                image_call(&self.upstream, calls, method, call, place).await
            }
            None => Some(forward(&self.upstream, call).await),
        };
        let metrics = service.services.telemetry.metrics();
        if let Some(Forwarded { code, added }) = ended {
            metrics.call(label, code.0);
            metrics.added(label, added);
        }
    }
}

impl Service {
    /// Answers a call of the shim's own service.
    async fn inspect(
        &self,
        method: &str,
        head: &Parts,
        mut body: RecvStream,
        mut respond: SendResponse<Bytes>,
    ) {
        let mut place = self.room.place();
        let message = match collect(&mut body, &mut place).await {
            Ok(Collected::Whole(received)) => grpc::single_message(&received, &head.headers),
            Ok(Collected::Other { .. }) => Err(grpc::FrameError::Truncated),
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
