//! How many unread bytes the connections of all clients may hold together.
//!
//! An HTTP/2 window is a promise: so many bytes may be sent before the reader has taken any. Whoever
//! doesn't read makes the shim hold them. Each client's windows come out of one budget, so that many
//! clients that don't read hold no more than one, and each has its own, so that none stalls another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::http2::Http2Tuning;

/// What is left to be given out, in bytes. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    left: Arc<AtomicUsize>,
    most: usize,
    least: usize,
}

/// One client's part. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Share {
    left: Arc<AtomicUsize>,
    taken: usize,
    window: usize,
}

impl Budget {
    pub(crate) fn new(tuning: &Http2Tuning) -> Self {
        let size = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            left: Arc::new(AtomicUsize::new(size(tuning.all_connection_windows))),
            most: size(tuning.connection_window),
            least: size(tuning.least_connection_window),
        }
    }

    /// A client's part: the largest window while there is plenty, less where many clients are
    /// connected, and never less than it takes to serve one. It counts twice, once for each direction.
    pub(crate) fn share(&self) -> Share {
        let mut taken = 0;
        let mut window = self.least;
        let take = |left: usize| {
            // An eighth for each direction: a quarter of what is left.
            window = (left / 8).clamp(self.least, self.most);
            taken = left.min(2 * window);
            Some(left - taken)
        };
        // The closure never refuses.
        let _ = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        Share {
            left: Arc::clone(&self.left),
            taken,
            window,
        }
    }
}

impl Share {
    /// The connection window for either direction, in bytes.
    pub(crate) fn window(&self) -> u32 {
        u32::try_from(self.window).unwrap_or(u32::MAX)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.left.fetch_add(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_clients_get_the_least_and_give_it_all_back() {
        let tuning = Http2Tuning::SHIM;
        let (most, least) = (tuning.connection_window, tuning.least_connection_window);
        let budget = Budget::new(&tuning);
        let whole = budget.left.load(Ordering::Relaxed);
        let mut shares: Vec<Share> = (0..10).map(|_| budget.share()).collect();
        assert!(shares.iter().all(|share| share.window() == most));
        shares.extend((10..1000).map(|_| budget.share()));
        assert!(shares.is_sorted_by_key(|share| std::cmp::Reverse(share.window())));
        assert_eq!(shares[999].window(), least);
        // Nothing is promised twice.
        let taken: usize = shares.iter().map(|share| share.taken).sum();
        assert_eq!(taken, whole);
        drop(shares);
        assert_eq!(budget.left.load(Ordering::Relaxed), whole);
    }

    /// An image call is held in the window where there is no other room for it.
    #[test]
    fn the_least_window_has_room_for_an_image_call() {
        let tuning = Http2Tuning::SHIM;
        assert!(tuning.least_connection_window as usize >= crate::body::MAX_IN_WINDOW);
        assert!(tuning.stream_window as usize >= crate::body::MAX_IN_WINDOW);
    }
}
