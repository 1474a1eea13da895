//! How long what is known about registries is remembered; it follows reloads of the config.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One time that all parts of a client share.
#[derive(Clone, Debug)]
pub(crate) struct Ttl(Arc<AtomicU64>);

impl Ttl {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self(Arc::new(AtomicU64::new(nanos(ttl))))
    }

    pub(crate) fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, ttl: Duration) {
        self.0.store(nanos(ttl), Ordering::Relaxed);
    }
}

/// More than 584 years are as good as for ever.
fn nanos(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX)
}
