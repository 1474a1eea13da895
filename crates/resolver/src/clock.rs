//! The time. It is tokio's, so that a clock that a test or a simulation has stopped is stopped for everybody.

use std::time::Instant;

/// Now.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
