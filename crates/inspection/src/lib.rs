//! What the daemon shows over plain HTTP at `metricsAddress`: metrics, health, its status as JSON, and
//! a page that shows it to people.
//!
//! | path | what it gives |
//! |---|---|
//! | `/` | the page: one file, nothing from outside |
//! | `/metrics` | OpenMetrics text, or Prometheus' older text for who asks for that |
//! | `/healthz`, `/readyz` | `ok`, or 503 with what is missing |
//! | `/api/status` | [`telemetry::report::Status`] as JSON |
//! | `/api/history?image=…` | [`telemetry::report::Decision`]s as JSON, newest first |
//!
//! | module | what it holds |
//! |---|---|
//! | `routes` | which request gets which answer |
//! | `host` | who may ask, by the name that he asks for |
//! | `headers` | what browsers are told not to allow |
//!
//! It only ever reads. What it shows is for whoever can connect; it is made so that a web page
//! somewhere else, open in a browser that can, doesn't get at it.

mod headers;
mod host;
mod routes;

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use hyper::service::service_fn;
use listener::{Options, Protocols};
use telemetry::report::{Decision, Status};
use tokio::net::TcpListener;

use crate::routes::Routes;

/// What the listener shows.
pub trait Inspected: Send + Sync + 'static {
    /// The daemon's state, with pulls under way and the last decisions.
    fn status(&self) -> BoxFuture<'_, Status>;

    /// Decisions about `image`, or all that are kept; newest first.
    fn history(&self, image: Option<&str>) -> Vec<Decision>;

    /// OpenMetrics text, as [`telemetry::metrics::Metrics::encode`] writes it.
    fn metrics(&self) -> BoxFuture<'_, String>;

    /// Whether calls can be served.
    ///
    /// # Errors
    /// What is missing, for people.
    fn ready(&self) -> BoxFuture<'_, Result<(), String>>;
}

/// Answers until `shutdown` ends; answers under way are then finished. Nothing that comes from outside ends it.
pub async fn serve(
    listener: TcpListener,
    source: Arc<dyn Inspected>,
    shutdown: impl Future<Output = ()>,
) {
    let routes = Arc::new(Routes::new(listener.local_addr().ok(), source));
    let options = Options::new("metrics and status", Protocols::Http1);
    let service = service_fn(move |request| {
        let routes = Arc::clone(&routes);
        async move { Ok::<_, Infallible>(routes.answer(request).await) }
    });
    listener::serve(vec![listener], options, service, shutdown).await;
}
