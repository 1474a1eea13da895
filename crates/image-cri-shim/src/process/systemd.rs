//! What systemd wants to be told: ready, stopping, and that we are alive.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

/// Whether systemd has started us: then it also starts us again, and what we wait for.
pub(crate) fn runs_us() -> bool {
    ["NOTIFY_SOCKET", "INVOCATION_ID"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// We serve.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// We are going.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Tells the watchdog that we are alive, where there is one, for as long as this future runs: after each
/// `probe` that says so. A timer alone would feed it for a daemon that answers nobody.
///
/// `probe` is given the time that it may take.
pub(crate) async fn watchdog(probe: impl AsyncFn(Duration) -> bool) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval((limit / 4).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if probe(limit / 2).await {
            notify(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(
                "this shim does not answer its own call; systemd restarts it if that goes on"
            );
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell, which is no error.
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("cannot notify systemd: {error}");
    }
}
