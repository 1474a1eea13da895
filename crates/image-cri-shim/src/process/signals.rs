//! Signals: when to stop, and what to do anew.

use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::logging::LogLevel;

/// Ends at the first SIGTERM or SIGINT.
///
/// # Errors
/// The process can't be told of signals.
pub(crate) fn shutdown() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// SIGHUP re-reads the config and calls `on_hangup`; SIGUSR1 switches debug lines over.
pub(crate) fn follow(
    wake: Arc<Notify>,
    level: LogLevel,
    on_hangup: impl Fn() + Send + 'static,
) -> anyhow::Result<impl Future<Output = ()>> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let mut user = signal(SignalKind::user_defined1()).context("cannot listen for SIGUSR1")?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = hangup.recv() => {
                    on_hangup();
                    wake.notify_one();
                    tracing::info!("SIGHUP: every registry is asked anew, and the config read again");
                }
                _ = user.recv() => {
                    let now = if level.toggle() { "on" } else { "off" };
                    tracing::info!("debug lines are {now}");
                }
            }
        }
    })
}
