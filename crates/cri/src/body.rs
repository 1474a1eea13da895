//! Reading a request's body as one message.

use bytes::Bytes;
use futures_util::future::poll_fn;
use h2::RecvStream;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::grpc::Message;

/// Largest message that is read whole, its prefix included: 16 MiB, the most that containerd and cri-dockerd take. A
/// pull request holds its Pod's labels and annotations, the latter twice, and a pull secret. Kubernetes bounds their sum
/// by the size of an object only, which is a site's own choice.
const MAX_MESSAGE: usize = (16 << 20) + 5;
/// Largest message that is read whole where there is no [`Room`]: 1 MiB, one stream's window.
pub(crate) const MAX_IN_WINDOW: usize = 1 << 20;
/// As much of each message takes no [`Room`].
const SMALL_MESSAGE: usize = 16 << 10;
/// What the messages of all clients may take together, for as long as their calls last: 32 MiB.
const ALL_MESSAGES: usize = 32 << 20;

/// Room for the messages of all clients.
///
/// A message that has none stays in its connection's window until its call is over. So clients can't make the shim
/// hold more than that; but what fills a window holds up its client's other calls, and a pull may be long.
#[derive(Debug)]
pub(crate) struct Room(Semaphore);

/// What one message takes of the [`Room`]. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    room: &'a Room,
    taken: Option<SemaphorePermit<'a>>,
}

impl Default for Room {
    fn default() -> Self {
        Self(Semaphore::new(ALL_MESSAGES))
    }
}

impl Room {
    /// A place that takes nothing yet.
    pub(crate) fn place(&self) -> Place<'_> {
        Place {
            room: self,
            taken: None,
        }
    }
}

impl Place<'_> {
    /// Takes so many bytes more, where there is room for them.
    fn take(&mut self, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(more) = self.room.0.try_acquire_many(bytes) else {
            return false;
        };
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        true
    }
}

/// What came of reading a request's body as one message.
pub(crate) enum Collected {
    /// The whole body, and it has the length that its first message says.
    Whole(Bytes),
    /// Something else.
    Other {
        /// What was read of it.
        prefix: Vec<Bytes>,
        /// What it is.
        why: Unread,
    },
}

/// Why a body was not read as one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unread {
    /// Most runtimes would not take it either.
    #[error("its message is larger than {} MiB", MAX_MESSAGE >> 20)]
    TooLarge,
    /// There is no [`Room`].
    #[error(
        "its message is larger than {} MiB while other large ones are under way",
        MAX_IN_WINDOW >> 20
    )]
    NoRoom,
    /// Less, or more.
    #[error("its body is not one message")]
    NotOneMessage,
}

/// Reads a body until it is one whole message, or until it is clear that it is not. `body` and `place` are to be
/// kept for as long as what was read is.
///
/// # Errors
/// The client broke off.
pub(crate) async fn collect(
    body: &mut RecvStream,
    place: &mut Place<'_>,
) -> Result<Collected, h2::Error> {
    let mut chunks: Vec<Bytes> = Vec::new();
    let mut total = 0;
    let mut unreleased = 0;
    // Set once the prefix of the message is there.
    let mut expected = None;
    while !body.is_end_stream() {
        let Some(chunk) = poll_fn(|cx| body.poll_data(cx)).await else {
            // Its end, or trailers, which gRPC clients do not send.
            break;
        };
        let chunk = chunk?;
        total += chunk.len();
        if total <= SMALL_MESSAGE || place.take(chunk.len()) {
            body.flow_control().release_capacity(chunk.len())?;
        } else {
            unreleased += chunk.len();
        }
        if !chunk.is_empty() {
            chunks.push(chunk);
        }
        if expected.is_none() {
            expected = match &chunks[..] {
                [one] => Message::length(one),
                several => Message::length(&several.concat()),
            };
        }
        let why = match expected {
            Some(length) if total > length => Unread::NotOneMessage,
            Some(length) if length > MAX_MESSAGE => Unread::TooLarge,
            Some(length) if length > MAX_IN_WINDOW && unreleased > 0 => Unread::NoRoom,
            _ => continue,
        };
        // The rest needs the window.
        body.flow_control().release_capacity(unreleased)?;
        let prefix = chunks;
        return Ok(Collected::Other { prefix, why });
    }
    if expected != Some(total) || !body.is_end_stream() {
        let (prefix, why) = (chunks, Unread::NotOneMessage);
        return Ok(Collected::Other { prefix, why });
    }
    let whole = match <[Bytes; 1]>::try_from(chunks) {
        Ok([one]) => one,
        Err(several) => Bytes::from(several.concat()),
    };
    Ok(Collected::Whole(whole))
}
