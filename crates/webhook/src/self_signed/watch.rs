//! Watching the registration: a `caBundle` that somebody takes away is missed by every API server at once.

use std::sync::Arc;
use std::time::Duration;

use cluster::ClientProvider;
use futures_util::StreamExt;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::{describe, status};

/// Pause after a watch that failed. It is small: reading the registration every now and then goes on
/// meanwhile.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Pause after a watch that was refused, as by a role of an older version.
const REFUSED_INTERVAL: Duration = Duration::from_secs(60);
/// Failures after which another client is asked for.
const FAILURES: usize = 4;

/// Tells of every change of one MutatingWebhookConfiguration.
pub(super) struct Watch {
    pub(super) clients: Arc<ClientProvider>,
    pub(super) name: String,
    pub(super) changed: Arc<Notify>,
}

impl Watch {
    /// Watches until it is dropped.
    pub(super) async fn run(self) {
        loop {
            match self.clients.client().await {
                Ok((client, _)) => self.watch(client).await,
                // The rounds report it.
                Err(_) => sleep(RETRY_INTERVAL).await,
            }
        }
    }

    /// Until the watch has failed too often.
    async fn watch(&self, client: Client) {
        let api = Api::<MutatingWebhookConfiguration>::all(client);
        let only = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut events = watcher(api, only).boxed();
        let mut failures = 0;
        while failures < FAILURES {
            match events.next().await {
                Some(Ok(_)) => {
                    failures = 0;
                    self.changed.notify_one();
                }
                Some(Err(error)) => {
                    failures += 1;
                    let pause = match refusal(&error) {
                        Some(401 | 403) => REFUSED_INTERVAL,
                        _ => RETRY_INTERVAL,
                    };
                    let why = why(&error);
                    tracing::debug!("the watch of the registration failed: {why}");
                    sleep(pause).await;
                }
                None => return,
            }
        }
    }
}

/// The library's own text may quote what a kubeconfig's program has printed.
fn why(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => describe(error),
        watcher::Error::WatchError(refused) => refused.code.to_string(),
        watcher::Error::NoResourceVersion => "the answer has no version".to_owned(),
    }
}

fn refusal(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => {
            status(error)
        }
        watcher::Error::WatchError(refused) => Some(refused.code),
        _ => None,
    }
}
