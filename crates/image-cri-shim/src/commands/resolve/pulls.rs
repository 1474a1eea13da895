//! `resolve --pull`: one image after another through the running shim, as kubelet would.

use std::time::{Duration, Instant};

use telemetry::history::is_about;
use telemetry::report::{Decision, Outcome, Place, micros};

use super::progress::Progress;
use crate::commands::daemon::{Daemon, DaemonError};
use crate::commands::item::{Item, Pull};
use crate::commands::render;

/// How often the shim is asked what it is doing.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);

/// Pulls all that have a valid name, and notes how that ended.
pub(super) async fn pull_all(daemon: &Daemon, items: &mut [Item]) {
    let total = items.len();
    for (at, item) in items.iter_mut().enumerate() {
        let report = &item.explanation;
        item.pull = Some(match &report.untouched {
            Some(why) => Pull {
                ok: false,
                image: None,
                registry: None,
                elapsed_us: 0,
                error: Some(why.clone()),
            },
            None => {
                let count = match total {
                    1 => String::new(),
                    _ => format!("{} of {total}: ", at + 1),
                };
                pull(daemon, &report.image, &count).await
            }
        });
    }
}

async fn pull(daemon: &Daemon, image: &str, count: &str) -> Pull {
    let began = Instant::now();
    let spinner = Progress::spinner();
    spinner.say(&format!("{count}{image}"));
    let mut pulling = std::pin::pin!(daemon.pull(image));
    let ended = loop {
        let look = async {
            tokio::time::sleep(STATUS_INTERVAL).await;
            daemon.status(0).await
        };
        let status = tokio::select! {
            ended = &mut pulling => break ended,
            status = look => status,
        };
        // Only for the eye: the pull itself says how it ends.
        let running = status.map(|status| status.running).unwrap_or_default();
        if let Some(decision) = running.iter().find(|decision| is_about(decision, image)) {
            spinner.say(&format!("{count}{image}: {}", doing(decision, began)));
        }
    };
    let elapsed_us = micros(began.elapsed());
    drop(spinner);
    let error = ended.err().map(|error| match error {
        DaemonError::Failed { why, .. } => why,
        other => other.to_string(),
    });
    let (image, registry) = match &error {
        None => source(daemon, image).await,
        Some(_) => (None, None),
    };
    Pull {
        ok: error.is_none(),
        image,
        registry,
        elapsed_us,
        error,
    }
}

/// `pulling from https://harbor.corp for 12 s`.
fn doing(decision: &Decision, began: Instant) -> String {
    let since = render::duration(Duration::from_secs(began.elapsed().as_secs()));
    match decision.pulls.last() {
        Some(pull) if pull.elapsed_us.is_none() => {
            let failed = decision.pulls.len() - 1;
            let before = match failed {
                0 => String::new(),
                _ => format!(", after {failed} that failed"),
            };
            format!("pulling from {}{before}, {since} so far", pull.registry)
        }
        _ => format!("asking who has it, {since} so far"),
    }
}

/// What the image was pulled as, and from where, by the newest decision about it.
async fn source(daemon: &Daemon, image: &str) -> (Option<String>, Option<String>) {
    let decisions = daemon.history(Some(image)).await.unwrap_or_default();
    let newest = decisions.into_iter().find(|d| d.image == image);
    match newest.map(|decision| decision.outcome) {
        Some(Outcome::Pulled {
            image,
            registry,
            place,
        }) => {
            let registry = match place {
                Place::Origin => "origin".to_owned(),
                Place::Offline | Place::Registry | Place::Redirect => registry,
            };
            (Some(image), Some(registry))
        }
        _ => (None, None),
    }
}
