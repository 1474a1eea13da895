//! `/healthz`, `/readyz` and `/metrics`, on a plain listener of their own: a kubelet must be able to ask before
//! there is a certificate.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use listener::certificate::Store;
use listener::reply::text;
use listener::{Options, Protocols};
use telemetry::exposition;
use tokio::net::TcpListener;

use crate::admit::Admission;

/// Gives all metrics as OpenMetrics text.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What readiness depends on.
#[derive(Clone)]
pub struct Readiness {
    /// Has it a config?
    pub admission: Admission,
    /// Has it a certificate that is valid now?
    pub certificates: Arc<Store>,
    /// Whatever else: the CA is published, and no shutdown has begun. The text says what is missing.
    pub other: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").finish_non_exhaustive()
    }
}

impl Readiness {
    /// Whether reviews can be answered.
    ///
    /// # Errors
    /// What is missing, for people.
    pub fn check(&self) -> Result<(), String> {
        if !self.admission.is_configured() {
            return Err("there is no valid config yet".to_owned());
        }
        self.certificates.check().map_err(|e| e.to_string())?;
        (self.other)()
    }
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, readiness: Readiness, metrics: Metrics) {
    let options = Options::new("health and metrics", Protocols::Http1);
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(&request, &readiness, &metrics);
        async { Ok::<_, Infallible>(answer) }
    });
    listener::serve(vec![listener], options, service, std::future::pending()).await;
}

fn answer<B>(
    request: &Request<B>,
    readiness: &Readiness,
    metrics: &Metrics,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "GET /healthz, /readyz or /metrics",
        );
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok"),
        "/readyz" => match readiness.check() {
            Ok(()) => text(StatusCode::OK, "ok"),
            Err(missing) => text(StatusCode::SERVICE_UNAVAILABLE, &missing),
        },
        "/metrics" => exposition::answer(request.headers(), metrics()),
        _ => text(
            StatusCode::NOT_FOUND,
            "there is /healthz, /readyz and /metrics",
        ),
    }
}
