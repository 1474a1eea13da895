//! What can go wrong between the shim and the container runtime.

use std::io;
use std::path::PathBuf;

use crate::grpc::{Code, Status};

/// Why a call got no answer from the runtime. [`UpstreamError::status`] is what the caller is told.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Its socket can't be connected to. Nothing of the call reached it; trying again is safe.
    #[error("cannot reach the container runtime at unix://{}: {source}; is it running?", socket.display())]
    Connect {
        /// The runtime's socket.
        socket: PathBuf,
        /// What the connect said.
        source: io::Error,
    },
    /// The stream was reset or the connection ended while the call was under way. Whether the runtime
    /// carried the call out is not known, unless [`UpstreamError::was_not_processed`].
    #[error("the call to the container runtime at unix://{} broke off: {source}", socket.display())]
    Http2 {
        /// The runtime's socket.
        socket: PathBuf,
        /// What the HTTP/2 layer said.
        source: h2::Error,
    },
    /// The answer is longer than the shim keeps in memory.
    #[error("the container runtime's answer is larger than {limit} bytes")]
    AnswerTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The request is longer than a gRPC message can be (4 GiB).
    #[error("the request is too large for a gRPC message")]
    RequestTooLarge,
    /// The caller's deadline passed before the call was sent.
    #[error("the deadline of the call passed before it could be sent to the container runtime")]
    DeadlineExceeded,
}

impl UpstreamError {
    /// The gRPC status for it: resets as grpc-go maps them, everything that ended with the connection
    /// UNAVAILABLE.
    pub fn status(&self) -> Status {
        let code = match self {
            Self::Connect { .. } => Code::UNAVAILABLE,
            Self::Http2 { source, .. } => match source.reason() {
                Some(reason) if source.is_reset() => Code::from_reset(reason),
                _ => Code::UNAVAILABLE,
            },
            Self::AnswerTooLarge { .. } | Self::RequestTooLarge => Code::RESOURCE_EXHAUSTED,
            Self::DeadlineExceeded => Code::DEADLINE_EXCEEDED,
        };
        Status::new(code, self.to_string())
    }

    /// True when the runtime certainly did nothing for this call, so that it may be sent again: it
    /// refused the stream, or its GOAWAY named an earlier one as the last (RFC 9113 section 8.7).
    pub fn was_not_processed(&self) -> bool {
        match self {
            Self::Http2 { source, .. } => {
                (source.is_go_away() && source.is_remote())
                    || (source.is_reset() && source.reason() == Some(h2::Reason::REFUSED_STREAM))
            }
            Self::Connect { .. } => true,
            _ => false,
        }
    }
}
