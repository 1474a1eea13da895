//! Memory that blobs are read into and sent from, used again and again: memory that is new for every piece
//! has to be zeroed by the kernel and by us before one byte is read, which costs as much as reading it.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

/// One piece: few calls for a large blob, and still in the processor's cache when it is sent.
const LARGE: usize = 256 * 1024;
/// One piece while many clients read.
const SMALL: usize = 64 * 1024;
/// From so many bytes in use on, pieces are small: a slow client holds on to one.
const PLENTY: usize = 8 * 1024 * 1024;
/// Free large pieces that are kept.
const KEPT: usize = 8;

static FREE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
static IN_USE: AtomicUsize = AtomicUsize::new(0);

/// Memory for one piece. Dropping it, or the [`Bytes`] that it becomes, gives it back.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: Vec<u8>,
    length: usize,
}

impl Buffer {
    /// For a piece of at most `most` bytes.
    pub(super) fn take(most: usize) -> Self {
        let wanted = match IN_USE.load(Ordering::Relaxed) {
            plenty if plenty >= PLENTY => SMALL,
            _ => LARGE,
        };
        let memory = if most.min(wanted) > SMALL {
            let free = FREE.lock().pop();
            free.unwrap_or_else(|| vec![0; LARGE])
        } else {
            vec![0; most.min(SMALL)]
        };
        IN_USE.fetch_add(memory.len(), Ordering::Relaxed);
        Self {
            length: most.min(memory.len()),
            memory,
        }
    }

    /// What can be read into.
    pub(super) fn space(&mut self) -> &mut [u8] {
        self.memory.get_mut(..self.length).unwrap_or_default()
    }

    /// The first `length` bytes, to be sent.
    pub(super) fn filled(mut self, length: usize) -> Bytes {
        self.length = length.min(self.length);
        if self.length == 0 {
            return Bytes::new();
        }
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.memory.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        IN_USE.fetch_sub(self.memory.len(), Ordering::Relaxed);
        if self.memory.len() == LARGE {
            let mut free = FREE.lock();
            if free.len() < KEPT {
                free.push(std::mem::take(&mut self.memory));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_what_was_read_into_it_and_no_more() {
        for (most, read) in [(10, 10), (10, 4), (LARGE * 2, LARGE), (LARGE, 7), (5, 0)] {
            let mut buffer = Buffer::take(most);
            assert!(buffer.space().len() <= most.min(LARGE));
            let read = read.min(buffer.space().len());
            buffer.space()[..read].fill(7);
            let bytes = buffer.filled(read);
            assert_eq!(bytes, vec![7; read], "{most}");
        }
    }

    #[test]
    fn many_pieces_at_once_are_small() {
        let held: Vec<Buffer> = (0..1000).map(|_| Buffer::take(usize::MAX)).collect();
        let bytes: usize = held.iter().map(|buffer| buffer.memory.len()).sum();
        assert!(bytes < PLENTY + LARGE * 64 + 1000 * SMALL, "{bytes}");
        assert_eq!(held.last().unwrap().memory.len(), SMALL);
        drop(held);
        assert!(FREE.lock().len() <= KEPT);
    }
}
