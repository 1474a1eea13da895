//! Reading a blob, whole or while it grows.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use rustix::fs::Advice;
use rustix::io::ReadWriteFlags;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::buffers::Buffer;
use super::fetch::{Fetch, Wanted};
use super::transfer::{Progress, State, Transfer};
use crate::digest::Hasher;
use crate::store::ByteStream;
use crate::upstream::Failure;

/// The end of a blob that is held back until all of it is verified. The bytes of a blob that is
/// shorter than this are all its last chunk.
const LAST_CHUNK: u64 = 64 * 1024;

/// A reader that has waited this long for somebody else's download looks whether it is worth it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes that must have come in that time.
const LEAST_IN_PATIENCE: u64 = 320 * 1024;
/// One silence counts for no more than this: where an uplink was away for a while, all would stand still, and
/// whose download it is plays no part.
const MOST_OF_A_SILENCE: Duration = Duration::from_secs(5);
/// The longest silence. Twice what a download endures that is fed by nobody at all: one that is still there then
/// is sent only what it has already.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(120);

/// Reads at an offset. What is in the page cache is read at once; the rest where blocking is fine.
async fn read_at(file: &Arc<File>, at: u64, most: u64) -> io::Result<Bytes> {
    let mut buffer = Buffer::take(usize::try_from(most).unwrap_or(usize::MAX));
    let ready = rustix::io::preadv2(
        file,
        &mut [IoSliceMut::new(buffer.space())],
        at,
        ReadWriteFlags::NOWAIT,
    );
    if let Ok(read) = ready
        && read > 0
    {
        return Ok(buffer.filled(read));
    }
    let file = Arc::clone(file);
    let read = tokio::task::spawn_blocking(move || {
        let read = file.read_at(buffer.space(), at)?;
        Ok(buffer.filled(read))
    });
    read.await
        .unwrap_or_else(|ended| Err(io::Error::other(ended)))
}

/// The bytes of a whole file from `from` to `to` (not included).
pub fn read_file(file: File, from: u64, to: u64) -> ByteStream {
    // What is not in the page cache is read ahead in larger pieces. It is advice: nothing hangs on it.
    let length = NonZeroU64::new(to.saturating_sub(from));
    let _ = rustix::fs::fadvise(&file, from, length, Advice::Sequential);
    let file = Arc::new(file);
    stream::try_unfold((file, from), move |(file, at)| async move {
        if at >= to {
            return Ok(None);
        }
        let bytes = read_at(&file, at, to - at).await?;
        if bytes.is_empty() {
            // Shorter than it was when it was opened.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let next = at + bytes.len() as u64;
        Ok(Some((bytes, (file, next))))
    })
    .boxed()
}

/// As [`read_along_while_it_is_quick`], of one's own download.
#[cfg(test)]
pub fn read_along(transfer: Arc<Transfer>, from: u64, to: Option<u64>) -> ByteStream {
    read_along_while_it_is_quick(transfer, None, from, to)
}

/// Reads along with a download, from `from` to `to` (not included) or to the end.
///
/// The stream ends with an error, which closes the client's connection, when the download fails, and
/// when bytes that were handed out have turned out to be wrong.
///
/// Where `own` is given, the download is on behalf of somebody else, whose registry may be anybody's. When it
/// is too slow, the rest is fetched as `own` says, for this reader alone.
pub fn read_along_while_it_is_quick(
    transfer: Arc<Transfer>,
    own: Option<Arc<Wanted>>,
    from: u64,
    to: Option<u64>,
) -> ByteStream {
    let reader = Reader {
        progress: transfer.watch(),
        transfer,
        at: from,
        from,
        to,
        generation: None,
        direct: None,
        own,
        patience: None,
    };
    stream::try_unfold(reader, |mut reader| async move {
        let bytes = reader.next().await?;
        Ok(bytes.map(|bytes| (bytes, reader)))
    })
    .boxed()
}

struct Reader {
    transfer: Arc<Transfer>,
    progress: watch::Receiver<Progress>,
    at: u64,
    from: u64,
    to: Option<u64>,
    /// Which content the bytes that were handed out are from.
    generation: Option<u32>,
    direct: Option<Direct>,
    /// What this reader would ask for himself, where the download is for somebody else.
    own: Option<Arc<Wanted>>,
    patience: Option<Patience>,
}

/// How long a reader has waited for somebody else's download, and what was there when he began.
struct Patience {
    waited: Duration,
    there: u64,
}

/// What to do next.
enum Step {
    Read(Arc<File>, u64),
    End,
    Wait,
    /// The download has failed before it gave this reader anything: that it was for somebody else is all that he
    /// knows.
    Instead(Arc<Wanted>),
    /// The rest is not stored; it is fetched for this reader alone.
    Alone {
        hashed: u64,
        hasher: Hasher,
    },
}

impl Reader {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(direct) = &mut self.direct {
                return direct.next(&mut self.at, self.to).await;
            }
            let step = self.step()?;
            match step {
                Step::End => return Ok(None),
                Step::Read(file, limit) => {
                    let bytes = read_at(&file, self.at, limit - self.at).await?;
                    if bytes.is_empty() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.at += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Step::Wait => self.wait().await?,
                Step::Instead(own) => self.direct = Some(self.instead(own)?),
                Step::Alone { hashed, hasher } => {
                    let wanted = Arc::clone(self.transfer.wanted());
                    // A part from the middle: its reader computes the digest of the whole himself.
                    let is_part = self.at > hashed;
                    self.direct = Some(match is_part {
                        true => Direct::new(wanted, self.at, None),
                        false => Direct::new(wanted, hashed, Some(hasher)),
                    });
                }
            }
        }
    }

    async fn wait(&mut self) -> io::Result<()> {
        let Some(own) = self.own.clone() else {
            return self.changed().await;
        };
        let (there, is_all_there, is_opening) = {
            let progress = self.progress.borrow();
            let there = progress.ranges.bytes();
            (
                there,
                progress.total.is_some_and(|total| there >= total),
                matches!(progress.state, State::Opening),
            )
        };
        if is_all_there {
            // It is being verified.
            return self.changed().await;
        }
        let mut patience = self.patience.take().unwrap_or(Patience {
            waited: Duration::ZERO,
            there,
        });
        let began = Instant::now();
        // Who has not answered yet has sent nothing that would be lost.
        let longest = match is_opening {
            true => PATIENCE.saturating_sub(patience.waited),
            false => SILENCE_TIMEOUT,
        };
        let is_silent = match timeout(longest, self.changed()).await {
            Ok(changed) => {
                changed?;
                false
            }
            Err(_) => true,
        };
        if is_opening && !is_silent {
            let has_answered = !matches!(self.progress.borrow().state, State::Opening);
            patience.waited += began.elapsed();
            // From now on it is judged by what comes.
            self.patience = (!has_answered).then_some(patience);
            return Ok(());
        }
        // Only waiting counts: a client that reads slowly says nothing of the download.
        patience.waited += began.elapsed().min(MOST_OF_A_SILENCE);
        if patience.waited < PATIENCE && !is_silent {
            self.patience = Some(patience);
            return Ok(());
        }
        let there = self.progress.borrow().ranges.bytes();
        if is_silent || there.saturating_sub(patience.there) < LEAST_IN_PATIENCE {
            tracing::info!(
                "{} arrives too slowly for another repository; it is fetched for {} itself",
                self.transfer.digest(),
                own.repository
            );
            self.direct = Some(self.instead(own)?);
        }
        Ok(())
    }

    async fn changed(&mut self) -> io::Result<()> {
        let changed = self.progress.changed().await;
        changed.map_err(|_| io::Error::other("the download ended"))
    }

    /// The rest, without the download. From the beginning where the whole is read: it is verified, and what was
    /// handed out is compared, since nobody has verified that.
    ///
    /// # Errors
    /// What was handed out has turned out to be wrong, and is not there any more to be compared.
    fn instead(&self, own: Arc<Wanted>) -> io::Result<Direct> {
        let progress = self.progress.borrow();
        self.check(&progress)?;
        if self.from > 0 {
            return Ok(Direct::new(own, self.at, None));
        }
        let hasher = own.digest.hasher();
        let mut direct = Direct::new(own, 0, Some(hasher));
        direct.handed_out = self.at;
        direct.file = progress.file.clone();
        Ok(direct)
    }

    /// Whether what was handed out is still what there is.
    fn check(&self, progress: &Progress) -> io::Result<()> {
        let is_other = self
            .generation
            .is_some_and(|known| known != progress.generation);
        if self.at > self.from && is_other {
            return Err(io::Error::other("what was sent so far was wrong"));
        }
        Ok(())
    }

    fn step(&mut self) -> io::Result<Step> {
        // Marked first: what changes in between is looked at again.
        self.progress.mark_unchanged();
        let progress = self.progress.borrow();
        self.check(&progress)?;
        if self.at == self.from {
            self.generation = Some(progress.generation);
        }
        let reach = progress.ranges.reach(self.at);
        let (limit, end) = match &progress.state {
            State::Failed(failures) => {
                return match &self.own {
                    Some(own) if self.at == self.from => Ok(Step::Instead(Arc::clone(own))),
                    _ => Err(io::Error::other(failures.to_string())),
                };
            }
            State::Whole => (progress.total.unwrap_or(reach), progress.total),
            State::Unstored { hashed, hasher } => {
                let limit = self.to.map_or(*hashed, |to| to.min(*hashed));
                return Ok(match &progress.file {
                    Some(file) if self.at < limit => Step::Read(Arc::clone(file), limit),
                    _ if self.to.is_some_and(|to| self.at >= to) => Step::End,
                    _ => Step::Alone {
                        hashed: *hashed,
                        hasher: hasher.clone(),
                    },
                });
            }
            State::Opening | State::Arriving => {
                let verified_later = match progress.total {
                    Some(total) => total.saturating_sub(LAST_CHUNK),
                    None => reach.saturating_sub(LAST_CHUNK),
                };
                (reach.min(verified_later), progress.total)
            }
        };
        let end = match (self.to, end) {
            (Some(to), Some(end)) => Some(to.min(end)),
            (to, end) => to.or(end),
        };
        // The last byte of a part is held back like the last byte of the whole.
        let is_verified = matches!(progress.state, State::Whole);
        if is_verified && end.is_some_and(|end| self.at >= end) {
            return Ok(Step::End);
        }
        let mut limit = end.map_or(limit, |end| limit.min(end));
        if !is_verified && Some(limit) == end {
            limit = limit.saturating_sub(1);
        }
        match &progress.file {
            Some(file) if self.at < limit => Ok(Step::Read(Arc::clone(file), limit)),
            _ => Ok(Step::Wait),
        }
    }
}

/// The rest of a blob that can't be stored, or is too slow, for one reader.
struct Direct {
    fetch: Fetch,
    wanted: Arc<Wanted>,
    /// What comes up to here was handed out already, as it is in `file`.
    handed_out: u64,
    file: Option<Arc<File>>,
    /// None where only a part is fetched, which can't be verified.
    hasher: Option<Hasher>,
    /// What is held back until more has come, or all is verified.
    held: Option<Bytes>,
    done: bool,
}

impl Direct {
    fn new(wanted: Arc<Wanted>, from: u64, hasher: Option<Hasher>) -> Self {
        Self {
            fetch: Fetch::new(Arc::clone(&wanted), from, None),
            wanted,
            handed_out: 0,
            file: None,
            hasher,
            held: None,
            done: false,
        }
    }

    async fn next(&mut self, at: &mut u64, to: Option<u64>) -> io::Result<Option<Bytes>> {
        loop {
            if self.done || (self.held.is_none() && to.is_some_and(|to| *at >= to)) {
                return Ok(None);
            }
            let offset = self.fetch.at();
            let next = self.fetch.next().await;
            let next = next.map_err(|failures| io::Error::other(failures.to_string()))?;
            let ready = match next {
                Some(mut bytes) => {
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(&bytes);
                    }
                    self.leave_out(&mut bytes, offset).await?;
                    let left = to.map_or(u64::MAX, |to| to.saturating_sub(*at));
                    let held = self.held.as_ref().map_or(0, Bytes::len) as u64;
                    bytes
                        .truncate(usize::try_from(left.saturating_sub(held)).unwrap_or(usize::MAX));
                    if bytes.is_empty() && self.hasher.is_none() {
                        self.done = true;
                        self.held.take()
                    } else if bytes.is_empty() {
                        None
                    } else {
                        self.held.replace(bytes)
                    }
                }
                None => {
                    self.verify()?;
                    self.done = true;
                    self.held.take()
                }
            };
            if let Some(bytes) = ready {
                *at += bytes.len() as u64;
                return Ok(Some(bytes));
            }
        }
    }

    /// Drops of `bytes`, which begin at `offset`, what was handed out, where it was the same.
    async fn leave_out(&mut self, bytes: &mut Bytes, offset: u64) -> io::Result<()> {
        let known = self.handed_out.saturating_sub(offset);
        let known = usize::try_from(known)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let mut known = bytes.split_to(known);
        let mut at = offset;
        while !known.is_empty() {
            let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
            let there = read_at(file, at, known.len() as u64).await?;
            if there.is_empty() || there != known.split_to(there.len().min(known.len())) {
                return Err(io::Error::other("what was sent so far was wrong"));
            }
            at += there.len() as u64;
        }
        Ok(())
    }

    fn verify(&mut self) -> io::Result<()> {
        let digest = &self.wanted.digest;
        let is_right = self
            .hasher
            .take()
            .is_none_or(|hasher| hasher.finish() == *digest);
        if is_right {
            return Ok(());
        }
        let wanted = &self.wanted;
        for &source in self.fetch.contributors() {
            match (wanted.place(source), &wanted.shared) {
                (Some(place), _) => wanted.liars.note(&place.name, digest),
                (None, Some(shared)) => shared.discard(digest),
                (None, None) => {}
            }
        }
        let wrong = Failure::Wrong("sent other bytes than asked for".to_owned());
        Err(io::Error::other(wrong.to_string()))
    }
}
