//! Reading a request's body as one message.

use bytes::Bytes;
use futures_util::future::poll_fn;
use h2::RecvStream;

use crate::grpc::Message;

/// Largest message that is read whole, its prefix included: 1 MiB, one stream's window. A pull request
/// holds a Pod's labels and annotations, which Kubernetes bounds at a quarter of that. A larger
/// message is streamed through.
pub(crate) const MAX_MESSAGE: usize = 1 << 20;
/// A message above this size stays in its connection's window until its call is over, so that a client
/// can't make the shim hold more than that window allows.
const SMALL_MESSAGE: usize = 16 << 10;

/// What came of reading a request's body as one message.
pub(crate) enum Collected {
    /// The whole body, and it has the length that its first message says.
    Whole(Bytes),
    /// Something else; this much of it was read.
    Other(Vec<Bytes>),
}

/// Reads a body until it is one whole message, or until it is clear that it is not. `body` is to be kept
/// for as long as what was read is.
///
/// # Errors
/// The client broke off.
pub(crate) async fn collect(body: &mut RecvStream) -> Result<Collected, h2::Error> {
    let mut chunks: Vec<Bytes> = Vec::new();
    let mut total = 0;
    let mut unreleased = 0;
    // Set once the prefix of the message is there.
    let mut expected = None;
    while !body.is_end_stream() {
        let Some(chunk) = poll_fn(|cx| body.poll_data(cx)).await else {
            if body.is_end_stream() {
                break;
            }
            // Trailers, which gRPC clients do not send.
            return Ok(Collected::Other(chunks));
        };
        let chunk = chunk?;
        total += chunk.len();
        if total <= SMALL_MESSAGE {
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
        if expected.is_some_and(|length| total > length || length > MAX_MESSAGE) {
            // The rest needs the window.
            body.flow_control().release_capacity(unreleased)?;
            return Ok(Collected::Other(chunks));
        }
    }
    if expected != Some(total) {
        return Ok(Collected::Other(chunks));
    }
    let whole = match <[Bytes; 1]>::try_from(chunks) {
        Ok([one]) => one,
        Err(several) => Bytes::from(several.concat()),
    };
    Ok(Collected::Whole(whole))
}
