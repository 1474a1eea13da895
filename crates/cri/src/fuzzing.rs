//! Parts that nobody else may use, for the properties that fuzzing checks (crate `properties`).

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};

use crate::alias::Aliases;
use crate::authority::{AuthorityFix, rewritten};
use crate::original_names::answers::OriginalNames;

/// An answer that lists images, with the original names added. None where it can't be read.
pub fn with_original_names(aliases: &Aliases, message: &[u8]) -> Option<Vec<u8>> {
    OriginalNames::of(aliases).added_to(message).ok()
}

/// The first header block of a connection, written anew. None where it can't be read.
pub fn rewritten_block(block: &[u8]) -> Option<Vec<u8>> {
    rewritten(block)
}

/// What the HTTP/2 server gets to see of a client's bytes that come in pieces of that length, and whether the
/// connection then ends by an error.
pub fn served_bytes(data: &[u8], piece: usize) -> (Vec<u8>, bool) {
    let mut reader = pin!(AuthorityFix::new(Pieces { data, piece }));
    let mut context = Context::from_waker(Waker::noop());
    let mut served = Vec::new();
    loop {
        let mut buffer = vec![0; 8192];
        let mut buffer = ReadBuf::new(&mut buffer);
        match reader.as_mut().poll_read(&mut context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => return (served, false),
            Poll::Ready(Ok(())) => served.extend_from_slice(buffer.filled()),
            Poll::Ready(Err(_)) | Poll::Pending => return (served, true),
        }
    }
}

/// Bytes that are there at once, a few at a time.
struct Pieces<'a> {
    data: &'a [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.data.len().min(self.piece).min(buf.remaining());
        let (now, later) = self.data.split_at(length);
        buf.put_slice(now);
        self.data = later;
        Poll::Ready(Ok(()))
    }
}
