//! Waiting for a condition with a deadline; never a bare sleep as synchronisation.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// How long [`until`] waits before it gives up. It is long because a busy machine is slow, and because only
/// a failing test waits until its end.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Between the first two checks; doubled after each.
const FIRST_INTERVAL: Duration = Duration::from_millis(2);
/// Between checks of what takes long: they would slow down what they wait for on a busy machine.
const LONGEST_INTERVAL: Duration = Duration::from_millis(32);

/// Polls `check` until it gives `Some`, at most [`TIMEOUT`] long.
///
/// # Panics
/// When the deadline passes; `what` is in the message.
pub async fn until<T, F, Fut>(what: &str, check: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    match within(TIMEOUT, check).await {
        Some(value) => value,
        None => panic!("waited {TIMEOUT:?} in vain for: {what}"),
    }
}

/// Polls `check` until it gives `Some`, or gives `None` after `timeout`.
pub async fn within<T, F, Fut>(timeout: Duration, mut check: F) -> Option<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + timeout;
    let mut pause = FIRST_INTERVAL;
    loop {
        if let Some(value) = check().await {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_INTERVAL);
    }
}
