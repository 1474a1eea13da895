//! What can change while a resolver runs.

use std::time::Duration;

use policy::backoff::Backoff;

/// Doublings of `negativeTTL` for an image that fails again and again at one registry: from 30 seconds
/// to 8 minutes.
const FAILED_TTL_FACTOR: u32 = 16;

/// What can change while a resolver runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverOptions {
    /// Deadline of one probe (`probeTimeout`, default 2 s).
    pub probe_timeout: Duration,
    /// How long a found image is remembered (`imageCacheTTL`, default 30 min).
    pub found_ttl: Duration,
    /// How long an absent image is remembered (`negativeTTL`, default 30 s).
    pub absent_ttl: Duration,
    /// Remembered images (`imageCacheSize`, default 1024); 0 is off.
    pub size: u64,
}

impl ResolverOptions {
    /// How long it is remembered that an image failed at a registry.
    pub(crate) fn failed_ttl(&self) -> Backoff {
        Backoff {
            first: self.absent_ttl,
            longest: self.absent_ttl.saturating_mul(FAILED_TTL_FACTOR),
        }
    }
}
