//! `/healthz` and `/readyz`: a Pod is ready when its node has what is wanted, so that the DaemonSet's count of
//! ready Pods says how far the cluster is.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use listener::reply::text;
use listener::{Options, Protocols};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::progress::Progress;

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, progress: watch::Receiver<Progress>) {
    let options = Options::new("health", Protocols::Http1);
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), &progress.borrow());
        async { Ok::<_, Infallible>(answer) }
    });
    listener::serve(vec![listener], options, service, std::future::pending()).await;
}

fn answer(method: &Method, path: &str, progress: &Progress) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET /healthz or /readyz");
    }
    match path {
        "/healthz" => text(StatusCode::OK, "ok"),
        "/readyz" if progress.is_done() => text(StatusCode::OK, "ok"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, &progress.to_string()),
        _ => text(StatusCode::NOT_FOUND, "there are /healthz and /readyz"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_waits_is_alive_and_not_ready() {
        let ask = |path, progress: &Progress| answer(&Method::GET, path, progress).status();
        for progress in [Progress::Looking, Progress::Working, Progress::Done] {
            assert_eq!(ask("/healthz", &progress), StatusCode::OK);
        }
        assert_eq!(
            ask("/readyz", &Progress::Working),
            StatusCode::SERVICE_UNAVAILABLE
        );
        assert_eq!(ask("/readyz", &Progress::Done), StatusCode::OK);
        assert_eq!(ask("/", &Progress::Done), StatusCode::NOT_FOUND);
        let post = answer(&Method::POST, "/readyz", &Progress::Done);
        assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
