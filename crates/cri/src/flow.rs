//! Moving bodies between two HTTP/2 streams under both sides' flow control.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use futures_util::future::poll_fn;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

use crate::grpc::Code;

/// Largest beginning of a body that is handed to `h2` without asking for room: 16 KiB. A stream gets room
/// only when its head has been written; waiting for that would make two writes of one small request, and
/// two wake-ups of its reader. What the window doesn't let out is kept by `h2`, so only a beginning may.
const AT_ONCE: usize = 16 << 10;

/// Sends the beginning of a body, which may be all of it.
///
/// # Errors
/// As for [`send`].
pub(crate) async fn send_first(
    to: &mut SendStream<Bytes>,
    data: Bytes,
    end_of_stream: bool,
) -> Result<(), h2::Error> {
    if data.len() <= AT_ONCE {
        return to.send_data(data, end_of_stream);
    }
    send(to, data, end_of_stream).await
}

/// Sends all of `data`, in as many pieces as the receiver's window asks for.
///
/// # Errors
/// The stream was reset by the receiver, or its connection ended.
pub(crate) async fn send(
    to: &mut SendStream<Bytes>,
    mut data: Bytes,
    end_of_stream: bool,
) -> Result<(), h2::Error> {
    while !data.is_empty() {
        to.reserve_capacity(data.len());
        // Mostly there is room, and asking the stream is cheaper than waiting for its word.
        let mut room = to.capacity();
        if room == 0 {
            room = match poll_fn(|cx| to.poll_capacity(cx)).await {
                Some(room) => room?,
                None => return Err(Reason::CANCEL.into()),
            };
        }
        if room >= data.len() {
            return to.send_data(data, end_of_stream);
        }
        to.send_data(data.split_to(room), false)?;
    }
    if end_of_stream {
        to.send_data(Bytes::new(), true)?;
    }
    Ok(())
}

/// Moves the whole body, its trailers included, and gives the gRPC code that they had. The sender gets
/// new window only for what the receiver took, so that a slow reader slows down the sender and fills
/// no memory. `watch` sees all that goes.
///
/// # Errors
/// [`PumpError::From`] when the sender broke off, [`PumpError::To`] when the receiver did.
pub(crate) async fn pump(
    from: &mut RecvStream,
    to: &mut SendStream<Bytes>,
    mut watch: impl FnMut(&Bytes),
) -> Result<Option<Code>, PumpError> {
    let mut is_first = true;
    while let Some(chunk) = poll_fn(|cx| {
        // Looked at first: who no longer reads must not be waited for.
        if let Poll::Ready(reset) = to.poll_reset(cx) {
            return Poll::Ready(Err(PumpError::To(match reset {
                Ok(reason) => reason.into(),
                Err(error) => error,
            })));
        }
        from.poll_data(cx)
            .map(|chunk| chunk.transpose().map_err(PumpError::From))
    })
    .await?
    {
        let length = chunk.len();
        let last = from.is_end_stream();
        watch(&chunk);
        if length > 0 || last {
            let sent = if is_first {
                send_first(to, chunk, last).await
            } else {
                send(to, chunk, last).await
            };
            sent.map_err(PumpError::To)?;
            is_first = false;
        }
        from.flow_control()
            .release_capacity(length)
            .map_err(PumpError::From)?;
        if last {
            return Ok(None);
        }
    }
    let trailers: Option<HeaderMap> = poll_fn(|cx| from.poll_trailers(cx))
        .await
        .map_err(PumpError::From)?;
    let code = trailers.as_ref().and_then(Code::from_headers);
    match trailers {
        Some(trailers) => to.send_trailers(trailers),
        None => to.send_data(Bytes::new(), true),
    }
    .map_err(PumpError::To)?;
    Ok(code)
}

/// Which side a body's way ended on.
#[derive(Debug)]
pub(crate) enum PumpError {
    /// The side that sends the body.
    From(h2::Error),
    /// The side that receives it.
    To(#[expect(dead_code, reason = "shown by Debug")] h2::Error),
}

/// Runs `main` to its end, and `beside` along with it as far as it gets. What `beside` gives is dropped.
pub(crate) async fn drive<T>(beside: impl Future, main: impl Future<Output = T>) -> T {
    let mut beside = pin!(beside);
    let mut main = pin!(main);
    let mut beside_done = false;
    poll_fn(|cx| {
        if !beside_done {
            beside_done = beside.as_mut().poll(cx).is_ready();
        }
        main.as_mut().poll(cx)
    })
    .await
}
