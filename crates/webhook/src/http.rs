//! Which request gets which answer.

use std::time::Duration;

use ::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::admit::Admission;
use crate::server::Limits;

/// What an API server waits where it doesn't say (`timeoutSeconds`, default 10; ours says 5).
const DEFAULT_PATIENCE: Duration = Duration::from_secs(5);
/// What is kept back of the API server's patience for the answer's way.
const MARGIN: Duration = Duration::from_millis(500);
/// Unit of the memory that bodies share, so that the semaphore's count fits in 32 bits.
const KIB: usize = 1024;

/// Bytes that may be in memory as bodies at one time, over all connections.
#[derive(Debug)]
pub(crate) struct BodyBudget(Semaphore);

impl BodyBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Semaphore::new(bytes.div_ceil(KIB)))
    }
}

/// Answers one request on the HTTPS listener.
pub(crate) async fn answer(
    admission: &Admission,
    limits: &Limits,
    budget: &BodyBudget,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    if request.uri().path() != "/mutate" {
        return plain(StatusCode::NOT_FOUND, "the webhook answers POST /mutate");
    }
    if request.method() != Method::POST {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview");
        let post = HeaderValue::from_static("POST");
        response.headers_mut().insert(header::ALLOW, post);
        return response;
    }
    let deadline = Instant::now() + patience(request.uri().query(), limits.patience);
    let body = request.into_body();
    let announced = body.size_hint().upper();
    let size = announced.map_or(limits.body, |size| {
        usize::try_from(size).unwrap_or(usize::MAX)
    });
    if size > limits.body {
        return too_large(limits);
    }
    let share = u32::try_from(size.div_ceil(KIB)).unwrap_or(u32::MAX);
    let Ok(Ok(_share)) = timeout_at(deadline, budget.0.acquire_many(share)).await else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "too many reviews at once");
    };
    let read = Limited::new(body, limits.body).collect();
    let bytes = match timeout_at(deadline, read).await {
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the body didn't come in time"),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return too_large(limits),
        Ok(Err(_)) => return plain(StatusCode::BAD_REQUEST, "the body broke off"),
        Ok(Ok(collected)) => collected.to_bytes(),
    };
    let answered = admission.review(&bytes, deadline).await;
    match answered.map(|response| response.to_json()) {
        Ok(Ok(json)) => {
            let mut response = Response::new(Full::new(Bytes::from(json)));
            let kind = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Ok(Err(error)) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Err(error) => plain(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

/// How long the answer may take: what the API server says in `?timeout=10s`, less a margin, and at most
/// `most`.
fn patience(query: Option<&str>, most: Duration) -> Duration {
    let told = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .filter_map(|pair| pair.strip_prefix("timeout="))
        .find_map(|value| policy::duration::parse(value).ok());
    let told = told.unwrap_or(DEFAULT_PATIENCE);
    told.saturating_sub(MARGIN.min(told / 4)).min(most)
}

fn too_large(limits: &Limits) -> Response<Full<Bytes>> {
    let message = format!("the body is larger than {} bytes", limits.body);
    plain(StatusCode::PAYLOAD_TOO_LARGE, &message)
}

pub(crate) fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_servers_patience_less_a_margin() {
        let most = Duration::from_secs(25);
        for (query, expected) in [
            (None, 4_500),
            (Some("timeout=10s"), 9_500),
            (Some("timeout=1s"), 750),
            (Some("a=b&timeout=2s"), 1_500),
            (Some("timeout=10m"), 25_000),
            (Some("timeout=soon"), 4_500),
        ] {
            assert_eq!(patience(query, most), Duration::from_millis(expected));
        }
    }
}
