//! A small typed CRI client over a unix socket, for tests and for the bench.
//!
//! One HTTP/2 connection, multiplexed; it is made at the first call and again after it was lost. A
//! call that fails is not tried again: tests want to see what happened.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use crate::cri_api::{
    AuthConfig, Empty, Image, ImageFilter, ImageSpec, ImageStatusRequest, ImageStatusResponse,
    ListImagesRequest, ListImagesResponse, PullImageRequest, PullImageResponse, RemoveImageRequest,
    RpcStatus, VersionRequest, VersionResponse,
};

/// Base64 of `-bin` metadata: gRPC allows it with and without padding.
const METADATA_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Which version of the CRI a client speaks; both have the same messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApiVersion {
    /// `runtime.v1`, what kubelets since 1.23 speak.
    #[default]
    V1,
    /// `runtime.v1alpha2`, which containerd serves up to 1.7.
    V1Alpha2,
}

impl ApiVersion {
    /// The protobuf package: `runtime.v1` or `runtime.v1alpha2`.
    #[must_use]
    pub fn package(self) -> &'static str {
        match self {
            Self::V1 => "runtime.v1",
            Self::V1Alpha2 => "runtime.v1alpha2",
        }
    }
}

/// A gRPC status other than OK.
#[derive(Clone, PartialEq)]
pub struct GrpcStatus {
    /// The code, as in `grpc-status` (5 is NOT_FOUND, 14 UNAVAILABLE).
    pub code: i32,
    /// The message, percent-decoded.
    pub message: String,
    /// What `grpc-status-details-bin` held, if it was there and could be read.
    pub details: Option<RpcStatus>,
}

impl fmt::Debug for GrpcStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grpc-status {}: {}", self.code, self.message)
    }
}

/// Why a call gave no answer.
#[derive(Clone, Debug, PartialEq)]
pub enum CallError {
    /// The server answered with a status other than OK.
    Status(GrpcStatus),
    /// The socket could not be reached, or the connection or the stream broke before a status came.
    Transport(String),
}

impl CallError {
    /// The gRPC code, or `None` for a transport error.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status().map(|status| status.code)
    }

    /// The gRPC status, or `None` for a transport error.
    #[must_use]
    pub fn status(&self) -> Option<&GrpcStatus> {
        match self {
            Self::Status(status) => Some(status),
            Self::Transport(_) => None,
        }
    }

    /// The message of the status, or what broke.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Status(status) => &status.message,
            Self::Transport(what) => what,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status:?}"),
            Self::Transport(what) => write!(f, "no gRPC answer: {what}"),
        }
    }
}

impl std::error::Error for CallError {}

/// What came back from [`CriClient::unary`] with status OK.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The response headers.
    pub headers: HeaderMap,
    /// The one message, without its frame.
    pub message: Bytes,
    /// The trailers.
    pub trailers: HeaderMap,
}

/// A CRI client. Clones share one connection; any number of calls may run at once.
#[derive(Clone)]
pub struct CriClient {
    socket: Arc<Path>,
    version: ApiVersion,
    resends: bool,
    connection: Arc<Mutex<Option<SendRequest<Full<Bytes>>>>>,
}

impl fmt::Debug for CriClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CriClient")
            .field("socket", &self.socket)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl CriClient {
    /// A client of the socket at `path`, speaking `runtime.v1`. Connects at the first call.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            socket: path.into().into(),
            version: ApiVersion::V1,
            resends: false,
            connection: Arc::default(),
        }
    }

    /// The same connection, with typed calls going to `version`.
    #[must_use]
    pub fn with_version(mut self, version: ApiVersion) -> Self {
        self.version = version;
        self
    }

    /// The same, which sends a call once more on a new connection where the old one has ended before the call was
    /// sent, as kubelet's client does when it is asked to connect anew (GOAWAY). A call that was sent is never
    /// sent again.
    #[must_use]
    pub fn that_connects_anew(mut self) -> Self {
        self.resends = true;
        self
    }

    /// `ImageService.PullImage`; gives the runtime's `image_ref`.
    pub async fn pull(&self, image: &str, auth: Option<AuthConfig>) -> Result<String, CallError> {
        let request = PullImageRequest {
            image: Some(spec(image)),
            auth,
            sandbox_config: None,
        };
        let response: PullImageResponse = self.image_call("PullImage", &request).await?;
        Ok(response.image_ref)
    }

    /// `ImageService.ImageStatus`; `None` when the runtime says that the image is not present.
    pub async fn status(&self, image: &str) -> Result<Option<Image>, CallError> {
        let request = ImageStatusRequest {
            image: Some(spec(image)),
            verbose: false,
        };
        let response: ImageStatusResponse = self.image_call("ImageStatus", &request).await?;
        Ok(response.image)
    }

    /// `ImageService.RemoveImage`.
    pub async fn remove(&self, image: &str) -> Result<(), CallError> {
        let request = RemoveImageRequest {
            image: Some(spec(image)),
        };
        let _: Empty = self.image_call("RemoveImage", &request).await?;
        Ok(())
    }

    /// `ImageService.ListImages` without a filter.
    pub async fn list(&self) -> Result<Vec<Image>, CallError> {
        self.list_filtered(None).await
    }

    /// `ImageService.ListImages`, filtered by an image name when one is given.
    pub async fn list_filtered(&self, image: Option<&str>) -> Result<Vec<Image>, CallError> {
        let request = ListImagesRequest {
            filter: image.map(|image| ImageFilter {
                image: Some(spec(image)),
            }),
        };
        let response: ListImagesResponse = self.image_call("ListImages", &request).await?;
        Ok(response.images)
    }

    /// `RuntimeService.Version`.
    pub async fn version(&self) -> Result<VersionResponse, CallError> {
        let path = self.path("RuntimeService", "Version");
        self.call(&path, &VersionRequest::default()).await
    }

    /// One unary call with a typed message; `path` as in `/runtime.v1.ImageService/ListImages`.
    pub async fn call<Q: Message, A: Message + Default>(
        &self,
        path: &str,
        request: &Q,
    ) -> Result<A, CallError> {
        let reply = self
            .unary(path, request.encode_to_vec().into(), HeaderMap::new())
            .await?;
        A::decode(reply.message)
            .map_err(|error| CallError::Transport(format!("{path}: bad message: {error}")))
    }

    /// One unary call with the bytes of a message (without its frame) and metadata to send along,
    /// such as `grpc-timeout`. Dropping the future cancels the call (RST_STREAM).
    pub async fn unary(
        &self,
        path: &str,
        message: Bytes,
        metadata: HeaderMap,
    ) -> Result<Reply, CallError> {
        let mut reply = self.exchange(path, message, metadata).await?;
        reply.message = unframe(reply.message)
            .map_err(|error| CallError::Transport(format!("{path}: frame: {error}")))?;
        Ok(reply)
    }

    /// One call with one message that is answered with any number of them.
    pub async fn stream(&self, path: &str, message: Bytes) -> Result<Vec<Bytes>, CallError> {
        let reply = self.exchange(path, message, HeaderMap::new()).await?;
        let mut rest = reply.message;
        let mut messages = Vec::new();
        while rest.len() >= 5 {
            let length = rest.slice(1..5).get_u32() as usize;
            if rest.len() < 5 + length {
                return Err(CallError::Transport(format!("{path}: half a message")));
            }
            messages.push(rest.split_to(5 + length).slice(5..));
        }
        Ok(messages)
    }

    /// A call whose answer is read whole; its messages still have their frames.
    async fn exchange(
        &self,
        path: &str,
        message: Bytes,
        metadata: HeaderMap,
    ) -> Result<Reply, CallError> {
        let transport = |what: &str, error: &dyn fmt::Display| {
            CallError::Transport(format!("{path}: {what}: {error}"))
        };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://localhost{path}"))
            .body(Full::new(frame(&message)))
            .map_err(|error| transport("bad request", &error))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.extend(metadata);

        let mut resends = self.resends;
        let response = loop {
            let mut connection = self.connection().await?;
            if let Err(error) = connection.ready().await {
                if std::mem::take(&mut resends) {
                    *self.connection.lock().await = None;
                    continue;
                }
                return Err(transport("connection lost", &error));
            }
            match connection.try_send_request(request).await {
                Ok(response) => break response,
                Err(mut unsent) => match unsent.take_message() {
                    Some(message) if std::mem::take(&mut resends) => {
                        *self.connection.lock().await = None;
                        request = message;
                    }
                    _ => return Err(transport("no response", &unsent.into_error())),
                },
            }
        };
        let (head, body) = response.into_parts();
        if let Some(status) = status_of(&head.headers) {
            // "Trailers-only": the status came in the one and only header block.
            return match status {
                Ok(()) => Err(CallError::Transport(format!("{path}: OK, but no message"))),
                Err(status) => Err(CallError::Status(status)),
            };
        }
        if !head.status.is_success() {
            return Err(transport("HTTP status", &head.status));
        }
        let body = body
            .collect()
            .await
            .map_err(|error| transport("response body", &error))?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        match status_of(&trailers) {
            Some(Ok(())) => {}
            Some(Err(status)) => return Err(CallError::Status(status)),
            None => return Err(transport("trailers", &"there is no grpc-status in them")),
        }
        Ok(Reply {
            headers: head.headers,
            message: body.to_bytes(),
            trailers,
        })
    }

    /// The path of a method in this client's API version: `/runtime.v1.ImageService/PullImage`.
    #[must_use]
    pub fn path(&self, service: &str, method: &str) -> String {
        format!("/{}.{service}/{method}", self.version.package())
    }

    async fn image_call<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        request: &Q,
    ) -> Result<A, CallError> {
        self.call(&self.path("ImageService", method), request).await
    }

    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>, CallError> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let transport = |error: &dyn fmt::Display| {
            CallError::Transport(format!("{}: {error}", self.socket.display()))
        };
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| transport(&error))?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            // The default window of 64 KiB would make a 20 MiB message a matter of round trips.
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| transport(&error))?;
        tokio::spawn(async move {
            // Its end is seen by the calls on it.
            let _ = connection.await;
        });
        *slot = Some(sender.clone());
        Ok(sender)
    }
}

/// Credentials as kubelet sends them: user name and password, empty server address.
#[must_use]
pub fn kubelet_auth(username: &str, password: &str) -> AuthConfig {
    AuthConfig {
        username: username.to_owned(),
        password: password.to_owned(),
        ..AuthConfig::default()
    }
}

fn spec(image: &str) -> ImageSpec {
    ImageSpec {
        image: image.to_owned(),
        annotations: HashMap::new(),
        ..ImageSpec::default()
    }
}

/// Puts a message into an uncompressed gRPC frame: one flag byte, four length bytes, the message.
#[must_use]
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("a test message is below 4 GiB"));
    framed.extend_from_slice(message);
    framed.freeze()
}

fn unframe(mut framed: Bytes) -> Result<Bytes, String> {
    if framed.len() < 5 {
        return Err(format!("only {} bytes", framed.len()));
    }
    let compressed = framed.get_u8();
    let length = framed.get_u32() as usize;
    match (compressed, framed.len() == length) {
        (0, true) => Ok(framed),
        (0, false) => Err(format!("says {length} bytes, has {}", framed.len())),
        (flag, _) => Err(format!(
            "compressed (flag {flag}), but we did not ask for it"
        )),
    }
}

/// The status in a header block, or `None` when there is no `grpc-status` in it.
fn status_of(headers: &HeaderMap) -> Option<Result<(), GrpcStatus>> {
    let code = headers.get("grpc-status")?;
    let code = code.to_str().ok().and_then(|code| code.parse().ok());
    // 2 is UNKNOWN, which the gRPC specification wants for a code that can't be read.
    let code = code.unwrap_or(2);
    if code == 0 {
        return Some(Ok(()));
    }
    let message = headers
        .get("grpc-message")
        .map(|message| percent_encoding::percent_decode(message.as_bytes()).decode_utf8_lossy())
        .unwrap_or_default()
        .into_owned();
    let details = headers
        .get("grpc-status-details-bin")
        .and_then(|details| METADATA_BASE64.decode(details.as_bytes()).ok())
        .and_then(|details| RpcStatus::decode(details.as_slice()).ok());
    Some(Err(GrpcStatus {
        code,
        message,
        details,
    }))
}
