//! What the processes of a hand-over say to each other.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::process::unit::Files;

/// The old process to the new one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromOld {
    /// What the new one is to take over. With descriptors: the listening socket, a connection to be served at once, and
    /// the listener of `metrics`, where it has an address.
    Offer(Offer),
    /// Accept connections, and say [`FromNew::Serving`] when you do. The aliases' file is yours.
    Take,
    /// Nothing is shared any more: the config file and `metricsAddress` are yours.
    Yours,
    /// A call that ended late has taught this.
    Learned {
        /// The name.
        name: String,
        /// What it was pulled as.
        image: Option<String>,
    },
}

/// What the new process is to take over.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Offer {
    /// The path of the listening socket.
    pub(crate) socket: PathBuf,
    /// Device and inode of its file.
    pub(crate) identity: (u64, u64),
    /// `metricsAddress`, as the config of the old one had it; none where nothing listens.
    pub(crate) metrics: Option<SocketAddr>,
    /// What the files of the unit were when systemd started the first of us: a digest by path.
    #[serde(default)]
    pub(crate) unit: Option<Files>,
}

/// The new process to the old one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromNew {
    /// It can serve.
    Ready {
        /// Its version.
        version: String,
    },
    /// It can't, and ends.
    Failed {
        /// Why.
        why: String,
    },
    /// It accepts connections.
    Serving,
}

/// The old process to the starter.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToStarter {
    /// Start the new process. With its end of the channel.
    Start,
    /// End, and leave it alive.
    Release,
}

/// The starter to the old process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromStarter {
    /// The new process runs.
    Started {
        /// Its process ID.
        pid: u32,
    },
    /// It could not be started.
    NotStarted {
        /// Why.
        why: String,
    },
    /// It has ended.
    Ended {
        /// How.
        status: String,
    },
}
