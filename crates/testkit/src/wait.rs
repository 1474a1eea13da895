//! Waiting for a condition with a deadline; never a bare sleep as synchronisation.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// How long [`until`] waits before it gives up: generous, because only a failing test waits it out.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls `check` until it gives `Some`, at most [`PATIENCE`] long.
///
/// # Panics
/// When the deadline passes; `what` is in the message.
pub async fn until<T, F, Fut>(what: &str, check: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    match within(PATIENCE, check).await {
        Some(value) => value,
        None => panic!("waited {PATIENCE:?} in vain for: {what}"),
    }
}

/// Polls `check` until it gives `Some`, or gives `None` when `patience` is over.
pub async fn within<T, F, Fut>(patience: Duration, mut check: F) -> Option<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = check().await {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
