//! An answer whose body is still to come.

use http::HeaderMap;

use crate::http::transport::Received;

/// A 200 or 206, and what its headers say.
pub(super) struct Opened {
    pub(super) received: Received,
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
}
