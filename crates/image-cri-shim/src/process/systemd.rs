//! What systemd wants to be told: ready, stopping, and that we are alive.

use std::time::Duration;

use sd_notify::NotifyState;

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

/// Tells the watchdog that we are alive, where there is one, for as long as this future runs. On
/// the proxy's own runtime, so that a proxy that is stuck is noticed.
pub(crate) async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

fn notify(state: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell, which is no error.
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("cannot notify systemd: {error}");
    }
}
