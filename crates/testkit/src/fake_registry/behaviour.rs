//! What a fake registry does in the place of a good answer.

use std::future::pending;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::unauthorized;
use crate::server::{Body, HangUp, full};

/// What to do with a request, once it was let in.
#[derive(Clone, Debug, Default)]
pub enum Behaviour {
    /// What a good registry does.
    #[default]
    Serve,
    /// This status, with a JSON error body as the distribution specification wants it.
    Status(StatusCode),
    /// This status, with a page of HTML, as from a proxy in between.
    Html(StatusCode),
    /// 429, with this `Retry-After` (seconds or a date) if there is one.
    RateLimited {
        /// The header's value.
        retry_after: Option<String>,
    },
    /// 401 with this `WWW-Authenticate`, whatever credentials came.
    Challenge(String),
    /// 307 to this URL.
    Redirect(String),
    /// 307 to the URL that was asked for.
    RedirectLoop,
    /// 405 for HEAD; good answers to GET.
    HeadRefused,
    /// Reads the request and never answers.
    BlackHole,
    /// Reads the request and closes the connection.
    HangUp,
    /// 200 with a body that breaks off before its announced end. (HEAD: only its headers.)
    Truncated,
    /// 200 with a body that has no end. (HEAD: only its headers.)
    Endless,
    /// 200 with a page of HTML, as from a captive portal.
    CaptivePortal,
    /// 200 with a body that breaks off its flow after a few bytes, without ending. (HEAD: only its
    /// headers.)
    Stalled,
    /// Exactly this, with these headers beside those that HTTP adds.
    Answer {
        /// The status.
        status: StatusCode,
        /// Names and values.
        headers: Vec<(&'static str, String)>,
        /// The body; a HEAD is told its length.
        body: Bytes,
    },
    /// A good answer, after this long.
    Slow(Duration),
    /// A good answer without its `Docker-Content-Digest` header.
    WithoutDigest,
}

/// The answer that a behaviour gives instead of a good one; `None` where it is to be good.
pub(crate) async fn misbehave<B>(
    behaviour: &Behaviour,
    request: &Request<B>,
) -> Result<Option<Response<Body>>, HangUp> {
    let response = match behaviour {
        Behaviour::Serve | Behaviour::WithoutDigest => return Ok(None),
        Behaviour::Slow(delay) => {
            tokio::time::sleep(*delay).await;
            return Ok(None);
        }
        Behaviour::HeadRefused if *request.method() != Method::HEAD => return Ok(None),
        Behaviour::HeadRefused => {
            let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
            let get = HeaderValue::from_static("GET");
            response.headers_mut().insert(ALLOW, get);
            response
        }
        Behaviour::Status(status) => error(*status, "UNKNOWN"),
        Behaviour::Html(status) => page(*status),
        Behaviour::CaptivePortal => page(StatusCode::OK),
        Behaviour::RateLimited { retry_after } => {
            let mut response = error(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS");
            if let Some(value) = retry_after {
                let value = HeaderValue::from_str(value).map_err(|_| HangUp)?;
                response.headers_mut().insert(RETRY_AFTER, value);
            }
            response
        }
        Behaviour::Challenge(challenge) => unauthorized(challenge),
        Behaviour::Redirect(url) => redirect(url)?,
        // A relative reference is allowed in Location (RFC 9110, section 10.2.2).
        Behaviour::RedirectLoop => redirect(&request.uri().to_string())?,
        Behaviour::BlackHole => pending().await,
        Behaviour::HangUp => return Err(HangUp),
        Behaviour::Truncated => truncated(),
        Behaviour::Endless => endless(),
        Behaviour::Stalled => stalled(),
        Behaviour::Answer {
            status,
            headers,
            body,
        } => {
            let mut response = Response::new(full(body.clone()));
            *response.status_mut() = *status;
            for (name, value) in headers {
                let value = HeaderValue::from_str(value).map_err(|_| HangUp)?;
                response.headers_mut().append(*name, value);
            }
            response
        }
    };
    Ok(Some(response))
}

/// An error response with a body as the distribution specification wants it.
pub(crate) fn error(status: StatusCode, code: &str) -> Response<Body> {
    let body = serde_json::json!({"errors": [{"code": code, "message": "from the fake registry"}]});
    answer(status, "application/json", full(body.to_string()))
}

fn page(status: StatusCode) -> Response<Body> {
    let page = "<!DOCTYPE html><html><body><h1>Not what you asked for</h1></body></html>";
    answer(status, "text/html; charset=utf-8", full(page))
}

fn redirect(url: &str) -> Result<Response<Body>, HangUp> {
    let mut response = answer(StatusCode::TEMPORARY_REDIRECT, "text/plain", full(""));
    let url = HeaderValue::from_str(url).map_err(|_| HangUp)?;
    response.headers_mut().insert(LOCATION, url);
    Ok(response)
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn truncated() -> Response<Body> {
    let start = Bytes::from_static(b"{\"schemaVersion\": 2, \"conf");
    let broken = stream::once(async {
        // Only when the body makes it wait does the server write out what it has.
        tokio::task::yield_now().await;
        Err(io::Error::other("broken off on purpose").into())
    });
    let body = stream::iter([Ok(Frame::data(start))]).chain(broken);
    let body = StreamBody::new(body).boxed_unsync();
    let mut response = answer(StatusCode::OK, MANIFEST, body);
    let length = HeaderValue::from_static("10000");
    response.headers_mut().insert(CONTENT_LENGTH, length);
    response
}

fn stalled() -> Response<Body> {
    let start = stream::once(async { Ok(Frame::data(Bytes::from_static(b"{\"schema"))) });
    let body = StreamBody::new(start.chain(stream::pending())).boxed_unsync();
    let mut response = answer(StatusCode::OK, MANIFEST, body);
    let length = HeaderValue::from_static("10000");
    response.headers_mut().insert(CONTENT_LENGTH, length);
    response
}

fn endless() -> Response<Body> {
    let chunk = Bytes::from(vec![b' '; 64 * 1024]);
    let body = stream::repeat(chunk).map(|chunk| Ok(Frame::data(chunk)));
    answer(
        StatusCode::OK,
        MANIFEST,
        StreamBody::new(body).boxed_unsync(),
    )
}

fn answer(status: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let media_type = HeaderValue::from_static(media_type);
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}
