//! The old process, as the new one sees it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, bail};

use super::channel::{AsyncChannel, Channel};
use super::messages::{FromNew, FromOld, Offer};
use super::{PROTOCOL, VARIABLE};

/// How long the old process may take to say what there is to take over.
const OFFER_TIMEOUT: Duration = Duration::from_secs(5);

/// What this process is to take over.
pub(crate) struct Inheritance {
    /// What it is.
    pub(crate) offer: Offer,
    /// The listening socket.
    pub(crate) socket: OwnedFd,
    /// A connection to be served at once.
    pub(crate) first: OwnedFd,
    /// The listener of `metricsAddress`, where there is one.
    pub(crate) metrics: Option<OwnedFd>,
}

/// The old process. Cheap to hold until the end: it is how it hears why this one fails.
pub(crate) struct Predecessor {
    control: Channel,
}

impl Predecessor {
    /// The process that has started this one to take over from it; none where somebody else has.
    pub(crate) fn from_environment() -> Option<(Self, String)> {
        let protocol = std::env::var(VARIABLE).ok()?;
        // A variable alone may come from anywhere.
        let control = Channel::from_stdin().ok()?;
        Some((Self { control }, protocol))
    }

    /// Waits for what there is to take over.
    ///
    /// # Errors
    /// The old process speaks another language, or says nothing.
    pub(crate) fn offer(&self, protocol: &str) -> anyhow::Result<Inheritance> {
        if protocol != PROTOCOL {
            bail!(
                "this image-cri-shim {} can't take over from the running one (it hands over by protocol {protocol}, and this one takes over by {PROTOCOL}); restart the service",
                env!("CARGO_PKG_VERSION")
            );
        }
        let offer = self.control.receive::<FromOld>(OFFER_TIMEOUT);
        let offer = offer.context("the running image-cri-shim does not say what to take over")?;
        let Some((FromOld::Offer(offer), fds)) = offer else {
            bail!("the running image-cri-shim says nothing of what to take over");
        };
        let mut fds = fds.into_iter();
        let (Some(socket), Some(first)) = (fds.next(), fds.next()) else {
            bail!("the running image-cri-shim hands no socket over");
        };
        Ok(Inheritance {
            offer,
            socket,
            first,
            metrics: fds.next(),
        })
    }

    /// For a task. To be called on the runtime that it is used on.
    pub(crate) fn talk(&self) -> anyhow::Result<AsyncChannel<FromNew, FromOld>> {
        let copy = Channel::from_fd(self.control.as_fd().try_clone_to_owned()?);
        Ok(copy.into_async()?)
    }

    /// Tells it that this process can't take over.
    pub(crate) fn failed(&self, error: &anyhow::Error) {
        let why = format!("{error:#}");
        // It may be gone.
        let _ = self.control.send(&FromNew::Failed { why }, &[]);
    }
}
