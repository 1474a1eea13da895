//! One image call on its way: its message is read whole, answered by the image service, and the answer
//! is sent. What can't be read is forwarded as it came, unless the image service refuses that.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::poll_fn;
use h2::server::SendResponse;
use http::request::Parts;

use crate::body::{Collected, Place, collect};
use crate::call::{CallHead, ImageCalls, PassThrough, UnaryCall, Waited};
use crate::forward::{self, Call, Forwarded, forward};
use crate::grpc::{Code, Message, Status};
use crate::method::ImageMethod;
use crate::upstream::{UnaryReply, Upstream, strip_connection_headers};

/// What a panic is called. The log has it already, from the panic itself.
const FAILED_INSIDE: &str = "answering it has failed inside the shim";

/// Answers an image call, whose message is in `place`. `None` where the client was gone before it had said what it wants.
pub(crate) async fn image_call(
    upstream: &Upstream,
    calls: &dyn ImageCalls,
    method: ImageMethod,
    mut call: Call,
    mut place: Place<'_>,
) -> Option<Forwarded> {
    let (prefix, why) = match collect(&mut call.body, &mut place).await.ok()? {
        Collected::Whole(received) => {
            let message = Message::parse(&received);
            match message.and_then(|message| message.decode(&call.head.headers)) {
                Ok(message) => {
                    let request = Request {
                        method,
                        head: call.head,
                        received,
                        message,
                    };
                    return Some(answer(upstream, calls, request, call.respond).await);
                }
                // Compressed in a way we do not know: the runtime may.
                Err(error) => (vec![received], error.to_string()),
            }
        }
        Collected::Other { prefix, why } => (prefix, why.to_string()),
    };
    if let Some(status) = calls.refusal(method, &why) {
        forward::refuse(&mut call.respond, &status);
        return Some(Forwarded {
            code: status.code,
            added: call.began.elapsed(),
        });
    }
    if method == ImageMethod::Pull {
        tracing::warn!("PullImage is forwarded as it came, and no rule applies to it: {why}");
    } else {
        tracing::debug!("{} is forwarded as it came: {why}", method.name());
    }
    call.prefix = prefix;
    Some(forward(upstream, call).await)
}

/// A request that was read whole.
struct Request {
    method: ImageMethod,
    head: Parts,
    /// As it came, with its prefix.
    received: Bytes,
    /// Without prefix, decompressed.
    message: Bytes,
}

async fn answer(
    upstream: &Upstream,
    calls: &dyn ImageCalls,
    request: Request,
    mut respond: SendResponse<Bytes>,
) -> Forwarded {
    let Request {
        method,
        mut head,
        received,
        message,
    } = request;
    strip_connection_headers(&mut head.headers);
    let began = Instant::now();
    let Some(path) = head.uri.path_and_query().cloned() else {
        let status = Status::new(Code::UNIMPLEMENTED, "not a gRPC request: it has no path");
        forward::refuse(&mut respond, &status);
        return Forwarded {
            code: status.code,
            added: began.elapsed(),
        };
    };
    let waited = Arc::new(Waited::default());
    let call = UnaryCall {
        method,
        head: CallHead::new(path, head.headers),
        message,
        received,
        upstream: upstream.clone(),
        waited: Arc::clone(&waited),
    };
    let answering = async {
        let answer = async { calls.call(call.clone()).await };
        // A defect of ours must not fail a call that the runtime could do, and may do.
        match AssertUnwindSafe(answer).catch_unwind().await {
            Ok(reply) => reply,
            Err(_) => {
                let method = call.method;
                if let Some(status) = calls.refusal(method, FAILED_INSIDE) {
                    tracing::error!("{} is refused: {FAILED_INSIDE}", method.name());
                    return UnaryReply::from_status(&status);
                }
                tracing::error!("{} is forwarded as it came: {FAILED_INSIDE}", method.name());
                PassThrough.call(call).await
            }
        }
    };
    let mut answering = pin!(answering);
    let reply = poll_fn(|cx| {
        if respond.poll_reset(cx).is_ready() {
            return Poll::Ready(None);
        }
        answering.as_mut().poll(cx).map(Some)
    })
    .await;
    let added = began.elapsed().saturating_sub(waited.total());
    let code = match reply {
        Some(reply) => {
            let code = reply.status().code;
            // Fails only when the client is gone.
            let _ = reply.send(&mut respond).await;
            code
        }
        None => Code::CANCELLED,
    };
    Forwarded { code, added }
}
