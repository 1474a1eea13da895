//! One image call, as the server hands it to the code that answers it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use crate::call_head::CallHead;
use crate::grpc::Status;
use crate::method::ImageMethod;
use crate::upstream::{Outgoing, UnaryReply, Upstream, UpstreamError};

/// What answers the image calls.
///
/// The server calls it for each request whose path is in the method table and whose body is exactly
/// one readable message; for others of these paths it is asked for their [refusal](Self::refusal) only. When the client cancels, the future is
/// dropped, and with it whatever it asked of the runtime is cancelled there.
pub trait ImageCalls: Send + Sync + 'static {
    /// Answers one call. Failures are answers too: [`UnaryReply::from_status`].
    fn call(&self, call: UnaryCall) -> BoxFuture<'static, UnaryReply>;

    /// What the client of a call gets that can't be read, or whose answer has failed inside the shim; `why` says
    /// which. `None`: the call is forwarded as it came.
    fn refusal(&self, _method: ImageMethod, _why: &str) -> Option<Status> {
        None
    }

    /// Whether calls of this method are answered here now. Others are forwarded as they come, without
    /// being read.
    fn answers(&self, method: ImageMethod) -> bool {
        method != ImageMethod::List
    }
}

/// An [`ImageCalls`] that forwards every call as it came.
#[derive(Debug, Clone, Copy, Default)]
pub struct PassThrough;

impl ImageCalls for PassThrough {
    fn call(&self, call: UnaryCall) -> BoxFuture<'static, UnaryReply> {
        Box::pin(async move {
            call.send(&call.unchanged())
                .await
                .unwrap_or_else(|error| UnaryReply::from_status(&error.status()))
        })
    }
}

/// A request with one message, received whole.
#[derive(Clone)]
pub struct UnaryCall {
    /// Which of the image calls it is.
    pub method: ImageMethod,
    /// Path, metadata and deadline.
    pub head: CallHead,
    /// The message, decompressed.
    pub message: Bytes,
    /// The message as it came: with its prefix, compressed if it was.
    pub(crate) received: Bytes,
    /// The container runtime.
    pub upstream: Upstream,
    /// How long it was waited for.
    pub(crate) waited: Arc<Waited>,
}

/// Time that a call spent waiting for the runtime; the rest is the shim's own.
#[derive(Debug, Default)]
pub(crate) struct Waited(AtomicU64);

impl Waited {
    pub(crate) fn total(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// Counts until the guard is dropped: a wait that was given up on was a wait too.
    fn begin(&self) -> impl Drop {
        Waiting {
            total: &self.0,
            began: Instant::now(),
        }
    }
}

struct Waiting<'a> {
    total: &'a AtomicU64,
    began: Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let nanos = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.total.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl UnaryCall {
    /// The request as it came, for [`UnaryCall::send`].
    pub fn unchanged(&self) -> Outgoing {
        Outgoing::as_received(self.received.clone())
    }

    /// Sends the call to the runtime with the given message and waits for the whole answer. May be
    /// used several times; each is a call of its own.
    ///
    /// # Errors
    /// Any [`UpstreamError`] but `AnswerTooLarge` means that there was no answer. A gRPC status other
    /// than OK is an answer, not an error.
    pub async fn send(&self, message: &Outgoing) -> Result<UnaryReply, UpstreamError> {
        let _waiting = self.waited.begin();
        self.upstream.unary(&self.head, message).await
    }
}
