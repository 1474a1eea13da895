//! Accepting connections, for as long as the server serves.

use std::future::Future;
use std::io;
use std::time::Duration;

use policy::backoff::Backoff;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::listener::Listener;

/// Pauses after `accept` has failed, so that a node out of file descriptors is not also out of CPU.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(10),
    longest: Duration::from_secs(1),
};

/// Accepts connections for ever; what `serve` makes of each becomes a task in `connections`.
pub(crate) async fn accept_all<C: Future<Output = ()> + Send + 'static>(
    listener: &Listener,
    connections: &mut JoinSet<()>,
    serve: impl Fn(UnixStream) -> C,
) {
    let mut failures: u32 = 0;
    loop {
        tokio::select! {
            // Takes finished connections out of the set, which would grow without end.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(stream) => {
                    if std::mem::take(&mut failures) > 0 {
                        tracing::info!("connections are accepted again");
                    }
                    connections.spawn(serve(stream));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures == 1 {
                        tracing::warn!(%error, "cannot accept connections; trying until it works");
                    }
                    tokio::time::sleep(BACKOFF.pause(failures)).await;
                }
            },
        }
    }
}
