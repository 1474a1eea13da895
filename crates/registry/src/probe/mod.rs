//! Does this registry have this manifest, and does it live at all?

mod judge;

use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, ACCEPT_ENCODING};
use http::{HeaderMap, HeaderValue, Method};
use tokio::time::Instant;

use self::judge::{Found, judge_found};
use crate::auth::Scope;
use crate::exchange::{Call, Exchange, Shared};
use crate::http::encoding::{IDENTITY, is_not_encoded};
use crate::http::status::{Answerer, refusal};
use crate::http::transport::{Received, drain, read_body};
use crate::manifest::{MANIFEST_TYPES, MAX_MANIFEST, refuses_head};
use crate::outcome::{Cause, ExchangeError, Outcome, Ping, Probe};
use crate::progress::Progress;
use crate::registry::{ApiPath, ManifestName, Registry};

/// Asks one registry for one manifest, within `deadline`.
pub(crate) async fn probe(
    shared: &Shared,
    registry: &Registry,
    name: &ManifestName,
    deadline: Duration,
) -> Probe {
    let started = Instant::now();
    let progress = Progress::new();
    let asked = async {
        let mut exchange = Exchange::begin(shared, registry, &progress, deadline).await?;
        // On the heap from here on: hundreds of probes may wait above, and only a few are here.
        Box::pin(ask(&mut exchange, name)).await
    };
    let found = tokio::time::timeout(deadline, asked)
        .await
        .unwrap_or_else(|_| Err(progress.cut_short(deadline, shared.slots_each)));
    let (outcome, detail) = match found {
        Ok(Found { digest, detail }) => (Outcome::Found { digest }, detail),
        Err(error) => (error.failure.into(), error.detail),
    };
    Probe {
        outcome,
        detail: progress.with_notes(detail),
        elapsed: started.elapsed(),
        requests: progress.requests(),
    }
}

/// HEAD, or GET where HEAD is refused.
async fn ask(exchange: &mut Exchange<'_>, name: &ManifestName) -> Result<Found, ExchangeError> {
    let mut call = Call {
        method: if exchange.known().head_refused {
            Method::GET
        } else {
            Method::HEAD
        },
        path: name.path(),
        headers: HeaderMap::from_iter([
            (ACCEPT, HeaderValue::from_static(MANIFEST_TYPES)),
            (ACCEPT_ENCODING, IDENTITY),
        ]),
        body: None,
        scope: Some(Scope::pull(&name.repository)),
        follow: true,
    };
    let mut received = exchange.send(&call).await?;
    if call.method == Method::HEAD && refuses_head(received.response.status().as_u16()) {
        call.method = Method::GET;
        received = exchange.send(&call).await?;
        // GET made the difference: HEAD need not be tried again.
        if !refuses_head(received.response.status().as_u16()) {
            exchange.learn(|known| known.head_refused = true);
        }
    }
    judge(received, &call.method, name).await
}

async fn judge(
    received: Received,
    method: &Method,
    name: &ManifestName,
) -> Result<Found, ExchangeError> {
    let response = received.response;
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    if status != 200 {
        drain(response).await;
        let answerer = Answerer::of(received.left_origin);
        let mut error = refusal(status, &headers, answerer, SystemTime::now());
        if status == 400 && received.url.scheme() == "http" {
            error.detail.push_str(
                ", to plain HTTP; if this registry speaks TLS, write https:// in its address",
            );
        }
        return Err(error);
    }
    // An encoded answer to HEAD has no body that we would have to read, and the runtime may know how to.
    let body = if *method == Method::HEAD {
        None
    } else {
        is_not_encoded(status, &headers)?;
        let body = read_body(response, MAX_MANIFEST).await?;
        let too_long = || {
            let detail = "answered 200 with more than 4 MiB, which no manifest has";
            ExchangeError::image_failed(Cause::Protocol, Some(200), detail)
        };
        Some(body.ok_or_else(too_long)?)
    };
    judge_found(&headers, body.as_deref(), name.digest())
}

/// Asks `/v2/`, of no image, without credentials, and also when all slots are taken.
pub(crate) async fn ping(shared: &Shared, registry: &Registry, deadline: Duration) -> Ping {
    let started = Instant::now();
    let progress = Progress::new();
    let call = Call {
        method: Method::GET,
        path: ApiPath::root(),
        headers: HeaderMap::new(),
        body: None,
        scope: None,
        follow: false,
    };
    let asked = async {
        let mut exchange = Exchange::unqueued(shared, registry, &progress);
        let received = exchange.send(&call).await?;
        let status = received.response.status().as_u16();
        drain(received.response).await;
        Ok(status)
    };
    let answer: Result<u16, ExchangeError> = tokio::time::timeout(deadline, asked)
        .await
        .unwrap_or_else(|_| Err(progress.cut_short(deadline, shared.slots_each)));
    let (outcome, detail) = match answer {
        Ok(status) if status < 500 => (Ok(()), format!("answers /v2/ with {status}")),
        Ok(status) => (
            Err(Cause::Status(status)),
            format!("answers /v2/ with {status}"),
        ),
        Err(error) => (Err(error.cause().unwrap_or(Cause::Protocol)), error.detail),
    };
    Ping {
        outcome,
        detail: progress.with_notes(detail),
        elapsed: started.elapsed(),
        requests: progress.requests(),
    }
}
