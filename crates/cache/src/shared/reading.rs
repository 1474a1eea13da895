//! A blob from the bucket that stalls, or is too slow, ends with an error: the transfer goes on from
//! another source where it was.

use std::io;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;

use super::Shared;
use crate::store::{ByteStream, Reading};

struct Bounded {
    bytes: ByteStream,
    shared: Shared,
    /// How long pieces were waited for; what the reader takes is not counted.
    waited: Duration,
    received: u64,
}

/// How a transfer has ended.
enum Broken {
    Slow(String),
    Off(String),
}

pub(super) fn bounded(found: Reading, shared: &Shared) -> Reading {
    let bounded = Bounded {
        bytes: found.bytes,
        shared: shared.clone(),
        waited: Duration::ZERO,
        received: 0,
    };
    let bytes = stream::try_unfold(bounded, |mut bounded| async move {
        let asked = Instant::now();
        let bounds = bounded.shared.inner.bounds;
        let next = tokio::time::timeout(bounds.piece_timeout, bounded.bytes.next()).await;
        let detail = match next {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(piece))) => {
                bounded.waited += asked.elapsed();
                bounded.received += piece.len() as u64;
                bounded.shared.inner.counters.received(piece.len() as u64);
                if !bounded.is_too_slow() {
                    return Ok(Some((piece, bounded)));
                }
                Broken::Slow("sends too slowly".to_owned())
            }
            Ok(Some(Err(error))) => Broken::Off(error.to_string()),
            Err(_) => Broken::Slow(format!(
                "sent nothing for {} s",
                bounds.piece_timeout.as_secs_f32()
            )),
        };
        let (detail, pause) = match detail {
            Broken::Slow(detail) => (detail, Some(bounds.slow_pause)),
            Broken::Off(detail) => (detail, None),
        };
        bounded.shared.failed(&detail, pause);
        Err(io::Error::other(detail))
    });
    Reading {
        total: found.total,
        bytes: bytes.boxed(),
    }
}

impl Bounded {
    fn is_too_slow(&self) -> bool {
        let bounds = self.shared.inner.bounds;
        let wanted = self.waited.as_secs_f64() * bounds.min_speed as f64;
        self.waited > bounds.slow_after && (self.received as f64) < wanted
    }
}
