//! Whether kubelet may be led past the shim while the shim is down, told to those who lead it, and what they did.
//!
//! That is done by a script of the packages which needs nothing of this program. It looks at the config file, and
//! for a mark beside the socket: the config in force may say what the file no longer says. What it did it notes there,
//! too.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime};

use installer::bypass::{Bypass, LeadsTo};
use policy::config::Settings;
use telemetry::live::BypassLive;
use telemetry::report::{BypassPeriod, BypassStatus, LinkTarget, timestamp};

/// The mark that says: nobody may be led past the shim.
const MARK: &str = "no-bypass";

/// How long the script may take to lead kubelet to a shim that is ready.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often that is looked at.
const TURN_INTERVAL: Duration = Duration::from_millis(50);

/// Leaves the mark beside `socket`, or takes it away, as `settings` says. Only where the packages' units named the
/// socket: elsewhere nobody looks for it.
pub(super) fn mark(socket: &Path, settings: &Settings) {
    let path = socket.with_file_name(MARK);
    let done = if settings.bypass {
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    } else {
        fs::write(&path, "by the config in force\n")
    };
    if let Err(error) = done {
        tracing::warn!(
            "cannot note at {} whether kubelet may be led past the shim while it is down: {error}; the config file alone decides",
            path.display()
        );
    }
}

/// Says in the log where kubelet is led, now that the shim on `socket` is ready, and where it was led before.
pub(super) async fn announce(socket: &Path) {
    let Some(before) = Bypass::beside(socket) else {
        return;
    };
    if let Some(since) = before.since {
        let (led, seconds) = (before.leads_to, since.as_secs());
        tracing::warn!("kubelet has been led {led} for {seconds} seconds");
    }
    let is_back = |now: &Bypass| now.leads_to == LeadsTo::Shim && now.is_noted;
    let turned = tokio::time::timeout(TURN_TIMEOUT, async {
        loop {
            match Bypass::beside(socket) {
                Some(now) if !is_back(&now) => tokio::time::sleep(TURN_INTERVAL).await,
                now => return now.and_then(|now| now.last),
            }
        }
    });
    match turned.await {
        Ok(last) => {
            if let Some(last) = last.filter(|_| before.leads_to != LeadsTo::Shim) {
                let (led, seconds) = (last.leads_to, last.length.as_secs());
                tracing::info!(
                    "kubelet is led to the shim again; it was led {led}, for {seconds} seconds"
                );
            }
        }
        Err(_) => {
            if let Some(now) = Bypass::beside(socket).filter(|now| now.leads_to != LeadsTo::Shim) {
                tracing::warn!(
                    "kubelet is still led {} although this shim is ready; `systemctl restart image-cri-shim-link` turns its link",
                    now.leads_to
                );
            }
        }
    }
}

/// As `status` shows it.
pub(super) fn status(seen: &Bypass, settings: &Settings) -> BypassStatus {
    let now = SystemTime::now();
    BypassStatus {
        allowed: settings.bypass,
        link: link(seen.leads_to),
        seconds: seen.since.map(|since| since.as_secs()),
        periods: seen.periods,
        total_seconds: seen.total.as_secs(),
        last: seen.last.map(|last| BypassPeriod {
            link: link(last.leads_to),
            ended_at: timestamp(now.checked_sub(last.ended_ago).unwrap_or(now)),
            seconds: last.length.as_secs(),
        }),
    }
}

/// As the metrics have it.
pub(super) fn live(seen: &Bypass) -> BypassLive {
    BypassLive {
        in_force: seen.leads_to == LeadsTo::Bypass,
        periods: seen.periods,
        seconds: seen.total.as_secs(),
    }
}

fn link(leads_to: LeadsTo) -> LinkTarget {
    match leads_to {
        LeadsTo::Shim => LinkTarget::Shim,
        LeadsTo::Bypass => LinkTarget::Bypass,
        LeadsTo::Nowhere => LinkTarget::Nowhere,
        LeadsTo::Elsewhere => LinkTarget::Elsewhere,
    }
}
