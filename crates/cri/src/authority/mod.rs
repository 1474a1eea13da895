//! Serving clients whose `:authority` is malformed.
//!
//! A kubelet before 1.30, and crictl of that age, dial the socket with a grpc-go that sends
//! `:authority` as `/run/x.sock`, as `%2Frun%2Fx.sock`, or empty. RFC 9113 section 8.3.1 allows none of
//! these, and the `h2` crate resets such streams. [`AuthorityFix`] stands between the accepted
//! connection and `h2` and lets it see `localhost` instead.
//!
//! While every authority is one that `h2` takes, the client's bytes pass as they are: they are read
//! straight into `h2`'s buffer and only looked at there. From the first malformed one on,
//! the header blocks of that connection are written anew, in a form that needs no dynamic table,
//! so that it no longer matters what `h2`'s table holds.
//!
//! [`hpack`] reads and rewrites header blocks, [`frames`] finds them in the stream of frames; both are
//! pure.

mod frames;
mod hpack;

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use frames::{Step, Watcher};

/// Bytes read at once where they can't go straight into the caller's buffer.
const READ_AHEAD: usize = 8 << 10;

/// The first header block of a connection, written anew. None where it can't be read.
pub(crate) fn rewritten(block: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let read = hpack::Transcoder::default().block(block, &mut out);
    read.is_ok().then_some(out)
}

/// An accepted connection whose requests have an `:authority` that `h2` takes. Writes pass as they are.
pub(crate) struct AuthorityFix<S> {
    io: S,
    watcher: Watcher,
    /// The beginning of a header block that is not complete: it must not reach `h2` before its
    /// authority is known.
    held: Vec<u8>,
    /// What is to be handed on next, from `ready_from` on.
    ready: Vec<u8>,
    ready_from: usize,
    /// The rewriting can't go on; the connection ends after `ready`.
    failed: bool,
}

impl<S> AuthorityFix<S> {
    /// Wraps a connection that was just accepted, before anything was read from it.
    pub(crate) fn new(io: S) -> Self {
        Self {
            io,
            watcher: Watcher::default(),
            held: Vec::new(),
            ready: Vec::new(),
            ready_from: 0,
            failed: false,
        }
    }

    /// Takes what `buf` got beyond `before`: leaves there what may pass, moves the rest into `held` and
    /// `ready`.
    fn inspect(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let new = buf.filled().get(before..).unwrap_or_default();
        let mut passed = 0;
        while let Some(rest) = new.get(passed..).filter(|rest| !rest.is_empty()) {
            match self.watcher.step(rest) {
                Step::Pass(length) => passed += length,
                Step::More => {
                    self.held.extend_from_slice(rest);
                    break;
                }
                Step::Replace(length) => {
                    self.ready.extend_from_slice(self.watcher.replacement());
                    self.held
                        .extend_from_slice(rest.get(length..).unwrap_or_default());
                    self.digest();
                    break;
                }
                Step::Fail => {
                    self.failed = true;
                    break;
                }
            }
        }
        buf.set_filled(before + passed);
    }

    /// Moves what can be decided from `held` to `ready`.
    fn digest(&mut self) {
        let mut taken = 0;
        while let Some(rest) = self.held.get(taken..).filter(|rest| !rest.is_empty()) {
            match self.watcher.step(rest) {
                Step::Pass(length) => {
                    self.ready
                        .extend_from_slice(rest.get(..length).unwrap_or_default());
                    taken += length;
                }
                Step::Replace(length) => {
                    self.ready.extend_from_slice(self.watcher.replacement());
                    taken += length;
                }
                Step::More => break,
                Step::Fail => {
                    self.failed = true;
                    taken = self.held.len();
                }
            }
        }
        self.held.drain(..taken);
    }

    /// Hands on what is ready. False when there is nothing.
    fn serve_ready(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let rest = self.ready.get(self.ready_from..).unwrap_or_default();
        let length = rest.len().min(buf.remaining());
        if length == 0 {
            return false;
        }
        buf.put_slice(rest.get(..length).unwrap_or_default());
        self.ready_from += length;
        if self.ready_from == self.ready.len() {
            self.ready.clear();
            self.ready.shrink_to(READ_AHEAD);
            self.ready_from = 0;
        }
        true
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AuthorityFix<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.serve_ready(buf) {
                return Poll::Ready(Ok(()));
            }
            if this.failed {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a header block of the client can't be read",
                )));
            }
            if this.held.is_empty() {
                let before = buf.filled().len();
                ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
                if buf.filled().len() == before {
                    return Poll::Ready(Ok(()));
                }
                this.inspect(buf, before);
                if buf.filled().len() > before {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.held.reserve(READ_AHEAD);
                // Dropping this future loses nothing: it holds no bytes.
                let read = ready!(pin!(this.io.read_buf(&mut this.held)).poll(cx))?;
                if read == 0 {
                    // The client ended inside a frame: what there is, is `h2`'s to judge.
                    this.ready.append(&mut this.held);
                } else {
                    this.digest();
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AuthorityFix<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
