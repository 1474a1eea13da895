//! How serving ends: what is in flight, and when a call is ended for it.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::grpc::{Code, Status};
use crate::method;

/// How long an answer that has begun may stand still before it is taken for a stream that never ends by
/// itself. The answer to a call with one message comes at once.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is not in sight.
    Serving,
    /// Calls in flight are waited for; connections and calls are still taken.
    Stopping,
    /// Nothing new is taken.
    Closing,
    /// The same, and another process takes what is new: there is time.
    HandedOver,
}

impl Phase {
    /// Whether clients are asked to go.
    pub(crate) fn is_closing(self) -> bool {
        matches!(self, Self::Closing | Self::HandedOver)
    }
}

/// The calls in flight, by method. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    calls: Mutex<Calls>,
    /// The last call of a generation that is waited for has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Calls {
    /// Which of the two new calls belong to.
    generation: usize,
    counts: [BTreeMap<&'static str, usize>; 2],
}

/// One call in flight. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct CallGuard {
    shared: Arc<Shared>,
    method: &'static str,
    generation: usize,
}

impl InFlight {
    /// A call begins; `method` is its [`label`](method::label).
    pub(crate) fn begin(&self, method: &'static str) -> CallGuard {
        let mut calls = self.shared.calls.lock();
        let generation = calls.generation;
        if let Some(counts) = calls.counts.get_mut(generation) {
            *counts.entry(method).or_insert(0) += 1;
        }
        CallGuard {
            shared: Arc::clone(&self.shared),
            method,
            generation,
        }
    }

    /// Ends when all calls that have begun until now are over; those that begin meanwhile don't count.
    /// One wait at a time.
    pub(crate) async fn wait_for_present(&self) {
        let present = {
            let mut calls = self.shared.calls.lock();
            let present = calls.generation;
            calls.generation = 1 - present;
            present
        };
        loop {
            let mut ended = std::pin::pin!(self.shared.ended.notified());
            // From here on nothing is missed.
            ended.as_mut().enable();
            if self.is_over(present) {
                return;
            }
            ended.await;
        }
    }

    fn is_over(&self, generation: usize) -> bool {
        let calls = self.shared.calls.lock();
        calls.counts.get(generation).is_none_or(BTreeMap::is_empty)
    }
}

impl std::fmt::Display for InFlight {
    /// `PullImage 2, Version 1`; empty where there are none.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let calls = self.shared.calls.lock();
        let mut sums: BTreeMap<&str, usize> = BTreeMap::new();
        for (method, count) in calls.counts.iter().flatten() {
            *sums.entry(method).or_insert(0) += count;
        }
        drop(calls);
        for (n, (method, count)) in sums.iter().enumerate() {
            let separator = if n == 0 { "" } else { ", " };
            write!(f, "{separator}{method} {count}")?;
        }
        Ok(())
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let mut calls = self.shared.calls.lock();
        let is_waited_for = calls.generation != self.generation;
        let Some(counts) = calls.counts.get_mut(self.generation) else {
            return;
        };
        if let Some(count) = counts.get_mut(self.method) {
            *count -= 1;
            if *count == 0 {
                counts.remove(self.method);
            }
        }
        if is_waited_for && counts.is_empty() {
            self.shared.ended.notify_waiters();
        }
    }
}

/// When one forwarded call has to end because the server does.
#[derive(Debug)]
pub(crate) struct Ending {
    phase: watch::Receiver<Phase>,
    /// The call never ends by itself.
    is_endless: bool,
    /// Nothing is known of the call's method.
    is_unknown: bool,
}

impl Ending {
    /// For a call that begins now. It counts from the phase that there is now: a stream that a client opens
    /// again while calls are waited for lives until the server closes.
    pub(crate) fn new(mut phase: watch::Receiver<Phase>, method: &'static str) -> Self {
        phase.mark_unchanged();
        Self {
            phase,
            is_endless: method::is_endless(method),
            is_unknown: method == method::OTHER,
        }
    }

    /// Ends when the call is not to be waited for any longer, as long as its answer has not begun.
    pub(crate) async fn before_answer(&mut self) {
        if !self.is_endless {
            return pending().await;
        }
        // An error is the end of the server itself.
        let _ = self.phase.changed().await;
    }

    /// The same for a call whose answer has begun; `moved` counts its bytes.
    pub(crate) async fn in_answer(&mut self, moved: &AtomicU64) {
        let _ = self.phase.changed().await;
        if self.is_endless {
            return;
        }
        loop {
            let before = moved.load(Ordering::Relaxed);
            tokio::time::sleep(STREAM_IDLE_TIMEOUT).await;
            let now = moved.load(Ordering::Relaxed);
            if now == before && (now > 0 || self.is_unknown) {
                return;
            }
        }
    }

    /// What the client of such a call is told.
    pub(crate) fn status() -> Status {
        Status::new(
            Code::UNAVAILABLE,
            "image-cri-shim is stopping or handing over, and ends streams that would not end by themselves",
        )
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn only_the_calls_that_had_begun_are_waited_for() {
        let calls = InFlight::default();
        assert_eq!(calls.to_string(), "");
        assert!(calls.wait_for_present().now_or_never().is_some());
        let pulls = [calls.begin("PullImage"), calls.begin("PullImage")];
        let version = calls.begin("Version");
        assert_eq!(calls.to_string(), "PullImage 2, Version 1");
        let mut waiting = std::pin::pin!(calls.wait_for_present());
        assert!(waiting.as_mut().now_or_never().is_none());
        let later = calls.begin("PullImage");
        drop(version);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(pulls);
        assert!(waiting.as_mut().now_or_never().is_some());
        assert_eq!(calls.to_string(), "PullImage 1");
        // The next wait is for the later one.
        let mut waiting = std::pin::pin!(calls.wait_for_present());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(later);
        assert!(waiting.as_mut().now_or_never().is_some());
    }
}
