//! Bytes of requests and answers: charged as they arrive, bounded in total.
//!
//! Nothing is reserved for what a client only announces. When there is no room for one more byte, it is
//! waited for: a body that comes at once is read and answered within milliseconds. What has held its bytes
//! for longer than a second gives way, the oldest first: who sends slowly, or does not read, cannot fill the
//! memory and keep it full.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::Body;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;

/// Room for a body to begin with.
const FIRST: usize = 4 << 10;
/// How long bytes are held before they have to give way to others.
const GRACE_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that bodies may have in memory at one time, over all connections.
#[derive(Debug)]
pub struct Memory {
    total: usize,
    grace: Duration,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    next: u64,
    /// By age: who came later has the higher number.
    holders: BTreeMap<u64, Holder>,
}

#[derive(Debug)]
struct Holder {
    bytes: usize,
    /// Until then it doesn't give way.
    grace: Instant,
    state: Holding,
}

#[derive(Debug)]
enum Holding {
    /// A body that is arriving, or work that waits for others, until this is cancelled.
    Waiting(CancellationToken),
    /// A body that is worked on, which doesn't take long: it doesn't give way.
    WorkedOn,
    /// An answer that the client has not read yet; it ends with its connection.
    Unread(Arc<Connection>),
    /// It was ended, and its bytes will be free in a moment.
    Ended,
}

impl Holder {
    fn gives_way(&self, now: Instant) -> bool {
        self.grace <= now && matches!(self.state, Holding::Waiting(_) | Holding::Unread(_))
    }

    fn end(&mut self) {
        match std::mem::replace(&mut self.state, Holding::Ended) {
            Holding::Waiting(ended) => ended.cancel(),
            Holding::Unread(connection) => connection.abort(),
            Holding::WorkedOn | Holding::Ended => {}
        }
    }
}

/// There is no room for this body: it is larger than all the memory, or it had to give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many bodies at once")]
pub struct NoRoom;

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BodyError {
    /// It is larger than it may be.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// The client went away, or broke the protocol.
    #[error("the body broke off")]
    Broken,
    /// All the memory is taken.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
}

/// What is to be done about a wish for more.
enum Wish {
    Granted,
    Refused,
    /// Others make room soon: at the latest then it is to be looked at again.
    Wait(Instant),
}

impl Memory {
    /// Room for this many bytes.
    pub fn new(total: usize) -> Arc<Self> {
        Self::with_grace(total, GRACE_TIMEOUT)
    }

    fn with_grace(total: usize, grace: Duration) -> Arc<Self> {
        Arc::new(Self {
            total,
            grace,
            state: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.state.lock().used
    }

    /// A share for one body, empty to begin with.
    pub fn share(self: &Arc<Self>) -> Share {
        let ended = CancellationToken::new();
        let holder = Holder {
            bytes: 0,
            grace: Instant::now() + self.grace,
            state: Holding::Waiting(ended.clone()),
        };
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        state.holders.insert(number, holder);
        Share {
            memory: Arc::clone(self),
            number,
            ended,
        }
    }

    fn wish(&self, number: u64, bytes: usize) -> Wish {
        let now = Instant::now();
        let mut state = self.state.lock();
        let State { used, holders, .. } = &mut *state;
        let missing = (*used + bytes).saturating_sub(self.total);
        let Some(own) = holders.get_mut(&number) else {
            return Wish::Refused;
        };
        if matches!(own.state, Holding::Ended) || bytes > self.total {
            return Wish::Refused;
        }
        if missing == 0 {
            *used += bytes;
            own.bytes += bytes;
            return Wish::Granted;
        }
        let mut soon = 0;
        let mut next = now + self.grace;
        for (other, holder) in holders.iter_mut() {
            if *other == number || holder.bytes == 0 {
                continue;
            }
            if *other < number && soon < missing && holder.gives_way(now) {
                holder.end();
            }
            match holder.state {
                Holding::WorkedOn | Holding::Ended => soon += holder.bytes,
                _ if holder.grace > now => {
                    next = next.min(holder.grace);
                    soon += holder.bytes;
                }
                Holding::Waiting(_) | Holding::Unread(_) => {}
            }
        }
        // Nobody else is to make room: this one is the oldest, and has had its time.
        if soon == 0 {
            return Wish::Refused;
        }
        Wish::Wait(next)
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Holder)) {
        if let Some(holder) = self.state.lock().holders.get_mut(&number)
            && !matches!(holder.state, Holding::Ended)
        {
            change(holder);
        }
    }
}

/// One body's share of a [`Memory`]. Dropping it gives it back.
#[derive(Debug)]
pub struct Share {
    memory: Arc<Memory>,
    number: u64,
    ended: CancellationToken,
}

impl Share {
    /// Takes more, as soon as there is room.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub async fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        loop {
            let freed = self.memory.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            match self.memory.wish(self.number, bytes) {
                Wish::Granted => return Ok(()),
                Wish::Refused => return Err(NoRoom),
                // Running out is no failure: somebody has to give way now.
                Wish::Wait(until) => drop(timeout_at(until, freed).await),
            }
        }
    }

    /// From now on it is worked on, and doesn't give way.
    pub fn keep(&self) {
        let keep = |holder: &mut Holder| holder.state = Holding::WorkedOn;
        self.memory.change(self.number, keep);
    }

    /// Gives back what it holds above this many bytes.
    pub fn shrink_to(&mut self, bytes: usize) {
        let mut state = self.memory.state.lock();
        let State { used, holders, .. } = &mut *state;
        if let Some(holder) = holders.get_mut(&self.number) {
            let freed = holder.bytes.saturating_sub(bytes);
            holder.bytes -= freed;
            *used = used.saturating_sub(freed);
        }
        drop(state);
        self.memory.freed.notify_waiters();
    }

    /// From now on it is held while others are waited for, and gives way again: see [`Self::ended`].
    pub fn wait(&self) {
        let grace = Instant::now() + self.memory.grace;
        self.memory.change(self.number, |holder| {
            holder.grace = grace;
            holder.state = Holding::Waiting(self.ended.clone());
        });
    }

    /// Until it has to give way: what it is held for is to end now.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Makes `answer` a body that holds this share until the client has read it. When it takes too long,
    /// `connection` is ended.
    pub fn hold(self, answer: Vec<u8>, connection: &Arc<Connection>) -> Bytes {
        let grace = Instant::now() + self.memory.grace;
        self.memory.change(self.number, |holder| {
            holder.grace = grace;
            holder.state = Holding::Unread(Arc::clone(connection));
        });
        struct Held(
            Vec<u8>,
            #[expect(dead_code, reason = "held until it is dropped")] Share,
        );
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        Bytes::from_owner(Held(answer, self))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.memory.state.lock();
        if let Some(holder) = state.holders.remove(&self.number) {
            state.used = state.used.saturating_sub(holder.bytes);
        }
        drop(state);
        self.memory.freed.notify_waiters();
    }
}

/// Reads a body of at most `limit` bytes. `share` grows with it.
///
/// # Errors
/// [`BodyError`].
pub async fn collect<B>(mut body: B, limit: usize, share: &mut Share) -> Result<Vec<u8>, BodyError>
where
    B: Body + Unpin,
{
    let announced = body.size_hint().exact();
    let announced = announced.map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    if announced.is_some_and(|size| size > limit) {
        return Err(BodyError::TooLarge(limit));
    }
    let most = announced.unwrap_or(limit);
    let mut bytes = Vec::new();
    loop {
        let ended = share.ended.clone();
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = ended.cancelled() => return Err(NoRoom.into()),
        };
        let Some(frame) = frame else { break };
        let Ok(mut data) = frame.map_err(|_| BodyError::Broken)?.into_data() else {
            continue;
        };
        let size = bytes.len() + data.remaining();
        if size > limit {
            return Err(BodyError::TooLarge(limit));
        }
        if size > bytes.capacity() {
            // Doubled, so that it isn't copied for each frame.
            let wanted = (2 * bytes.capacity()).max(FIRST).min(most).max(size);
            share.grow(wanted - bytes.capacity()).await?;
            bytes.reserve_exact(wanted - bytes.len());
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            bytes.extend_from_slice(chunk);
            let read = chunk.len();
            data.advance(read);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    use http_body_util::Full;

    const GRACE: Duration = Duration::from_millis(20);

    fn connection() -> Arc<Connection> {
        Arc::new(Connection::detached(([127, 0, 0, 1], 1).into()))
    }

    #[tokio::test]
    async fn a_body_is_charged_with_what_has_come() {
        let memory = Memory::new(64 << 10);
        let mut share = memory.share();
        assert_eq!(memory.used(), 0);
        let body = Full::new(Bytes::from(vec![7; 10_000]));
        let read = collect(body, 20_000, &mut share).await.unwrap();
        assert_eq!((read.len(), memory.used()), (10_000, 10_000));
        let body = Full::new(Bytes::from(vec![7; 10_000]));
        let error = collect(body, 9_999, &mut share).await.unwrap_err();
        assert_eq!(error, BodyError::TooLarge(9_999));
        let answer = share.hold(vec![1, 2, 3], &connection());
        assert_eq!(memory.used(), 10_000);
        drop(answer);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn what_has_been_held_the_longest_gives_way() {
        let memory = Memory::with_grace(100, GRACE);
        let reader = connection();
        let mut unread = memory.share();
        unread.grow(60).await.unwrap();
        let unread = unread.hold(vec![0; 60], &reader);
        let mut second = memory.share();
        second.grow(40).await.unwrap();
        // Both are young, and then the first is not any more.
        let mut third = memory.share();
        let waiting = tokio::spawn(async move {
            third.grow(50).await.unwrap();
            third
        });
        reader.aborted().await;
        drop(unread);
        let third = waiting.await.unwrap();
        assert_eq!(memory.used(), 90);
        // The second is the oldest now, and has had its time; so has the third.
        tokio::time::sleep(GRACE).await;
        assert_eq!(second.grow(20).await, Err(NoRoom));
        let mut fourth = memory.share();
        let waiting = tokio::spawn(async move { fourth.grow(30).await });
        // A body that was to come is given up, and nothing else of its connection.
        let never = http_body_util::StreamBody::new(futures_util::stream::pending::<
            Result<http_body::Frame<Bytes>, std::io::Error>,
        >());
        let error = collect(never, 100, &mut second).await.unwrap_err();
        assert_eq!(error, BodyError::NoRoom(NoRoom));
        drop(second);
        waiting.await.unwrap().unwrap();
        drop(third);
    }

    #[tokio::test]
    async fn what_is_worked_on_is_waited_for() {
        let memory = Memory::with_grace(100, GRACE);
        let mut first = memory.share();
        first.grow(60).await.unwrap();
        first.keep();
        let mut second = memory.share();
        let waiting = tokio::spawn(async move { second.grow(60).await });
        tokio::time::sleep(3 * GRACE).await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap().unwrap();
        let mut larger = memory.share();
        assert_eq!(larger.grow(101).await, Err(NoRoom));
    }

    #[tokio::test]
    async fn work_that_waits_for_others_gives_way() {
        let memory = Memory::with_grace(100, GRACE);
        let mut first = memory.share();
        first.grow(80).await.unwrap();
        first.keep();
        first.shrink_to(60);
        first.shrink_to(70);
        assert_eq!(memory.used(), 60);
        first.wait();
        let mut second = memory.share();
        let waiting = tokio::spawn(async move { second.grow(60).await });
        first.ended().await;
        // Its bytes are in use until it is gone.
        assert_eq!(first.grow(1).await, Err(NoRoom));
        drop(first);
        waiting.await.unwrap().unwrap();
    }
}
