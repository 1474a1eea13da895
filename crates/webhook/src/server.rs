//! The HTTPS listener for API servers.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::service::service_fn;
use listener::{Memory, Options, Protocols, Tls};
use tokio::net::TcpListener;

use crate::admit::Admission;
use crate::caller::{Callers, Strangers};
use crate::http::Reviews;
use crate::limits::Limits;

/// Serves reviews until `shutdown` ends, then lets those in flight finish.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<Tls>,
    admission: Admission,
    callers: Callers,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let options = Options {
        purpose: "reviews",
        protocols: Protocols::Http1AndHttp2,
        tls: Some(tls),
        limits: limits.connections,
    };
    let reviews = Arc::new(Reviews {
        admission,
        callers,
        strangers: Strangers::default(),
        memory: Memory::new(limits.bodies),
        limits,
    });
    let service = service_fn(move |request| {
        let reviews = Arc::clone(&reviews);
        async move { Ok::<_, Infallible>(reviews.answer(request).await) }
    });
    listener::serve(vec![listener], options, service, shutdown).await;
}
