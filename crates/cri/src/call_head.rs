//! What a request says besides its message.

use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};

use crate::grpc::{GRPC_TIMEOUT, format_timeout, parse_timeout};

/// What a request says besides its message.
#[derive(Clone)]
pub struct CallHead {
    /// `/package.Service/Method`.
    pub path: PathAndQuery,
    /// The client's metadata as it came, without what belongs to its connection.
    pub metadata: HeaderMap,
    /// When the client stops waiting; `None` when it set no deadline. It is the client that enforces it,
    /// by cancelling; what is sent on carries what is left of it.
    pub deadline: Option<Instant>,
}

impl CallHead {
    /// A head from a request's parts. The deadline counts from now.
    pub fn new(path: PathAndQuery, metadata: HeaderMap) -> Self {
        let deadline = metadata
            .get(GRPC_TIMEOUT)
            .and_then(|value| parse_timeout(value.as_bytes()))
            // One too far away for the clock is none.
            .and_then(|timeout| Instant::now().checked_add(timeout));
        Self {
            path,
            metadata,
            deadline,
        }
    }

    /// What is left until the deadline: zero once it has passed, `None` without one.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// The metadata for a call to the runtime now; none once the deadline has passed.
    pub(crate) fn metadata_now(&self) -> Option<HeaderMap> {
        let mut metadata = self.metadata.clone();
        if let Some(left) = self.remaining() {
            if left.is_zero() {
                return None;
            }
            if let Ok(value) = HeaderValue::try_from(format_timeout(left)) {
                metadata.insert(GRPC_TIMEOUT, value);
            }
        }
        Some(metadata)
    }
}
