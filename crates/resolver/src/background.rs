//! The runtime that registries are asked on, and what happens when it is stuck.
//!
//! A caller waits on a runtime of its own, with a timer of that runtime. So a background runtime that
//! does not run any more costs a caller some seconds once, and the next callers nothing.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

/// Added to the time that a resolution may take, for a machine that is busy.
const EXTRA_TIMEOUT: Duration = Duration::from_secs(2);
/// A resolution takes one `probeTimeout` at most where the background runtime runs.
const PROBE_TIMEOUTS: u32 = 3;

/// The runtime that registries are asked on.
#[derive(Clone, Debug)]
pub(crate) struct Background {
    handle: Handle,
    is_stuck: Arc<AtomicBool>,
}

impl Background {
    pub(crate) fn new(handle: Handle) -> Self {
        Self {
            handle,
            is_stuck: Arc::default(),
        }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What `asking` gives, which waits for something on the background runtime. None where that
    /// runtime is stuck: then `asking` is given up after a few `probe_timeout`s, or at once where
    /// another caller has waited in vain a moment ago.
    pub(crate) async fn bounded<T>(
        &self,
        probe_timeout: Duration,
        asking: impl Future<Output = T>,
    ) -> Option<T> {
        if self.is_stuck.load(Ordering::Relaxed) {
            return None;
        }
        let longest = probe_timeout
            .saturating_mul(PROBE_TIMEOUTS)
            .saturating_add(EXTRA_TIMEOUT);
        match tokio::time::timeout(longest, asking).await {
            Ok(given) => Some(given),
            Err(_late) => {
                self.note_stuck(longest);
                None
            }
        }
    }

    /// Nobody waits any more until the runtime shows that it runs.
    fn note_stuck(&self, waited: Duration) {
        if self.is_stuck.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::error!(
            "registries can't be asked: nothing has run in the background for {waited:?}; images are \
             pulled from where their names point until it does"
        );
        let is_stuck = Arc::clone(&self.is_stuck);
        self.handle.spawn(async move {
            is_stuck.store(false, Ordering::Relaxed);
            tracing::warn!("registries are asked again: the background runs");
        });
    }
}
