//! Calls that pass through: streamed both ways as they come, nothing held back, nothing changed.

use std::task::Poll;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::poll_fn;
use h2::RecvStream;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use http::request::Parts;
use http::{HeaderMap, Response};

use crate::flow::{self, PumpError};
use crate::grpc::{Code, Status};
use crate::upstream::{UnaryReply, Upstream};

/// Forwards a call. `prefix` is what was already read of its body.
///
/// Metadata, `te`, `grpc-timeout`, messages (compressed or not), trailers and status details go through
/// as they are, and each side's flow control reaches the other. When the client cancels, the call is
/// cancelled at the runtime. When the runtime fails, the client gets a gRPC status that says how.
pub(crate) async fn forward(
    upstream: &Upstream,
    request: Parts,
    prefix: Vec<Bytes>,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
) {
    let Some(path) = request.uri.path_and_query().cloned() else {
        // Only CONNECT has none, and no gRPC client sends that.
        let status = Status::new(Code::UNIMPLEMENTED, "not a gRPC request: it has no path");
        return refuse(&mut respond, &status);
    };
    let end_of_stream = prefix.is_empty() && body.is_end_stream();
    let opened = upstream
        .open(request.method, path, request.headers, end_of_stream)
        .await;
    let (response, mut sending) = match opened {
        Ok(streams) => streams,
        Err(error) => return refuse(&mut respond, &error.status()),
    };
    let request_body = async {
        if end_of_stream {
            return Ok(());
        }
        for chunk in prefix {
            flow::send(&mut sending, chunk, false)
                .await
                .map_err(PumpError::To)?;
        }
        flow::pump(&mut body, &mut sending).await
    };
    // If the request's body breaks off, the answer's way sees it too: a client that resets the stream
    // or goes away as a reset of the answer, a runtime that does as the end of the answer.
    let answer = async { answer(upstream, response, &mut respond).await };
    flow::drive(request_body, answer).await;
}

/// Passes the runtime's answer on, until it ends or the client is gone.
async fn answer(
    upstream: &Upstream,
    mut response: ResponseFuture,
    respond: &mut SendResponse<Bytes>,
) {
    let arrived = poll_fn(|cx| {
        if respond.poll_reset(cx).is_ready() {
            return Poll::Ready(None);
        }
        response.poll_unpin(cx).map(Some)
    })
    .await;
    let response = match arrived {
        None => return,
        Some(Ok(response)) => response,
        Some(Err(error)) => {
            return refuse(respond, &upstream.http2_error(error).status());
        }
    };
    let (head, mut body) = response.into_parts();
    let end_of_stream = body.is_end_stream();
    // Fails only when the client is gone.
    let Ok(mut to) = respond.send_response(Response::from_parts(head, ()), end_of_stream) else {
        return;
    };
    if end_of_stream {
        return;
    }
    if let Err(PumpError::From(error)) = flow::pump(&mut body, &mut to).await {
        // The answer has begun, so that only its trailers can still tell what happened.
        let mut trailers = HeaderMap::new();
        upstream.http2_error(error).status().write_to(&mut trailers);
        let _ = to.send_trailers(trailers);
    }
}

/// Answers with a status of our own.
pub(crate) fn refuse(respond: &mut SendResponse<Bytes>, status: &Status) {
    let reply = UnaryReply::from_status(status);
    let mut head = Response::new(());
    *head.headers_mut() = reply.headers;
    // Fails only when the client is gone.
    let _ = respond.send_response(head, true);
}
