//! Answers: bodies, and errors as the distribution specification has them.

use std::io;

use bytes::Bytes;
use http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::json;

use futures_util::StreamExt;

use crate::service::Refusal;
use crate::store::ByteStream;

/// The body of every answer. An error in it closes the connection.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// `Docker-Content-Digest`.
pub(super) const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// When to come back, where nobody said.
const RETRY_SECONDS: u64 = 5;

/// A body of these bytes.
pub(super) fn full(content: Bytes) -> Body {
    Full::new(content)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body that arrives.
pub(super) fn stream(stream: ByteStream) -> Body {
    StreamBody::new(stream.map(|bytes| bytes.map(Frame::data))).boxed_unsync()
}

/// An empty answer with a status.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// JSON.
pub(super) fn json(status: StatusCode, content: Bytes, media_type: &str) -> Response<Body> {
    let length = content.len();
    let mut response = Response::new(full(content));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(media_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response
}

/// An error.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let message = policy::text::one_line(message, 2000);
    let content = json!({"errors": [{"code": code, "message": message}]});
    json(status, content.to_string().into(), "application/json")
}

/// What `what` ("manifest", "blob", "list") is refused with.
pub(super) fn refusal(refusal: &Refusal, what: &str) -> Response<Body> {
    let unknown = match what {
        "manifest" => "MANIFEST_UNKNOWN",
        "blob" => "BLOB_UNKNOWN",
        _ => "NAME_UNKNOWN",
    };
    let (status, code) = match refusal {
        Refusal::NotFound(_) => (StatusCode::NOT_FOUND, unknown),
        Refusal::Unauthorized(_) => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
        Refusal::RateLimited(_, _) => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
        Refusal::Wrong(_) => (StatusCode::BAD_GATEWAY, "UNAVAILABLE"),
        Refusal::Unreachable(_) => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        Refusal::Denied => (StatusCode::FORBIDDEN, "DENIED"),
    };
    let mut response = error(status, code, &refusal.to_string());
    let headers = response.headers_mut();
    match refusal {
        Refusal::Unauthorized(_) => {
            // Basic, so that the runtime sends the pod's own secret.
            let challenge = HeaderValue::from_static(r#"Basic realm="image-cri-shim cache""#);
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        Refusal::RateLimited(wait, _) => {
            let seconds = wait.map_or(RETRY_SECONDS, |wait| wait.as_secs().max(1));
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        Refusal::Unreachable(_) => {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
        }
        _ => {}
    }
    response
}
