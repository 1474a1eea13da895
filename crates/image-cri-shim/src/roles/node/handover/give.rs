//! Handing this shim's socket over to a new process, which runs the program that stands in the place of ours by now.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use cri::alias::Aliases;
use cri::listener::HandedOver;
use cri::upstream::Upstream;
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::self_probe;
use super::metrics_socket::MetricsSocket;
use crate::process::handover::messages::{FromNew, FromOld, Offer};
use crate::process::handover::successor::{CommandLine, Successor};
use crate::process::{systemd, unit};
use crate::requests::{HandOverAnswer, HandOverRequest};

/// How long the new process may take until it can serve. It starts in milliseconds; systemd ends a reload after 20 s.
const READY_TIMEOUT: Duration = Duration::from_secs(8);
/// How long it may take to answer a call, and then to accept connections.
const SERVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long systemd may take to hear which process is the main one.
const SYSTEMD_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the last things that calls have taught may take to be told.
const LATE_TIMEOUT: Duration = Duration::from_secs(1);

/// What this shim has to hand over. Cheap to clone; clones share everything.
#[derive(Clone)]
pub(crate) struct HandOver {
    shared: Arc<Shared>,
}

/// What a [`HandOver`] is made of.
pub(crate) struct Parts {
    /// How the new process is started.
    pub(crate) command: CommandLine,
    /// Where it is looked after.
    pub(crate) background: Handle,
    /// The runtime's socket.
    pub(crate) runtime: PathBuf,
    pub(crate) aliases: Aliases,
    /// Where the aliases are kept.
    pub(crate) state_dir: PathBuf,
    pub(crate) metrics: MetricsSocket,
    /// What the files of the unit were when systemd started the first of us.
    pub(crate) unit: Option<unit::Files>,
}

struct Shared {
    parts: Parts,
    socket: Mutex<Option<HandedOver>>,
    /// One hand-over at a time; the process that has taken over, once one has.
    turn: tokio::sync::Mutex<Option<u32>>,
    /// What only one of the processes may do.
    alone: Mutex<Vec<AbortHandle>>,
    /// Ends serving.
    leave: Mutex<Option<oneshot::Sender<()>>>,
    /// This process ends.
    stopping: CancellationToken,
    /// The metrics' listener is the other process's.
    gone: CancellationToken,
    /// Tells the new process what calls learn that end late.
    late: Mutex<Option<JoinHandle<()>>>,
}

/// How far a hand-over has come, for whoever undoes it.
#[derive(Default)]
struct Progress {
    /// systemd looks after the new process.
    told_systemd: bool,
    /// The aliases' file was given up; what is learnt meanwhile.
    late: Option<UnboundedReceiver<cri::alias::Learned>>,
}

impl HandOver {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            shared: Arc::new(Shared {
                parts,
                socket: Mutex::default(),
                turn: tokio::sync::Mutex::default(),
                alone: Mutex::default(),
                leave: Mutex::default(),
                stopping: CancellationToken::new(),
                gone: CancellationToken::new(),
                late: Mutex::default(),
            }),
        }
    }

    /// The socket to hand over, now that this process serves it. What is given back ends when another process does.
    pub(crate) fn serves(&self, socket: HandedOver) -> oneshot::Receiver<()> {
        let (leave, left) = oneshot::channel();
        *self.shared.socket.lock() = Some(socket);
        *self.shared.leave.lock() = Some(leave);
        left
    }

    /// The listener of `metricsAddress`.
    pub(crate) fn metrics(&self) -> &MetricsSocket {
        &self.shared.parts.metrics
    }

    /// Whether another process has taken over.
    pub(crate) fn is_done(&self) -> bool {
        self.shared.gone.is_cancelled()
    }

    /// Notes a task that only one of two processes may do.
    pub(crate) fn alone(&self, task: AbortHandle) {
        self.shared.alone.lock().push(task);
    }

    /// Ends when the listener of `metricsAddress` is another process's.
    pub(crate) async fn gone(&self) {
        self.shared.gone.cancelled().await;
    }

    /// This process ends: nothing is handed over any more.
    pub(crate) fn stop(&self) {
        self.shared.stopping.cancel();
    }

    /// Files of the unit that have changed since systemd started the first of us, for people.
    pub(crate) async fn restart_needed(&self) -> Vec<String> {
        let Some(before) = self.shared.parts.unit.clone() else {
            return Vec::new();
        };
        let background = &self.shared.parts.background;
        let looked = background.spawn_blocking(move || unit::changed(&before));
        let changed = looked.await.unwrap_or_default().into_iter();
        changed.map(|path| path.display().to_string()).collect()
    }

    /// After the last call: tells the new process what is left to be told.
    pub(crate) async fn finish(&self) {
        let late = self.shared.late.lock().take();
        if let Some(late) = late {
            self.shared.parts.aliases.forget_successor();
            // The process ends, whatever becomes of it.
            let _ = timeout(LATE_TIMEOUT, late).await;
        }
    }

    /// Starts the program that stands in the place of ours, and lets it take over.
    ///
    /// Whoever asked may go away: it is done, or undone, to the end.
    ///
    /// # Errors
    /// Why this process serves on; for people.
    pub(crate) async fn hand_over(
        &self,
        request: HandOverRequest,
    ) -> Result<HandOverAnswer, String> {
        let this = self.clone();
        let done = self
            .shared
            .parts
            .background
            .spawn(async move { this.try_hand_over(&request).await });
        let own = std::process::id();
        match done.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                tracing::warn!("hand-over failed, and this process serves on: {error:#}");
                Err(format!(
                    "{error:#}. The shim that runs (process {own}) serves on"
                ))
            }
            Err(error) => Err(format!("{error}. The shim that runs is process {own}")),
        }
    }

    async fn try_hand_over(&self, request: &HandOverRequest) -> anyhow::Result<HandOverAnswer> {
        let shared = &*self.shared;
        let own = std::process::id();
        if let Some(main) = request.main_pid.filter(|main| *main != own) {
            bail!(
                "systemd looks after process {main}, and this is process {own}, which does not belong to that service"
            );
        }
        let Ok(mut turn) = shared.turn.try_lock() else {
            bail!("a hand-over is under way already");
        };
        if let Some(pid) = *turn {
            bail!("process {pid} has taken over already; ask once more");
        }
        let program = shared.parts.command.program().display();
        tracing::info!("handing over to {program}");
        let started = Successor::start(&shared.parts.command).await;
        let mut successor = started.with_context(|| format!("cannot start {program}"))?;
        let pid = successor.pid();
        let mut progress = Progress::default();
        let outcome = tokio::select! {
            outcome = self.lead(&mut successor, &mut progress) => outcome,
            () = shared.stopping.cancelled() => Err(anyhow!("this process has been told to stop")),
        };
        match outcome {
            Ok(version) => {
                *turn = Some(pid);
                self.let_go(successor, progress);
                Ok(HandOverAnswer {
                    pid,
                    version,
                    from: own,
                })
            }
            Err(error) => {
                successor.kill().await;
                self.undo(progress).await;
                Err(error.context(format!("process {pid} of {program} has not taken over")))
            }
        }
    }

    /// Leads the new process to where it serves beside us. Gives its version.
    async fn lead(
        &self,
        successor: &mut Successor,
        progress: &mut Progress,
    ) -> anyhow::Result<String> {
        let shared = &*self.shared;
        let probe = match self.offer(successor) {
            Ok(probe) => probe,
            Err(error) => return Err(successor.why(error).await),
        };
        let ready = timeout(READY_TIMEOUT, successor.hear()).await;
        let version = match ready {
            Ok(Ok(FromNew::Ready { version })) => version,
            Ok(Ok(FromNew::Serving | FromNew::Failed { .. })) => {
                bail!("it says what makes no sense")
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => bail!("it was not ready within {READY_TIMEOUT:?}"),
        };
        let probe = Upstream::on(probe).await?;
        if !self_probe::answers(&probe, &shared.parts.runtime, SERVE_TIMEOUT).await {
            bail!("it is ready, but does not answer a call within {SERVE_TIMEOUT:?}");
        }
        successor.release().await?;
        progress.told_systemd = true;
        tell_systemd(successor.pid()).await?;
        let aliases = shared.parts.aliases.clone();
        progress.late = Some(blocking(move || aliases.give_up()).await?);
        successor.tell(&FromOld::Take, &[])?;
        match timeout(SERVE_TIMEOUT, successor.hear()).await {
            Ok(Ok(FromNew::Serving)) => Ok(version),
            Ok(Ok(_)) => bail!("it says what makes no sense"),
            Ok(Err(error)) => Err(error),
            Err(_) => bail!("it was ready, but did not begin to serve within {SERVE_TIMEOUT:?}"),
        }
    }

    /// Tells the new process what there is to take over; gives our end of the connection that it serves first.
    fn offer(&self, successor: &Successor) -> anyhow::Result<UnixStream> {
        let shared = &*self.shared;
        let (probe, first) =
            std::os::unix::net::UnixStream::pair().context("cannot make a connection")?;
        probe.set_nonblocking(true)?;
        let metrics = shared.parts.metrics.copy();
        let socket = shared.socket.lock();
        let Some(socket) = &*socket else {
            bail!("this process does not serve yet");
        };
        let offer = Offer {
            socket: socket.path.clone(),
            identity: socket.identity,
            metrics: metrics.as_ref().map(|(address, _)| *address),
            unit: shared.parts.unit.clone(),
        };
        let mut fds = vec![socket.socket.as_fd(), first.as_fd()];
        fds.extend(metrics.as_ref().map(|(_, listener)| listener.as_fd()));
        successor.tell(&FromOld::Offer(offer), &fds)?;
        Ok(UnixStream::from_std(probe)?)
    }

    /// The new process serves: leaves it what only one of us may have.
    fn let_go(&self, mut successor: Successor, progress: Progress) {
        let shared = &*self.shared;
        successor.keep();
        for task in shared.alone.lock().drain(..) {
            task.abort();
        }
        shared.gone.cancel();
        shared.parts.metrics.clear();
        *shared.socket.lock() = None;
        if let Some(leave) = shared.leave.lock().take() {
            // Fails where this process is about to stop anyway.
            let _ = leave.send(());
        }
        let pid = successor.pid();
        tracing::info!("process {pid} has taken over; this one ends when its calls have ended");
        // Where it is gone by now, systemd knows.
        let _ = successor.tell(&FromOld::Yours, &[]);
        let Some(mut late) = progress.late else {
            return;
        };
        let telling = tokio::spawn(async move {
            while let Some(learned) = late.recv().await {
                let message = FromOld::Learned {
                    name: learned.name,
                    image: learned.image,
                };
                if let Err(error) = successor.tell(&message, &[]) {
                    tracing::debug!("what a late pull was pulled as is forgotten: {error:#}");
                }
            }
        });
        *shared.late.lock() = Some(telling);
    }

    /// The new process is dead: this one has everything again.
    async fn undo(&self, progress: Progress) {
        let parts = &self.shared.parts;
        if progress.told_systemd
            && let Err(error) = tell_systemd(std::process::id()).await
        {
            tracing::warn!("{error:#}");
        }
        if progress.late.is_some() {
            let (aliases, dir) = (parts.aliases.clone(), parts.state_dir.clone());
            if let Ok(Err((path, error))) = blocking(move || aliases.take_back(&dir)).await {
                tracing::warn!(
                    "cannot use {}: {error}; what images were pulled as is forgotten at the next restart",
                    path.display()
                );
            }
        }
    }
}

async fn tell_systemd(pid: u32) -> anyhow::Result<()> {
    blocking(move || systemd::main_pid(pid, SYSTEMD_TIMEOUT)).await?
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    Ok(tokio::task::spawn_blocking(work).await?)
}
