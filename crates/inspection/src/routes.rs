//! Which request gets which answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::ALLOW;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use listener::reply::{text, typed};
use serde::Serialize;
use telemetry::exposition;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::Inspected;
use crate::headers;
use crate::host::HostCheck;

/// How long an answer may take to be made.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers of `/api/` in memory at one time: with all that is kept in it, one is about a megabyte, and a
/// client may take its time to read it.
const MAX_HELD_REPLIES: usize = 16;

/// What there is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Route {
    Page,
    Metrics,
    Health,
    Ready,
    Status,
    History,
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Page,
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Health,
            "/readyz" => Self::Ready,
            "/api/status" => Self::Status,
            "/api/history" => Self::History,
            _ => return None,
        })
    }

    /// Whether anybody may have it who can connect, by whatever name he calls us.
    fn is_open(self) -> bool {
        matches!(self, Self::Metrics | Self::Health | Self::Ready)
    }

    fn is_api(self) -> bool {
        matches!(self, Self::Status | Self::History)
    }
}

type Reply = Response<Full<Bytes>>;

/// Answers requests.
pub(crate) struct Routes {
    host_check: HostCheck,
    source: Arc<dyn Inspected>,
    answers: Arc<Semaphore>,
}

impl Routes {
    /// For a listener at `address`.
    pub(crate) fn new(address: Option<SocketAddr>, source: Arc<dyn Inspected>) -> Self {
        Self {
            host_check: HostCheck::new(address),
            source,
            answers: Arc::new(Semaphore::new(MAX_HELD_REPLIES)),
        }
    }

    /// The answer to `request`, whose body is not looked at.
    pub(crate) async fn answer<B>(&self, request: Request<B>) -> Reply {
        let (request, _) = request.into_parts();
        let making = self.make(&request);
        let mut answer = timeout(ANSWER_TIMEOUT, making).await.unwrap_or_else(|_| {
            let message = format!("there was no answer within {ANSWER_TIMEOUT:?}; ask again");
            text(StatusCode::SERVICE_UNAVAILABLE, &message)
        });
        headers::add(answer.headers_mut());
        answer
    }

    async fn make(&self, request: &Parts) -> Reply {
        let Some(route) = Route::of(request.uri.path()) else {
            return text(
                StatusCode::NOT_FOUND,
                "there is /, /metrics, /healthz, /readyz, /api/status and /api/history?image=…",
            );
        };
        if !matches!(request.method, Method::GET | Method::HEAD) {
            let message = "nothing can be changed here; GET and HEAD are answered";
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, message);
            let allowed = HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(ALLOW, allowed);
            return answer;
        }
        if let Err((status, advice)) = self.host_check.check(request, route.is_open()) {
            return text(status, &advice);
        }
        if route.is_api() && is_from_another_site(request) {
            let message = "this is for the page of this listener, and not for pages of other sites";
            return text(StatusCode::FORBIDDEN, message);
        }
        match route {
            Route::Page => typed(
                Bytes::from_static(headers::PAGE.as_bytes()),
                "text/html; charset=utf-8",
            ),
            Route::Metrics => exposition::answer(&request.headers, self.source.metrics().await),
            Route::Health => text(StatusCode::OK, "ok"),
            Route::Ready => match self.source.ready().await {
                Ok(()) => text(StatusCode::OK, "ok"),
                Err(missing) => text(StatusCode::SERVICE_UNAVAILABLE, &missing),
            },
            Route::Status => {
                let share = self.share().await;
                json(&self.source.status().await, share)
            }
            Route::History => {
                let share = self.share().await;
                let image = image(request.uri.query());
                json(&self.source.history(image.as_deref()), share)
            }
        }
    }

    /// A place in memory; waited for at most as long as an answer is.
    async fn share(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.answers).acquire_owned().await.ok()
    }
}

/// What a browser says of a request that another site's page, or one of another port of this machine,
/// has made. What is no browser says nothing.
fn is_from_another_site(request: &Parts) -> bool {
    let site = request.headers.get("sec-fetch-site");
    site.is_some_and(|site| site != "same-origin" && site != "none")
}

/// The image of `?image=…`; an empty one is none.
fn image(query: Option<&str>) -> Option<String> {
    let query = query.unwrap_or_default().as_bytes();
    url::form_urlencoded::parse(query)
        .find(|(name, value)| name == "image" && !value.is_empty())
        .map(|(_, value)| value.into_owned())
}

/// An answer's body, and its place in memory.
struct Held {
    json: Vec<u8>,
    _share: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

fn json(value: &impl Serialize, _share: Option<OwnedSemaphorePermit>) -> Reply {
    match serde_json::to_vec(value) {
        Ok(json) => typed(Bytes::from_owner(Held { json, _share }), "application/json"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_of_a_query() {
        for (query, expected) in [
            (None, None),
            (Some("image="), None),
            (Some("images=x"), None),
            (Some("a=b&image=nginx%3A1.27"), Some("nginx:1.27")),
            (Some("image=a%2Fb%40sha256:0"), Some("a/b@sha256:0")),
        ] {
            assert_eq!(image(query).as_deref(), expected, "{query:?}");
        }
    }
}
