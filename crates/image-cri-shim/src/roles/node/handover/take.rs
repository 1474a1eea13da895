//! Taking over from the process that has started this one.

use std::path::PathBuf;

use cri::alias::{Aliases, Learned};
use cri::listener::{HandedOver, Listener};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::metrics_socket::MetricsSocket;
use crate::process::handover::channel::AsyncChannel;
use crate::process::handover::messages::{FromNew, FromOld};
use crate::process::handover::predecessor::{Inheritance, Predecessor};
use crate::process::unit;

/// The old process, and what it leaves.
pub(crate) struct TakeOver<'a> {
    pub(crate) predecessor: &'a Predecessor,
    pub(crate) inheritance: Inheritance,
}

/// What became of an [`Inheritance`], for a node.
pub(crate) struct Inherited {
    pub(crate) listener: Listener,
    /// The old process, to be [followed](Turnover::follow).
    pub(crate) turnover: Turnover,
}

/// The old process's side of the talk, up to its end.
pub(crate) struct Turnover {
    control: AsyncChannel<FromNew, FromOld>,
    open: watch::Sender<bool>,
}

/// What the old process hands over beside its socket; to be had before the first config is applied.
pub(crate) struct Kept {
    pub(crate) metrics: MetricsSocket,
    pub(crate) unit: Option<unit::Files>,
}

impl TakeOver<'_> {
    /// The path of the socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.inheritance.offer.socket.clone()
    }

    /// Listens on the socket, in front of `runtime`. To be called on the runtime that serves.
    pub(crate) fn inherit(self, runtime: PathBuf) -> anyhow::Result<(Inherited, Kept)> {
        let Inheritance {
            offer,
            socket,
            first,
            metrics,
        } = self.inheritance;
        let first = std::os::unix::net::UnixStream::from(first);
        first.set_nonblocking(true)?;
        let (open, opened) = watch::channel(false);
        let from = HandedOver {
            socket,
            path: offer.socket,
            identity: offer.identity,
        };
        let first = vec![UnixStream::from_std(first)?];
        let listener = Listener::take_over(from, runtime, first, opened)?;
        let kept = Kept {
            metrics: MetricsSocket::inherited(offer.metrics.zip(metrics)),
            unit: offer.unit,
        };
        let turnover = Turnover {
            control: self.predecessor.talk()?,
            open,
        };
        Ok((Inherited { listener, turnover }, kept))
    }
}

impl Turnover {
    /// Says that this process is ready, and does what the old one wants until that one is gone. `serving` is called when
    /// this process accepts connections, and `alone` hears when the other one no longer does. Where the old one goes
    /// without a word, this process takes its place.
    pub(crate) async fn follow(
        self,
        aliases: Aliases,
        open_aliases: impl FnOnce(&Aliases) + Send + 'static,
        background: Handle,
        serving: impl FnOnce(),
        alone: oneshot::Sender<()>,
    ) {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        self.say(&FromNew::Ready { version });
        let mut alone = Some(alone);
        let mut begin = Some((open_aliases, serving));
        loop {
            let heard = match self.control.receive().await {
                Ok(heard) => heard.map(|(message, _)| message),
                Err(error) => {
                    tracing::warn!("cannot understand the shim before this one: {error}");
                    None
                }
            };
            let is_end = heard.is_none();
            let (takes, is_alone) = match heard {
                None | Some(FromOld::Yours) => (true, true),
                Some(FromOld::Take) => (true, false),
                Some(FromOld::Offer(_)) => (false, false),
                Some(FromOld::Learned { name, image }) => {
                    learn(&aliases, Learned { name, image }, &background);
                    (false, false)
                }
            };
            if takes && let Some((open_aliases, serving)) = begin.take() {
                let opened = aliases.clone();
                // Only a panic in there fails, which says so itself.
                let _ = background
                    .spawn_blocking(move || open_aliases(&opened))
                    .await;
                self.open.send_replace(true);
                serving();
                self.say(&FromNew::Serving);
            }
            if is_alone && let Some(alone) = alone.take() {
                // Fails where this process stops already.
                let _ = alone.send(());
            }
            if is_end {
                return;
            }
        }
    }

    fn say(&self, message: &FromNew) {
        // The old process is gone where this fails, which is heard next.
        if let Err(error) = self.control.send(message, &[]) {
            tracing::debug!("the shim before this one is gone: {error}");
        }
    }
}

/// Notes what a call has learnt that ended late in the old process.
fn learn(aliases: &Aliases, learned: Learned, background: &Handle) {
    if aliases.learn(&learned) {
        let aliases = aliases.clone();
        background.spawn_blocking(move || {
            // Tried again with the next one, and said by whoever saves that.
            let _ = aliases.save();
        });
    }
}
