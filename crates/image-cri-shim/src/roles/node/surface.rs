//! Metrics, health and the page at `metricsAddress`.

use std::net::SocketAddr;
use std::sync::Arc;

use ::inspection::Source;
use futures_util::future::BoxFuture;
use telemetry::live::{Live, NodeLive};
use telemetry::report::{Decision, Status};
use tokio::net::TcpListener;

use super::inspection::{DECISIONS, Inspection};
use crate::process::usage;

/// Listens on `address` and answers for as long as the runtime lives. An address that can't be had is a
/// warning: the shim does without.
pub(crate) async fn serve(address: SocketAddr, inspection: Inspection) {
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(
                "cannot listen on metricsAddress {address}: {error}; there are no metrics and no page (`metricsAddress` names another address, `off` none)"
            );
            return;
        }
    };
    // Port 0 is whichever is free.
    let bound = listener.local_addr().unwrap_or(address);
    tracing::info!("metrics and the page are on http://{bound}/");
    inspection.listening_on(bound.to_string());
    ::inspection::serve(listener, Arc::new(inspection)).await;
}

impl Source for Inspection {
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
