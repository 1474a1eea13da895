//! Reading a request's body as one message.

use bytes::Bytes;
use futures_util::future::poll_fn;
use h2::RecvStream;

use crate::grpc::Message;

/// Largest message that is read whole: 16 MiB, which is what the runtime accepts. A larger one is
/// streamed through for the runtime to refuse.
const MAX_MESSAGE: usize = 16 << 20;

/// What came of reading a request's body as one message.
pub(crate) enum Collected {
    /// The whole body, and it has the length that its first message says.
    Whole(Bytes),
    /// Something else; this much of it was read.
    Other(Vec<Bytes>),
}

/// Reads a body until it is one whole message, or until it is clear that it is not.
///
/// # Errors
/// The client broke off.
pub(crate) async fn collect(body: &mut RecvStream) -> Result<Collected, h2::Error> {
    let mut chunks: Vec<Bytes> = Vec::new();
    let mut total = 0;
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
        body.flow_control().release_capacity(chunk.len())?;
        total += chunk.len();
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
