//! The HTTP side: the pull category of the OCI distribution specification.
//!
//! | module | what it knows |
//! |---|---|
//! | `gate` | who may ask |
//! | `route` | paths |
//! | `headers`, `range` | what a request says beside its path, and what an answer says beside its content |
//! | `blobs` | blobs: whole, in parts, while they arrive |
//! | `reply` | answers and errors |

mod blobs;
mod gate;
mod headers;
mod range;
mod reply;
mod route;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{ALLOW, HeaderName, HeaderValue, LINK};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use listener::Connection;
use parking_lot::RwLock;

pub use self::gate::Gate;
use self::headers::{MAX_VIA, credentials, describe, matches, parameter, via, warn, without_ns};
pub(crate) use self::range::parts;
pub use self::reply::Body;
use self::reply::{empty, error, full, json, refusal};
use self::route::{NoRoute, Route};
use crate::name::Repository;
use crate::service::{Cache, ListAnswer, Manifest, Refusal, RequestKind, RequestOutcome, Who};
use crate::upstream::{Failure, Failures, List};

/// Clients wait this long for headers (containerd: 30 s); ours come before.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(28);

/// The host by which `ns` has scoped a request.
const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Answers requests. Clones are the same service.
#[derive(Clone, Debug)]
pub struct Api {
    cache: Cache,
    gate: Arc<RwLock<Gate>>,
    /// What this cache is called in `Via`.
    instance: Arc<str>,
}

impl Api {
    /// A service over a cache.
    pub fn new(cache: Cache, gate: Gate, instance: &str) -> Self {
        Self {
            cache,
            gate: Arc::new(RwLock::new(gate)),
            instance: instance.into(),
        }
    }

    /// Changes names and who may ask.
    pub fn set_gate(&self, gate: Gate) {
        *self.gate.write() = gate;
    }

    /// Answers one request. What the client sends as a body is not read.
    ///
    /// # Errors
    /// None.
    pub async fn handle<B>(&self, request: Request<B>) -> Result<Response<Body>, Infallible> {
        let (parts, _) = request.into_parts();
        let answered = tokio::time::timeout(HEADERS_TIMEOUT, self.answer(&parts)).await;
        let mut response = answered.unwrap_or_else(|_| {
            let silent = Failure::Silent("no answer in time".to_owned());
            let failures = Failures(vec![("upstream".to_owned(), silent)]);
            refusal(&Refusal::Unreachable(failures), "manifest")
        });
        if parts.method == Method::HEAD {
            *response.body_mut() = full(Bytes::new());
        }
        Ok(response)
    }

    async fn answer(&self, parts: &Parts) -> Response<Body> {
        let peer = parts.extensions.get::<Arc<Connection>>();
        let peer = peer.map(|connection| connection.peer().ip());
        let gate = self.gate.read().clone();
        if let Err((status, why)) = gate.check(parts, peer) {
            return error(status, "DENIED", &why);
        }
        let via = via(&parts.headers);
        if via.iter().any(|name| **name == *self.instance) || via.len() > MAX_VIA {
            let why = "this request has come through this cache already";
            return error(StatusCode::LOOP_DETECTED, "UNAVAILABLE", why);
        }
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            let why = "this is a cache: it can be pulled from only";
            let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", why);
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allowed);
            return response;
        }
        let route = match route::parse(parts.uri.path()) {
            Ok(route) => route,
            Err(NoRoute::Unknown) => {
                let why = "no such path; this is an OCI registry, at /v2/";
                return error(StatusCode::NOT_FOUND, "UNSUPPORTED", why);
            }
            Err(NoRoute::Digest) => {
                let why = "not a digest; write sha256: and 64 lower-case hex digits";
                return error(StatusCode::BAD_REQUEST, "DIGEST_INVALID", why);
            }
            Err(NoRoute::Tag) => {
                return error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "not a tag");
            }
        };
        let name = match &route {
            Route::Root => {
                return json(
                    StatusCode::OK,
                    Bytes::from_static(b"{}"),
                    "application/json",
                );
            }
            Route::Tag { name, .. }
            | Route::Manifest { name, .. }
            | Route::Blob { name, .. }
            | Route::Tags { name }
            | Route::Referrers { name, .. } => name,
        };
        let query = parts.uri.query();
        let ns = query.and_then(|query| parameter(query, "ns"));
        let upstream = self.cache.upstream();
        let repository = Repository::from_request(
            name,
            ns.as_deref(),
            |ns| gate.is_own(ns),
            |host| upstream.is_configured(host),
        );
        let repository = match repository {
            Ok(repository) => repository,
            Err(wrong) => {
                return error(StatusCode::BAD_REQUEST, "NAME_INVALID", &wrong.to_string());
            }
        };
        let who = Who {
            repository,
            credentials: credentials(&parts.headers),
            via: via.into(),
        };
        let mut response = self.route(parts, &route, name, &who).await;
        let scope = ns.filter(|ns| !ns.is_empty() && !gate.is_own(ns));
        if let Some(Ok(scope)) = scope.as_deref().map(HeaderValue::from_str) {
            response.headers_mut().insert(NAMESPACE, scope);
        }
        response
    }

    async fn route(&self, parts: &Parts, route: &Route, name: &str, who: &Who) -> Response<Body> {
        match route {
            Route::Root => empty(StatusCode::OK),
            Route::Tag { tag, .. } => {
                let answer = self.cache.manifest_by_tag(who, tag).await;
                self.manifest(parts, answer)
            }
            Route::Manifest { digest, .. } => {
                let answer = self.cache.manifest_by_digest(who, digest).await;
                self.manifest(parts, answer)
            }
            Route::Blob { digest, .. } if parts.method == Method::HEAD => {
                self.blob_head(parts, who, digest).await
            }
            Route::Blob { digest, .. } => self.blob(parts, who, digest).await,
            Route::Tags { .. } => self.list(parts, name, who, &List::Tags).await,
            Route::Referrers { digest, .. } => {
                let list = List::Referrers(digest.clone());
                self.list(parts, name, who, &list).await
            }
        }
    }

    fn count(&self, kind: RequestKind, outcome: RequestOutcome) {
        self.cache.counters().request(kind, outcome);
    }

    fn manifest(&self, parts: &Parts, answer: Result<Manifest, Refusal>) -> Response<Body> {
        let manifest = match answer {
            Ok(manifest) => manifest,
            Err(why) => {
                self.count(RequestKind::Manifest, RequestOutcome::Error);
                return refusal(&why, "manifest");
            }
        };
        let outcome = match (&manifest.warning, manifest.is_hit) {
            (Some(_), _) => RequestOutcome::Stale,
            (None, true) => RequestOutcome::Hit,
            (None, false) => RequestOutcome::Miss,
        };
        self.count(RequestKind::Manifest, outcome);
        let mut response = if matches(&parts.headers, &manifest.digest) {
            empty(StatusCode::NOT_MODIFIED)
        } else {
            if parts.method == Method::GET {
                self.cache.counters().sent(manifest.content.len() as u64);
            }
            json(StatusCode::OK, manifest.content, &manifest.media_type)
        };
        describe(response.headers_mut(), &manifest.digest);
        warn(response.headers_mut(), manifest.warning.as_deref());
        response
    }

    async fn list(&self, parts: &Parts, name: &str, who: &Who, list: &List) -> Response<Body> {
        let query: Option<String> = parts.uri.query().map(without_ns);
        let query = query.as_deref().filter(|query| !query.is_empty());
        let answer = match self.cache.list(who, list, name, query).await {
            Ok(answer) => answer,
            Err(why) => {
                self.count(RequestKind::List, RequestOutcome::Error);
                return refusal(&why, "list");
            }
        };
        let ListAnswer {
            content,
            media_type,
            next,
            filters,
            warning,
        } = answer;
        let outcome = match warning {
            Some(_) => RequestOutcome::Stale,
            None => RequestOutcome::Miss,
        };
        self.count(RequestKind::List, outcome);
        let mut response = json(StatusCode::OK, content, &media_type);
        let headers = response.headers_mut();
        if let Some(next) = next {
            let ns = parts.uri.query().and_then(|query| parameter(query, "ns"));
            let ns = ns.map_or_else(String::new, |ns| format!("&ns={ns}"));
            let what = match list {
                List::Tags => "tags/list".to_owned(),
                List::Referrers(digest) => format!("referrers/{digest}"),
            };
            let link = format!("</v2/{name}/{what}?{next}{ns}>; rel=\"next\"");
            if let Ok(link) = HeaderValue::from_str(&link) {
                headers.insert(LINK, link);
            }
        }
        if let Some(Ok(filters)) = filters.as_deref().map(HeaderValue::from_str) {
            headers.insert(FILTERS_APPLIED, filters);
        }
        warn(headers, warning.as_deref());
        response
    }
}

impl Api {
    /// The service for a listener.
    pub fn service(
        &self,
    ) -> impl hyper::service::Service<
        Request<hyper::body::Incoming>,
        Response = Response<Body>,
        Error = Infallible,
        Future = impl Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    > + Clone
    + Send
    + 'static {
        let api = self.clone();
        hyper::service::service_fn(move |request| {
            let api = api.clone();
            async move { api.handle(request).await }.boxed()
        })
    }
}
