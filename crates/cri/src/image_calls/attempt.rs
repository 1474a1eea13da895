//! One request to the runtime, within what is left of the caller's time.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio::time::Instant;

use crate::call::UnaryCall;
use crate::grpc::{Code, Status};
use crate::method::ImageMethod;
use crate::upstream::{Outgoing, UnaryReply, Upstream, UpstreamError};
use crate::wire::{self, AuthEdit, WireError};

/// Why an attempt got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    /// The runtime gave none.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The request can't be read.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// `timeout` of the config has passed, or the caller's deadline.
    #[error("no answer within {} (`timeout` in the config, or the caller's own deadline)", policy::duration::format(*.0))]
    TimedOut(Duration),
}

/// What came of one attempt.
pub(super) type AttemptResult = Result<UnaryReply, AttemptError>;

/// A call, and the time by which it has to be over.
pub(super) struct Attempts {
    call: UnaryCall,
    /// The request with nothing changed.
    unchanged: Outgoing,
    allowed: Duration,
    bounded_by_config: bool,
    deadline: Instant,
}

impl Attempts {
    /// Attempts at answering `call`, all together within `timeout` and within the caller's deadline.
    pub(super) fn new(call: UnaryCall, timeout: Duration) -> Self {
        let left = call.head.remaining();
        let allowed = left.map_or(timeout, |left| left.min(timeout));
        Self {
            unchanged: call.unchanged(),
            call,
            allowed,
            bounded_by_config: left.is_none_or(|left| left > timeout),
            deadline: Instant::now() + allowed,
        }
    }

    /// Which call it is.
    pub(super) fn method(&self) -> ImageMethod {
        self.call.method
    }

    /// The request's message.
    pub(super) fn message(&self) -> &Bytes {
        &self.call.message
    }

    /// The container runtime.
    pub(super) fn upstream(&self) -> &Upstream {
        &self.call.upstream
    }

    /// Time by which the call has to be over.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether `timeout` of the config is what ends the call, and not the caller's own deadline.
    pub(super) fn bounded_by_config(&self) -> bool {
        self.bounded_by_config
    }

    /// What passing the deadline is called.
    pub(super) fn timed_out(&self) -> AttemptError {
        AttemptError::TimedOut(self.allowed)
    }

    /// Sends the request as it came.
    pub(super) async fn unchanged(&self) -> AttemptResult {
        self.send(&self.unchanged).await
    }

    /// Sends the request with another image name. One that can't be edited goes as it came.
    pub(super) async fn with_image(&self, image: &str) -> AttemptResult {
        let path = self.call.method.name_path();
        match wire::replace_text(&self.call.message, path, image) {
            Ok(message) => self.send(&Outgoing::message(&message)?).await,
            Err(error) => {
                tracing::debug!("{} goes as it came: {error}", self.call.method.name());
                self.unchanged().await
            }
        }
    }

    /// Sends the pull request with another image name and other credentials. It never goes as it came: that would be a
    /// pull from somewhere else.
    pub(super) async fn with_image_and_auth(
        &self,
        image: &str,
        auth: AuthEdit<'_>,
    ) -> AttemptResult {
        let message = wire::replace_image_and_auth(&self.call.message, image, auth)?;
        self.send(&Outgoing::message(&message)?).await
    }

    /// The same question as an ImageStatus: for a call that has to know what its name stands for.
    ///
    /// # Errors
    /// The request can't be read with certainty.
    pub(super) fn as_image_status(&self) -> Result<Self, AttemptError> {
        let mut call = self.call.clone();
        // The name stands in the ImageSpec.
        let (_name, spec) = call.method.name_path().split_last().unwrap_or((&0, &[]));
        let message: Bytes = wire::image_status_request(&call.message, spec)?.into();
        call.head.path = image_status_path(&call.head.path);
        call.method = ImageMethod::Status;
        call.message = message.clone();
        Ok(Self {
            unchanged: Outgoing::message(&message)?,
            call,
            ..*self
        })
    }

    async fn send(&self, message: &Outgoing) -> AttemptResult {
        match tokio::time::timeout_at(self.deadline, self.call.send(message)).await {
            Ok(answer) => Ok(answer?),
            Err(_elapsed) => Err(self.timed_out()),
        }
    }
}

/// The path of ImageStatus in the version of the CRI that `path` is of.
fn image_status_path(path: &PathAndQuery) -> PathAndQuery {
    let version = path
        .path()
        .rsplit_once('/')
        .and_then(|(service, _method)| service.rsplit_once('.'))
        .map_or("/runtime.v1", |(version, _service)| version);
    PathAndQuery::try_from(format!("{version}.ImageService/ImageStatus"))
        .unwrap_or_else(|_| path.clone())
}

/// What the caller gets: the runtime's answer, or the status that says why there is none.
pub(super) fn reply(answer: AttemptResult) -> UnaryReply {
    answer.unwrap_or_else(|error| UnaryReply::from_status(&error.status()))
}

impl AttemptError {
    /// The status for the caller.
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Upstream(error) => error.status(),
            Self::Wire(error) => Status::new(Code::INVALID_ARGUMENT, error.to_string()),
            Self::TimedOut(_) => Status::new(Code::DEADLINE_EXCEEDED, self.to_string()),
        }
    }
}
