//! From waiting to done.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::pin::Pin;
use std::time::{Duration, Instant};

use cluster::{Failure, SharedLease, Written};
use tokio::sync::watch;

use crate::host::Host;
use crate::progress::{Progress, Waiting};
use crate::record::Record;
use crate::task::Task;
use crate::turn::{Turn, turn};

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Timing {
    /// A holder that has not renewed for so long is silent. It says so itself every quarter of that.
    pub lease: Duration,
    /// A waiting node asks again after a time from this range, so that all nodes don't ask at once.
    pub poll: Range<Duration>,
}

impl Default for Timing {
    /// 60 s; every 10 to 20 s. The Lease of 300 waiting nodes is then read 20 times a second.
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(60),
            poll: Duration::from_secs(10)..Duration::from_secs(20),
        }
    }
}

/// The installer of one node.
pub struct Installer<H> {
    /// The node's name.
    pub node: String,
    /// What it shall have.
    pub task: Task,
    /// The Lease that all nodes share.
    pub lease: SharedLease,
    /// The node.
    pub host: H,
    /// How long things may take.
    pub timing: Timing,
    /// Where it is told how far the node is.
    pub progress: watch::Sender<Progress>,
}

/// A holder is silent when nothing in the Lease has changed for long enough, by this machine's own clock: clocks
/// of nodes differ.
#[derive(Default)]
struct Observed {
    version: Option<String>,
    since: Option<Instant>,
}

impl Observed {
    fn is_silent(&mut self, record: &Record, after: Duration) -> bool {
        let since = match self.since {
            Some(since) if self.version.as_deref() == record.version() => since,
            _ => {
                self.version = record.version().map(str::to_owned);
                *self.since.insert(Instant::now())
            }
        };
        since.elapsed() > after
    }
}

impl<H: Host> Installer<H> {
    /// Brings the node to what is wanted, and then waits for `shutdown`. A shutdown ends every wait at once. It does
    /// not end a change: that is gone on with to its end, and the Lease is given back.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            match self.wait_for_turn(shutdown.as_mut()).await {
                Next::Change => {}
                Next::Nothing => break,
                Next::Stop => return,
            }
            self.report(Progress::Working);
            let outcome = self.change().await;
            if let Err(why) = &outcome {
                tracing::error!("the node could not be changed: {why}");
            }
            if !self.give_back(&outcome, shutdown.as_mut()).await {
                return;
            }
            if outcome.is_ok() {
                break;
            }
            // Failed: the mark keeps this node away, too, until somebody takes it away.
        }
        self.report(Progress::Done);
        shutdown.await;
    }

    /// Waits until the Lease is this node's, or there is nothing to do.
    async fn wait_for_turn(&self, mut shutdown: Pin<&mut impl Future<Output = ()>>) -> Next {
        let is_done = tokio::select! {
            is_done = self.host.is_done() => is_done,
            () = shutdown.as_mut() => return Next::Stop,
        };
        let is_done = is_done.unwrap_or_else(|why| {
            tracing::warn!("cannot find out what the node has: {why}");
            false
        });
        let mut observed = Observed::default();
        loop {
            // Not left in the middle: a Lease that was taken must be known to be.
            match self.look(is_done, &mut observed).await {
                Ok(Some(next)) => return next,
                Ok(None) => {}
                Err(failure) => {
                    // The holder can't renew either, and must not look silent for that.
                    observed = Observed::default();
                    self.report(if is_done {
                        Progress::Done
                    } else {
                        let why = failure.to_string();
                        Progress::Waiting(Waiting::Unknown { why })
                    });
                }
            }
            if !pause(self.poll(), shutdown.as_mut()).await {
                return Next::Stop;
            }
        }
    }

    /// Looks at the Lease once, and takes it where that is allowed.
    async fn look(&self, is_done: bool, observed: &mut Observed) -> Result<Option<Next>, Failure> {
        let mut record = self.read().await?;
        if is_done && record.holder() != Some(&self.node) {
            return Ok(Some(Next::Nothing));
        }
        let is_silent = observed.is_silent(&record, self.timing.lease);
        match turn(&record, &self.node, &self.task, is_silent) {
            Turn::Wait(waiting) => {
                self.report(Progress::Waiting(waiting));
                return Ok(None);
            }
            Turn::Take => {}
            Turn::TakeFrom { node, task } => {
                tracing::warn!("taking the Lease from {node}, which is silent at another task");
                record.note_failure(&task, &node, "it had begun and gave no sign of life");
            }
        }
        record.take(&self.node, &self.task, self.timing.lease);
        Ok(match self.lease.write(record.lease()).await? {
            Written::Done(_) => Some(Next::Change),
            Written::Conflict => None,
        })
    }

    /// Changes the node, and says meanwhile that it is alive.
    async fn change(&self) -> Result<(), String> {
        tracing::info!("{} begins", self.task);
        tokio::select! {
            outcome = self.host.change() => outcome,
            never = self.keep_renewing() => match never {},
        }
    }

    /// Renews until it is dropped. The change goes on whatever comes of it: to break it off would help nobody.
    async fn keep_renewing(&self) -> std::convert::Infallible {
        let mut was_lost = false;
        loop {
            tokio::time::sleep(self.timing.lease / 4).await;
            let renewed = async {
                let mut record = self.read().await?;
                if record.holder() != Some(&self.node) {
                    return Ok(false);
                }
                record.renew();
                self.lease.write(record.lease()).await?;
                Ok::<_, Failure>(true)
            };
            match renewed.await {
                Ok(true) => was_lost = false,
                Ok(false) if !was_lost => {
                    was_lost = true;
                    tracing::warn!("somebody has taken the Lease away; the change goes on");
                }
                Ok(false) => {}
                Err(failure) => tracing::warn!("cannot renew the Lease: {failure}"),
            }
        }
    }

    /// Gives the Lease back, with a mark where the node has failed. Tries until it succeeds, or, with `false`, until
    /// `shutdown`: the Lease then stays this node's, and its next installer goes on with it.
    async fn give_back(
        &self,
        outcome: &Result<(), String>,
        mut shutdown: Pin<&mut impl Future<Output = ()>>,
    ) -> bool {
        loop {
            match self.try_give_back(outcome).await {
                Ok(Written::Done(_)) => return true,
                Ok(Written::Conflict) => {}
                Err(failure) => {
                    tracing::warn!("cannot give the Lease back: {failure}");
                    if !pause(self.poll(), shutdown.as_mut()).await {
                        return false;
                    }
                }
            }
        }
    }

    async fn try_give_back(&self, outcome: &Result<(), String>) -> Result<Written, Failure> {
        let mut record = self.read().await?;
        let is_ours = record.holder() == Some(&self.node);
        if is_ours {
            record.give_back();
        }
        match outcome {
            // Somebody has taken it away, or deleted it.
            Ok(()) if !is_ours => {
                return Ok(Written::Done(Box::new(record.lease().clone())));
            }
            Ok(()) => {}
            Err(why) => record.note_failure(self.task.id(), &self.node, why),
        }
        self.lease.write(record.lease()).await
    }

    async fn read(&self) -> Result<Record, Failure> {
        let found = self.lease.read().await?;
        let (name, namespace) = (self.lease.name(), self.lease.namespace());
        Ok(Record::of(found, name, namespace))
    }

    fn poll(&self) -> Duration {
        let Range { start, end } = self.timing.poll;
        // Each is seeded anew.
        let bits = RandomState::new().hash_one(());
        let share = f64::from(u32::try_from(bits >> 32).unwrap_or(0)) / f64::from(u32::MAX);
        start + end.saturating_sub(start).mul_f64(share)
    }

    /// Tells how far the node is; a line in the log for each change.
    fn report(&self, progress: Progress) {
        let is_new = self.progress.send_if_modified(|before| {
            let is_new = *before != progress;
            *before = progress.clone();
            is_new
        });
        if is_new {
            tracing::info!("{}: {progress}", self.task);
        }
    }
}

/// What follows a wait.
enum Next {
    /// The Lease is this node's.
    Change,
    /// There is nothing to do.
    Nothing,
    /// The process shall end.
    Stop,
}

/// `false` when `shutdown` came first.
async fn pause(length: Duration, shutdown: Pin<&mut impl Future<Output = ()>>) -> bool {
    tokio::select! {
        () = tokio::time::sleep(length) => true,
        () = shutdown => false,
    }
}
