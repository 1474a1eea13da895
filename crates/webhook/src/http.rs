//! Which request gets which answer.

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use listener::memory::{BodyError, NoRoom, collect};
use listener::reply::{text, typed};
use listener::{Connection, Memory};
use tokio::time::{Instant, timeout_at};

use crate::admit::Admission;
use crate::limits::Limits;

/// How long an API server waits where it doesn't say (`timeoutSeconds`, default 10; ours says 5).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// What is kept back of the API server's time for the answer's way.
const MARGIN: Duration = Duration::from_millis(500);

/// Answers requests on the HTTPS listener.
pub(crate) struct Reviews {
    pub(crate) admission: Admission,
    pub(crate) limits: Limits,
    pub(crate) memory: Arc<Memory>,
}

impl Reviews {
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != "/mutate" {
            return text(StatusCode::NOT_FOUND, "the webhook answers POST /mutate");
        }
        if request.method() != Method::POST {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview");
            let post = HeaderValue::from_static("POST");
            response.headers_mut().insert(header::ALLOW, post);
            return response;
        }
        let Some(connection) = request.extensions().get::<Arc<Connection>>().cloned() else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "no connection");
        };
        self.review(request, &connection)
            .await
            .unwrap_or_else(|r| r)
    }

    /// The answer to a POST; an error is an answer too.
    async fn review(
        &self,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> Result<Response<Full<Bytes>>, Response<Full<Bytes>>> {
        let now = Instant::now();
        let deadline = now + time_for(request.uri().query(), self.limits.answer_timeout);
        let until = deadline.min(now + self.limits.body_timeout);
        let mut share = self.memory.share();
        let body = collect(request.into_body(), self.limits.body, &mut share);
        let body = match timeout_at(until, body).await {
            Ok(body) => body.map_err(|error| refused(&error))?,
            Err(_) => {
                let message = "the body didn't come in time";
                return Err(text(StatusCode::REQUEST_TIMEOUT, message));
            }
        };
        share.keep();
        let answered = self.admission.review(&body, deadline).await;
        drop(body);
        drop(share);
        let response = answered.map_err(|e| text(StatusCode::BAD_REQUEST, &e.to_string()))?;
        let json = response
            .to_json()
            .map_err(|e| text(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()))?;
        // Who doesn't read his answers fills no memory with them.
        let mut share = self.memory.share();
        let room = timeout_at(deadline, share.grow(json.len())).await;
        if !matches!(room, Ok(Ok(()))) {
            return Err(refused(&NoRoom.into()));
        }
        Ok(typed(share.hold(json, connection), "application/json"))
    }
}

fn refused(error: &BodyError) -> Response<Full<Bytes>> {
    let status = match error {
        BodyError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        BodyError::Broken => StatusCode::BAD_REQUEST,
        BodyError::NoRoom(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    text(status, &error.to_string())
}

/// How long the answer may take: what the API server says in `?timeout=10s`, less a margin, and at most
/// `most`.
fn time_for(query: Option<&str>, most: Duration) -> Duration {
    let told = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .filter_map(|pair| pair.strip_prefix("timeout="))
        .find_map(|value| policy::duration::parse(value).ok());
    let told = told.unwrap_or(DEFAULT_TIMEOUT);
    told.saturating_sub(MARGIN.min(told / 4)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_servers_time_less_a_margin() {
        let most = Duration::from_secs(25);
        for (query, expected) in [
            (None, 4_500),
            (Some("timeout=10s"), 9_500),
            (Some("timeout=1s"), 750),
            (Some("a=b&timeout=2s"), 1_500),
            (Some("timeout=10m"), 25_000),
            (Some("timeout=soon"), 4_500),
        ] {
            assert_eq!(time_for(query, most), Duration::from_millis(expected));
        }
    }
}
