//! The node cache of this node, as the shim and the commands ask it: over its socket, and without waiting long.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ::cache::control::{self, Command, Event};
use telemetry::report::{NodeCacheImage, NodeCacheStatus};

/// Names another socket than the default one, for the cache and for whoever asks it.
pub(crate) const SOCKET_VARIABLE: &str = "IMAGE_CRI_SHIM_CACHE_SOCKET";
/// How long a cache that is well may take to answer. What waits for the answer goes on without it.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Where the cache answers commands.
pub(crate) fn socket() -> PathBuf {
    std::env::var_os(SOCKET_VARIABLE).map_or_else(|| control::SOCKET.into(), PathBuf::from)
}

/// How the cache is. None where none answers, or we may not ask.
pub(crate) async fn status() -> Option<NodeCacheStatus> {
    match first(&socket(), Command::Status).await? {
        Event::Status(status) => Some(*status),
        _ => None,
    }
}

/// What the cache has of an image. None where none answers, or we may not ask.
pub(crate) async fn image(name: &str) -> Option<NodeCacheImage> {
    let command = Command::Look {
        name: name.to_owned(),
    };
    match first(&socket(), command).await? {
        Event::Known(image) => Some(*image),
        _ => None,
    }
}

async fn first(socket: &Path, command: Command) -> Option<Event> {
    let asked = async {
        let mut events = control::ask(socket, &command, None).await.ok()??;
        events.recv().await?.ok()
    };
    tokio::time::timeout(ANSWER_TIMEOUT, asked).await.ok()?
}
