//! Accepting connections, for as long as the server serves.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::listener::Listener;
use crate::server::Service;

/// First and longest pause after `accept` failed, so that a node out of file descriptors is not
/// also out of CPU.
const RETRY_INTERVAL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Accepts connections for ever; each becomes a task in `connections`.
pub(crate) async fn accept_all(
    listener: &Listener,
    service: &Arc<Service>,
    connections: &mut JoinSet<()>,
) {
    let mut pause = RETRY_INTERVAL.0;
    let mut failing = false;
    loop {
        tokio::select! {
            // Takes finished connections out of the set, which would grow without end.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(stream) => {
                    pause = RETRY_INTERVAL.0;
                    if std::mem::take(&mut failing) {
                        tracing::info!("connections are accepted again");
                    }
                    connections.spawn(Arc::clone(service).connection(stream));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "cannot accept connections; trying until it works");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_INTERVAL.1);
                }
            },
        }
    }
}
