//! Calls that pass through: streamed both ways as they come, nothing held back, nothing changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::poll_fn;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};

use crate::flow::{self, PumpError};
use crate::grpc::{Code, Status};
use crate::stop::Ending;
use crate::upstream::{UnaryReply, Upstream, UpstreamError};

/// How often a call is sent to a runtime that does nothing for it.
const ATTEMPTS: usize = 3;
/// How much of a request is kept to be sent again, in bytes. Requests of the CRI are mostly smaller.
const KEPT_FOR_AGAIN: usize = 64 << 10;

/// How a forwarded call ended, and what it took on top of the runtime's time.
pub(crate) struct Forwarded {
    pub(crate) code: Code,
    /// From the call's beginning until its head was on its way to the runtime, and from the answer's head
    /// until that was on its way to the client.
    pub(crate) added: Duration,
}

/// A call that is to be forwarded.
pub(crate) struct Call {
    pub(crate) began: Instant,
    pub(crate) head: Parts,
    /// What was already read of its body.
    pub(crate) prefix: Vec<Bytes>,
    pub(crate) body: RecvStream,
    pub(crate) respond: SendResponse<Bytes>,
    /// When it has to end because the server does.
    pub(crate) ending: Ending,
}

/// Forwards a call.
///
/// Metadata, `te`, `grpc-timeout`, messages (compressed or not), trailers and status details go through
/// as they are, and each side's flow control reaches the other. When the client cancels, the call is
/// cancelled at the runtime. When the runtime fails, the client gets a gRPC status that says how; a call
/// that it certainly did nothing for (it was about to close the connection) is sent again.
pub(crate) async fn forward(upstream: &Upstream, call: Call) -> Forwarded {
    let Call {
        began,
        head,
        prefix,
        mut body,
        mut respond,
        mut ending,
    } = call;
    let Some(path) = head.uri.path_and_query().cloned() else {
        // Only CONNECT has none, and no gRPC client sends that.
        let status = Status::new(Code::UNIMPLEMENTED, "not a gRPC request: it has no path");
        return refused(began, &mut respond, &status);
    };
    let mut sent = Sent::of(prefix);
    let mut attempt = 1;
    loop {
        let (method, path, headers) = (head.method.clone(), path.clone(), head.headers.clone());
        let again = sent.chunks.clone();
        let end_of_stream = again.is_empty() && body.is_end_stream();
        let opened = upstream.open(method, path, headers, end_of_stream).await;
        let (response, mut sending) = match opened {
            Ok(streams) => streams,
            Err(error) => return refused(began, &mut respond, &error.status()),
        };
        let added = began.elapsed();
        let request_body = async {
            if end_of_stream {
                return Ok(());
            }
            for chunk in again {
                flow::send_first(&mut sending, chunk, false)
                    .await
                    .map_err(PumpError::To)?;
            }
            let keep = |chunk: &Bytes| sent.keep(chunk);
            flow::pump(&mut body, &mut sending, keep).await.map(drop)
        };
        // If the request's body breaks off, the answer's way sees it too: a client that resets the stream
        // or goes away as a reset of the answer, a runtime that does as the end of the answer.
        let answer = async { answer(upstream, response, &mut respond, &mut ending).await };
        match flow::drive(request_body, answer).await {
            Ok(mut forwarded) => {
                forwarded.added += added;
                return forwarded;
            }
            Err(error) => {
                if attempt == ATTEMPTS || sent.is_incomplete {
                    return refused(began, &mut respond, &error.status());
                }
                attempt += 1;
            }
        }
    }
}

/// What was sent of a request's body, to be sent again should the runtime not have taken it.
struct Sent {
    chunks: Vec<Bytes>,
    size: usize,
    /// Something is missing: it has become too much.
    is_incomplete: bool,
}

impl Sent {
    fn of(prefix: Vec<Bytes>) -> Self {
        Self {
            size: prefix.iter().map(Bytes::len).sum(),
            chunks: prefix,
            is_incomplete: false,
        }
    }

    fn keep(&mut self, chunk: &Bytes) {
        self.size += chunk.len();
        self.is_incomplete |= self.size > KEPT_FOR_AGAIN;
        if self.is_incomplete {
            self.chunks.clear();
        } else if !chunk.is_empty() {
            self.chunks.push(chunk.clone());
        }
    }
}

fn refused(began: Instant, respond: &mut SendResponse<Bytes>, status: &Status) -> Forwarded {
    refuse(respond, status);
    Forwarded {
        code: status.code,
        added: began.elapsed(),
    }
}

/// Passes the runtime's answer on, until it ends, the client is gone or the server's end ends it.
///
/// # Errors
/// The runtime certainly did nothing for the call, and the client has got nothing.
async fn answer(
    upstream: &Upstream,
    response: ResponseFuture,
    respond: &mut SendResponse<Bytes>,
    ending: &mut Ending,
) -> Result<Forwarded, UpstreamError> {
    let mut forwarded = Forwarded {
        code: Code::CANCELLED,
        added: Duration::ZERO,
    };
    let arrived = tokio::select! {
        biased;
        arrived = head_of(response, respond) => arrived,
        () = ending.before_answer() => {
            let status = Ending::status();
            refuse(respond, &status);
            forwarded.code = status.code;
            return Ok(forwarded);
        }
    };
    let response = match arrived {
        None => return Ok(forwarded),
        Some(Ok(response)) => response,
        Some(Err(error)) => {
            let error = upstream.http2_error(error);
            if error.was_not_processed() {
                return Err(error);
            }
            let status = error.status();
            refuse(respond, &status);
            forwarded.code = status.code;
            return Ok(forwarded);
        }
    };
    let answered = Instant::now();
    let (head, mut body) = response.into_parts();
    let end_of_stream = body.is_end_stream();
    let in_head = Code::from_headers(&head.headers);
    let without_code = match head.status {
        StatusCode::OK => Code::INTERNAL,
        other => Code::from_http(other),
    };
    // Fails only when the client is gone.
    let Ok(mut to) = respond.send_response(Response::from_parts(head, ()), end_of_stream) else {
        return Ok(forwarded);
    };
    forwarded.added = answered.elapsed();
    if end_of_stream {
        forwarded.code = in_head.unwrap_or(without_code);
        return Ok(forwarded);
    }
    let moved = AtomicU64::default();
    let count = |chunk: &Bytes| {
        moved.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    };
    let pumped = tokio::select! {
        biased;
        pumped = flow::pump(&mut body, &mut to, count) => pumped,
        () = ending.in_answer(&moved) => {
            forwarded.code = end_answer(&mut to, &Ending::status());
            return Ok(forwarded);
        }
    };
    match pumped {
        Ok(code) => forwarded.code = code.or(in_head).unwrap_or(without_code),
        Err(PumpError::To(_)) => {}
        Err(PumpError::From(error)) => {
            let status = upstream.http2_error(error).status();
            forwarded.code = end_answer(&mut to, &status);
        }
    }
    Ok(forwarded)
}

/// The head of the runtime's answer; `None` when the client is gone.
async fn head_of(
    mut response: ResponseFuture,
    respond: &mut SendResponse<Bytes>,
) -> Option<Result<Response<RecvStream>, h2::Error>> {
    poll_fn(|cx| {
        if respond.poll_reset(cx).is_ready() {
            return Poll::Ready(None);
        }
        response.poll_unpin(cx).map(Some)
    })
    .await
}

/// Ends an answer that has begun, so that only its trailers can still say what happened.
fn end_answer(to: &mut SendStream<Bytes>, status: &Status) -> Code {
    let mut trailers = HeaderMap::new();
    status.write_to(&mut trailers);
    // Fails only when the client is gone.
    let _ = to.send_trailers(trailers);
    status.code
}

/// Answers with a status of our own.
pub(crate) fn refuse(respond: &mut SendResponse<Bytes>, status: &Status) {
    let reply = UnaryReply::from_status(status);
    let mut head = Response::new(());
    *head.headers_mut() = reply.headers;
    // Fails only when the client is gone.
    let _ = respond.send_response(head, true);
}
