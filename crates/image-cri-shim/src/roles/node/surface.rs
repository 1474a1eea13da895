//! Metrics, health and the page at `metricsAddress`.

use std::net::SocketAddr;
use std::sync::Arc;

use ::inspection::Inspected;
use futures_util::future::BoxFuture;
use telemetry::live::{Live, NodeLive};
use telemetry::report::{Decision, Status};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::bypass;
use super::inspection::{DECISIONS, Inspection};
use crate::process::usage;

/// Answers at the address that the config names, and at another one as soon as it names another.
pub(super) async fn follow(
    mut address: watch::Receiver<Option<SocketAddr>>,
    inspection: Inspection,
) {
    loop {
        let now = *address.borrow_and_update();
        let serving = async {
            match now {
                Some(address) => serve(address, inspection.clone()).await,
                None => {
                    inspection.hand_over().metrics().clear();
                    inspection.not_listening();
                }
            }
            // Until there is another address.
            std::future::pending::<()>().await;
        };
        let changed = async {
            while address.changed().await.is_ok() {
                if *address.borrow() != now {
                    return;
                }
            }
            // Nobody follows the config any more, so this address stays.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = serving => {}
            () = changed => {}
        }
    }
}

/// Listens on `address` and answers. An address that can't be had is a warning: the shim does without.
async fn serve(address: SocketAddr, inspection: Inspection) {
    let handed_on = inspection.hand_over().metrics().clone();
    let bound = match handed_on.take(address) {
        Some(listener) => Ok(listener),
        None => TcpListener::bind(address).await,
    };
    let listener = match bound {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(
                "cannot listen on metricsAddress {address}: {error}; there are no metrics and no page (`metricsAddress` names another address, `off` none)"
            );
            inspection.not_listening();
            return;
        }
    };
    handed_on.keep(address, &listener);
    // Port 0 is whichever is free.
    let bound = listener.local_addr().unwrap_or(address);
    tracing::info!("metrics and the page are on http://{bound}/");
    inspection.listening_on(bound.to_string());
    let hand_over = inspection.hand_over().clone();
    ::inspection::serve(listener, Arc::new(inspection), hand_over.gone()).await;
}

impl Inspected for Inspection {
    fn status(&self) -> BoxFuture<'_, Status> {
        Box::pin(Inspection::status(self, DECISIONS))
    }

    fn history(&self, image: Option<&str>) -> Vec<Decision> {
        Inspection::history(self, image)
    }

    fn metrics(&self) -> BoxFuture<'_, String> {
        Box::pin(async move {
            let node = NodeLive {
                circuits_open: self.circuits_open(),
                caches: self.caches(),
                runtime_reachable: self.runtime().await.reachable,
                pulls_running: self.running(),
                bypass: self.bypass().as_ref().map(bypass::live).unwrap_or_default(),
            };
            self.encode(Live {
                node: Some(node),
                certificate_ends: None,
                process: usage::live(self.started()),
            })
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let runtime = self.runtime().await;
            if runtime.reachable {
                Ok(())
            } else {
                Err(runtime.detail)
            }
        })
    }
}
