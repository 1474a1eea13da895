//! A client that never stops calling, to see what it notices of what is done to a node meanwhile.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::cri_client::CriClient;

/// How long no call may wait.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Between a refused call and the next: less than the second that kubelet's gRPC waits.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
const CALL_INTERVAL: Duration = Duration::from_millis(20);

/// Calls that go on in the background.
pub struct Calls {
    stop: Arc<AtomicBool>,
    task: JoinHandle<CallStats>,
}

/// What came of them.
#[derive(Debug, Default)]
pub struct CallStats {
    /// How many were made.
    pub calls: u32,
    /// How many failed.
    pub refused: u32,
    /// How long one took at most.
    pub longest_wait: Duration,
    /// Refused calls one after another, at most.
    pub refused_in_a_row: u32,
    /// What the last refused call said.
    pub last: String,
}

impl Calls {
    /// Starts calling by a socket, each time on a new connection, until [`Calls::end`].
    #[must_use]
    pub fn on(socket: impl Into<PathBuf>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(calls(socket.into(), Arc::clone(&stop)));
        Self { stop, task }
    }

    /// Ends them and gives what came of them, without judging it.
    ///
    /// # Panics
    /// When the task that calls did.
    pub async fn seen(self) -> CallStats {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }

    /// Ends them; none waited long, and none was refused twice in a row.
    ///
    /// # Panics
    /// When one did, or was.
    pub async fn end(self) -> CallStats {
        let seen = self.seen().await;
        assert!(seen.calls > 0, "{seen:?}");
        assert!(seen.longest_wait < CALL_TIMEOUT, "{seen:?}");
        assert!(seen.refused_in_a_row <= 1, "{seen:?}");
        seen
    }
}

async fn calls(socket: PathBuf, stop: Arc<AtomicBool>) -> CallStats {
    let mut seen = CallStats::default();
    let mut in_a_row = 0;
    // One call at least: on a busy machine the end may be asked for before the first.
    while seen.calls == 0 || !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        let client = CriClient::new(&socket);
        let called = tokio::time::timeout(2 * CALL_TIMEOUT, client.version()).await;
        seen.calls += 1;
        seen.longest_wait = seen.longest_wait.max(started.elapsed());
        let pause = match called {
            Ok(Ok(_)) => {
                in_a_row = 0;
                CALL_INTERVAL
            }
            refused => {
                in_a_row += 1;
                seen.refused += 1;
                seen.last = format!("{refused:?}");
                seen.refused_in_a_row = seen.refused_in_a_row.max(in_a_row);
                RETRY_INTERVAL
            }
        };
        tokio::time::sleep(pause).await;
    }
    seen
}
