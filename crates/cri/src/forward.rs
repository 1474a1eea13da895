//! Calls that pass through: streamed both ways as they come, nothing held back, nothing changed.

use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::poll_fn;
use h2::RecvStream;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};

use crate::flow::{self, PumpError};
use crate::grpc::{Code, Status};
use crate::upstream::{UnaryReply, Upstream};

/// How a forwarded call ended, and what it took on top of the runtime's time.
pub(crate) struct Forwarded {
    pub(crate) code: Code,
    /// From the call's beginning until its head was on its way to the runtime, and from the answer's head
    /// until that was on its way to the client.
    pub(crate) added: Duration,
}

/// Forwards a call that began at `began`. `prefix` is what was already read of its body.
///
/// Metadata, `te`, `grpc-timeout`, messages (compressed or not), trailers and status details go through
/// as they are, and each side's flow control reaches the other. When the client cancels, the call is
/// cancelled at the runtime. When the runtime fails, the client gets a gRPC status that says how.
pub(crate) async fn forward(
    upstream: &Upstream,
    began: Instant,
    request: Parts,
    prefix: Vec<Bytes>,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
) -> Forwarded {
    let Some(path) = request.uri.path_and_query().cloned() else {
        // Only CONNECT has none, and no gRPC client sends that.
        let status = Status::new(Code::UNIMPLEMENTED, "not a gRPC request: it has no path");
        return refused(began, &mut respond, &status);
    };
    let end_of_stream = prefix.is_empty() && body.is_end_stream();
    let opened = upstream
        .open(request.method, path, request.headers, end_of_stream)
        .await;
    let (response, mut sending) = match opened {
        Ok(streams) => streams,
        Err(error) => return refused(began, &mut respond, &error.status()),
    };
    let added = began.elapsed();
    let request_body = async {
        if end_of_stream {
            return Ok(());
        }
        for chunk in prefix {
            flow::send_first(&mut sending, chunk, false)
                .await
                .map_err(PumpError::To)?;
        }
        flow::pump(&mut body, &mut sending).await.map(drop)
    };
    // If the request's body breaks off, the answer's way sees it too: a client that resets the stream
    // or goes away as a reset of the answer, a runtime that does as the end of the answer.
    let answer = async { answer(upstream, response, &mut respond).await };
    let mut forwarded = flow::drive(request_body, answer).await;
    forwarded.added += added;
    forwarded
}

fn refused(began: Instant, respond: &mut SendResponse<Bytes>, status: &Status) -> Forwarded {
    refuse(respond, status);
    Forwarded {
        code: status.code,
        added: began.elapsed(),
    }
}

/// Passes the runtime's answer on, until it ends or the client is gone.
async fn answer(
    upstream: &Upstream,
    mut response: ResponseFuture,
    respond: &mut SendResponse<Bytes>,
) -> Forwarded {
    let mut forwarded = Forwarded {
        code: Code::CANCELLED,
        added: Duration::ZERO,
    };
    let arrived = poll_fn(|cx| {
        if respond.poll_reset(cx).is_ready() {
            return Poll::Ready(None);
        }
        response.poll_unpin(cx).map(Some)
    })
    .await;
    let response = match arrived {
        None => return forwarded,
        Some(Ok(response)) => response,
        Some(Err(error)) => {
            let status = upstream.http2_error(error).status();
            refuse(respond, &status);
            forwarded.code = status.code;
            return forwarded;
        }
    };
    let answered = Instant::now();
    let (head, mut body) = response.into_parts();
    let end_of_stream = body.is_end_stream();
    let told = Code::from_headers(&head.headers);
    let untold = match head.status {
        StatusCode::OK => Code::INTERNAL,
        other => Code::from_http(other),
    };
    // Fails only when the client is gone.
    let Ok(mut to) = respond.send_response(Response::from_parts(head, ()), end_of_stream) else {
        return forwarded;
    };
    forwarded.added = answered.elapsed();
    if end_of_stream {
        forwarded.code = told.unwrap_or(untold);
        return forwarded;
    }
    match flow::pump(&mut body, &mut to).await {
        Ok(code) => forwarded.code = code.or(told).unwrap_or(untold),
        Err(PumpError::To(_)) => {}
        Err(PumpError::From(error)) => {
            // The answer has begun, so that only its trailers can still tell what happened.
            let mut trailers = HeaderMap::new();
            let status = upstream.http2_error(error).status();
            status.write_to(&mut trailers);
            let _ = to.send_trailers(trailers);
            forwarded.code = status.code;
        }
    }
    forwarded
}

/// Answers with a status of our own.
pub(crate) fn refuse(respond: &mut SendResponse<Bytes>, status: &Status) {
    let reply = UnaryReply::from_status(status);
    let mut head = Response::new(());
    *head.headers_mut() = reply.headers;
    // Fails only when the client is gone.
    let _ = respond.send_response(head, true);
}
