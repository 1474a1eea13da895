//! The listener of `metricsAddress`, on its way from one process to the next.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpListener;

/// A copy of the listener in use. Cheap to clone; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct MetricsSocket {
    slot: Arc<Mutex<Option<Held>>>,
}

/// The address as the config has it, and the listener.
type Held = (SocketAddr, OwnedFd);

impl MetricsSocket {
    /// The listener that was taken over, for this address in a config.
    pub(crate) fn inherited(listener: Option<Held>) -> Self {
        Self {
            slot: Arc::new(Mutex::new(listener)),
        }
    }

    /// Notes the listener in use.
    pub(crate) fn keep(&self, address: SocketAddr, listener: &TcpListener) {
        *self.slot.lock() = match listener.as_fd().try_clone_to_owned() {
            Ok(copy) => Some((address, copy)),
            // The next process then listens anew.
            Err(_) => None,
        };
    }

    /// Takes the listener where it is of this address; one of another address is closed.
    pub(crate) fn take(&self, address: SocketAddr) -> Option<TcpListener> {
        let (of, copy) = self.slot.lock().take()?;
        if of != address {
            return None;
        }
        let listener = std::net::TcpListener::from(copy);
        listener.set_nonblocking(true).ok()?;
        TcpListener::from_std(listener).ok()
    }

    /// Closes it.
    pub(crate) fn clear(&self) {
        *self.slot.lock() = None;
    }

    /// A copy of the listener in use, with its address.
    pub(crate) fn copy(&self) -> Option<Held> {
        let slot = self.slot.lock();
        let (address, listener) = slot.as_ref()?;
        Some((*address, listener.try_clone().ok()?))
    }
}
