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
use telemetry::metrics::Reviewed;
use tokio::time::{Instant, timeout_at};

use crate::admit::{Admission, ReviewBody};
use crate::caller::{Callers, Strangers};
use crate::limits::Limits;
use crate::review::ReviewError;

/// How long an API server waits where it doesn't say (`timeoutSeconds`, default 10; ours says 5).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// What is kept back of the API server's time for the answer's way.
const REPLY_MARGIN: Duration = Duration::from_millis(500);

type Reply = Response<Full<Bytes>>;

/// Answers requests on the HTTPS listener.
pub(crate) struct Reviews {
    pub(crate) admission: Admission,
    pub(crate) callers: Callers,
    pub(crate) strangers: Strangers,
    pub(crate) limits: Limits,
    pub(crate) memory: Arc<Memory>,
}

impl Reviews {
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Reply {
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
        let began = Instant::now();
        match self.read(request).await {
            Ok((body, deadline)) => self.review(body, deadline, &connection).await,
            Err(refused) => {
                self.admission.count(refused.result, began);
                refused.reply
            }
        }
    }

    /// The body of a POST, and until when it is to be answered; or why there is none.
    async fn read(&self, request: Request<Incoming>) -> Result<(ReviewBody, Instant), Refused> {
        let now = Instant::now();
        let deadline = now + time_for(request.uri().query(), self.limits.answer_timeout);
        let until = deadline.min(now + self.limits.body_timeout);
        let mut share = self.memory.share();
        let body = collect(request.into_body(), self.limits.body, &mut share);
        let bytes = match timeout_at(until, body).await {
            Ok(body) => body.map_err(|error| Refused::of(&error))?,
            Err(_) => {
                let message = "the body didn't come in time";
                return Err(Refused {
                    result: Reviewed::Late,
                    reply: text(StatusCode::REQUEST_TIMEOUT, message),
                });
            }
        };
        share.keep();
        Ok((ReviewBody { bytes, share }, deadline))
    }

    async fn review(
        &self,
        body: ReviewBody,
        deadline: Instant,
        connection: &Arc<Connection>,
    ) -> Reply {
        let (caller, unfit) = self.callers.of(connection);
        if let Some(why) = unfit {
            self.strangers.report(connection.peer(), &why);
            self.admission.certificate_refused();
        }
        let json = match self.admission.review(body, caller, deadline).await {
            Ok(response) => response.to_json(),
            Err(error @ ReviewError::Busy) => {
                return text(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
            }
            Err(error) => return text(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let json = match json {
            Ok(json) => json,
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        };
        // Who doesn't read his answers fills no memory with them.
        let mut share = self.memory.share();
        match timeout_at(deadline, share.grow(json.len())).await {
            Ok(Ok(())) => typed(share.hold(json, connection), "application/json"),
            Ok(Err(_)) | Err(_) => Refused::of(&NoRoom.into()).reply,
        }
    }
}

/// A review that is not read.
struct Refused {
    result: Reviewed,
    reply: Reply,
}

impl Refused {
    fn of(error: &BodyError) -> Self {
        let (result, status) = match error {
            BodyError::TooLarge(_) => (Reviewed::TooLarge, StatusCode::PAYLOAD_TOO_LARGE),
            // As by an API server that doesn't wait any longer.
            BodyError::Broken => (Reviewed::Late, StatusCode::BAD_REQUEST),
            BodyError::NoRoom(_) => (Reviewed::Busy, StatusCode::SERVICE_UNAVAILABLE),
        };
        let reply = text(status, &error.to_string());
        Self { result, reply }
    }
}

/// How long the answer may take: what the API server says in `?timeout=10s`, less a margin, and at most
/// `most`.
fn time_for(query: Option<&str>, most: Duration) -> Duration {
    let given = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .filter_map(|pair| pair.strip_prefix("timeout="))
        .find_map(|value| policy::duration::parse(value).ok());
    let given = given.unwrap_or(DEFAULT_TIMEOUT);
    given.saturating_sub(REPLY_MARGIN.min(given / 4)).min(most)
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
