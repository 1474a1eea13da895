//! Short answers in plain text.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

/// An answer that is one line of text.
pub fn text(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    let mut response = typed(format!("{line}\n").into(), "text/plain; charset=utf-8");
    *response.status_mut() = status;
    response
}

/// `200` with a body of this type.
pub fn typed(body: Bytes, content_type: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
