//! Calls with one message each way, which is what the image calls are.

use bytes::{Bytes, BytesMut};
use futures_util::future::poll_fn;
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::{Upstream, UpstreamError};
use crate::call_head::CallHead;
use crate::flow;
use crate::grpc::{self, Code, FrameError, GRPC_ENCODING, Message, Status};

/// Largest answer that is kept in memory: 64 MiB, above gRPC's own default limits of 4 and 16 MiB.
const MAX_ANSWER: usize = 64 << 20;
/// Calls that are sent anew because the runtime certainly did nothing for them.
const RETRIES: usize = 2;

/// The message of a call to the runtime.
#[derive(Clone)]
pub struct Outgoing {
    framed: Bytes,
    /// The client's own bytes, for which its `grpc-encoding` holds.
    as_received: bool,
}

impl Outgoing {
    /// The client's own bytes: the message with its prefix, compressed or not.
    pub(crate) fn as_received(framed: Bytes) -> Self {
        Self {
            framed,
            as_received: true,
        }
    }

    /// A message of ours, sent uncompressed.
    ///
    /// # Errors
    /// [`UpstreamError::RequestTooLarge`] above 4 GiB.
    pub fn message(message: &[u8]) -> Result<Self, UpstreamError> {
        Ok(Self {
            framed: grpc::frame(message).ok_or(UpstreamError::RequestTooLarge)?,
            as_received: false,
        })
    }
}

/// The runtime's whole answer to a call, or one of ours, ready to be sent to the client byte for byte.
#[derive(Clone)]
pub struct UnaryReply {
    /// 200 unless something is odd.
    http_status: StatusCode,
    /// The header block. Of a trailers-only answer it has the gRPC status.
    pub(crate) headers: HeaderMap,
    /// The body: messages with their prefixes.
    pub(crate) body: Bytes,
    /// The trailer block; `None` in a trailers-only answer.
    pub(crate) trailers: Option<HeaderMap>,
    status: Status,
}

impl UnaryReply {
    /// An answer of ours without a message: trailers-only.
    pub fn from_status(status: &Status) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        status.write_to(&mut headers);
        Self {
            http_status: StatusCode::OK,
            headers,
            body: Bytes::new(),
            trailers: None,
            status: status.clone(),
        }
    }

    /// An answer of ours with one message.
    pub(crate) fn from_message(message: &[u8]) -> Self {
        let Some(body) = grpc::frame(message) else {
            let status = Status::new(Code::RESOURCE_EXHAUSTED, "the answer is too large");
            return Self::from_status(&status);
        };
        let status = Status::new(Code::OK, "");
        let mut trailers = HeaderMap::new();
        status.write_to(&mut trailers);
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc+json"),
        );
        Self {
            http_status: StatusCode::OK,
            headers,
            body,
            trailers: Some(trailers),
            status,
        }
    }

    fn new(head: http::response::Parts, body: Bytes, trailers: Option<HeaderMap>) -> Self {
        let last_block = trailers.as_ref().unwrap_or(&head.headers);
        let status = Status::from_headers(last_block).unwrap_or_else(|| {
            if head.status == StatusCode::OK {
                Status::new(
                    Code::INTERNAL,
                    "the container runtime closed the stream without a status",
                )
            } else {
                let message = format!("the container runtime answered HTTP {}", head.status);
                Status::new(Code::from_http(head.status), message)
            }
        });
        Self {
            http_status: head.status,
            headers: head.headers,
            body,
            trailers,
            status,
        }
    }

    /// How the call ended.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// The message of the answer, decompressed.
    ///
    /// # Errors
    /// Any [`FrameError`], [`FrameError::Empty`] for an answer without a message among them.
    pub fn message(&self) -> Result<Bytes, FrameError> {
        grpc::single_message(&self.body, &self.headers)
    }

    /// Replaces each message of the answer by what `edit` makes of it. An answer that can't be read stays
    /// as it is.
    pub(crate) fn map_messages<E>(&mut self, edit: impl Fn(&[u8]) -> Result<Vec<u8>, E>) {
        let mut out = BytesMut::with_capacity(self.body.len() + 1024);
        let mut rest = self.body.clone();
        while !rest.is_empty() {
            let length = Message::length(&rest).filter(|length| *length <= rest.len());
            let Some(length) = length else { return };
            let message = Message::parse(&rest.split_to(length));
            let decoded = message.and_then(|message| message.decode(&self.headers));
            let edited = decoded.ok().and_then(|message| edit(&message).ok());
            let Some(framed) = edited.and_then(|message| grpc::frame(&message)) else {
                return;
            };
            out.extend_from_slice(&framed);
        }
        self.body = out.freeze();
        self.headers.remove(CONTENT_LENGTH);
    }

    /// Sends it to the client.
    ///
    /// # Errors
    /// The client is gone.
    pub(crate) async fn send(self, respond: &mut SendResponse<Bytes>) -> Result<(), h2::Error> {
        let mut head = Response::new(());
        *head.status_mut() = self.http_status;
        *head.headers_mut() = self.headers;
        let headers_only = self.body.is_empty() && self.trailers.is_none();
        let mut to = respond.send_response(head, headers_only)?;
        if headers_only {
            return Ok(());
        }
        if !self.body.is_empty() {
            flow::send(&mut to, self.body, self.trailers.is_none()).await?;
        }
        match self.trailers {
            Some(trailers) => to.send_trailers(trailers),
            None => Ok(()),
        }
    }

    /// Appends a line to the status message, and to the one inside the status details. Does nothing
    /// to an answer in which the runtime gave no status.
    pub fn append_line(&mut self, line: &str) {
        let last_block = self.trailers.as_mut().unwrap_or(&mut self.headers);
        grpc::append_line(last_block, line);
        if let Some(status) = Status::from_headers(last_block) {
            self.status = status;
        }
    }
}

impl Upstream {
    /// Sends a call with one message and waits for the whole answer. A call that the runtime
    /// certainly did not carry out (it was shutting down) is sent again.
    ///
    /// # Errors
    /// Any [`UpstreamError`]. A gRPC status other than OK is an answer, not an error.
    pub async fn unary(
        &self,
        head: &CallHead,
        message: &Outgoing,
    ) -> Result<UnaryReply, UpstreamError> {
        let mut retries = RETRIES;
        loop {
            match self.unary_once(head, message).await {
                Err(error @ UpstreamError::Http2 { .. })
                    if retries > 0 && error.was_not_processed() =>
                {
                    retries -= 1;
                }
                result => return result,
            }
        }
    }

    async fn unary_once(
        &self,
        head: &CallHead,
        message: &Outgoing,
    ) -> Result<UnaryReply, UpstreamError> {
        let mut metadata = head.metadata_now().ok_or(UpstreamError::DeadlineExceeded)?;
        if !message.as_received {
            metadata.remove(GRPC_ENCODING);
            metadata.remove(CONTENT_LENGTH);
        }
        let (response, mut sending) = self
            .open(Method::POST, head.path.clone(), metadata, false)
            .await?;
        // A runtime that refuses the message says why in its answer, so that a failure to send
        // it is no reason not to look.
        let sent = flow::send_first(&mut sending, message.framed.clone(), true);
        let answer = async {
            let (head, mut body) = response.await?.into_parts();
            let bytes = match collect(&mut body, MAX_ANSWER).await? {
                Some(bytes) => bytes,
                None => return Ok(None),
            };
            let trailers = poll_fn(|cx| body.poll_trailers(cx)).await?;
            Ok(Some(UnaryReply::new(head, bytes, trailers)))
        };
        match flow::drive(sent, answer).await {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(UpstreamError::AnswerTooLarge { limit: MAX_ANSWER }),
            Err(error) => Err(self.http2_error(error)),
        }
    }
}

/// The body as one piece; `None` when it is longer than `limit`.
async fn collect(body: &mut RecvStream, limit: usize) -> Result<Option<Bytes>, h2::Error> {
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(chunk) = poll_fn(|cx| body.poll_data(cx)).await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        if first.is_empty() && joined.is_empty() {
            // Nearly always the only one: no copy is made of it.
            first = chunk;
            continue;
        }
        if joined.is_empty() {
            joined.extend_from_slice(&first);
        }
        if joined.len() + chunk.len() > limit {
            return Ok(None);
        }
        joined.extend_from_slice(&chunk);
    }
    Ok(Some(if joined.is_empty() {
        first
    } else {
        joined.freeze()
    }))
}
