//! `/healthz` and `/readyz`, on a plain listener of their own: a kubelet must be able to ask before
//! there is a certificate.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::admit::Admission;
use crate::certificate::Store;
use crate::http::plain;

/// Connections at one time, and how long one may last: kubelets ask and go.
const CONNECTIONS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(10);

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
pub async fn serve(listener: TcpListener, readiness: Readiness) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let readiness = readiness.clone();
        tokio::spawn(async move {
            // An error is a client that went away, or stayed too long.
            let _ = timeout(PATIENCE, connection(stream, &readiness)).await;
            drop(slot);
        });
    }
}

async fn connection(stream: TcpStream, readiness: &Readiness) -> Result<(), hyper::Error> {
    let service = service_fn(|request: Request<Incoming>| async move {
        Ok::<_, Infallible>(answer(&request, readiness))
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn answer(request: &Request<Incoming>, readiness: &Readiness) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "GET /healthz or /readyz");
    }
    match request.uri().path() {
        "/healthz" => plain(StatusCode::OK, "ok"),
        "/readyz" => match readiness.check() {
            Ok(()) => plain(StatusCode::OK, "ok"),
            Err(missing) => plain(StatusCode::SERVICE_UNAVAILABLE, &missing),
        },
        _ => plain(StatusCode::NOT_FOUND, "there is /healthz and /readyz"),
    }
}
