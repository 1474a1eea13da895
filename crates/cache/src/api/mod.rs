//! The HTTP side: the pull category of the OCI distribution specification.

mod gate;
mod range;
mod reply;
mod route;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::header::{
    ACCEPT_RANGES, ALLOW, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderValue, IF_NONE_MATCH, IF_RANGE, LINK, RANGE, VIA, WARNING,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use listener::Connection;
use parking_lot::RwLock;
use policy::Credentials;

pub use self::gate::Gate;
pub use self::reply::Body;
use self::reply::{DIGEST, empty, error, full, json, refusal};
use self::route::{NoRoute, Route};
use crate::digest::Digest;
use crate::name::Repository;
use crate::pull_through::{State, Transfer, read_along, read_file};
use crate::service::{
    BlobAnswer, Cache, ListAnswer, Manifest, Refusal, RequestKind, RequestOutcome, Who,
};
use crate::store::ByteStream;
use crate::upstream::{Failure, Failures, List};

/// Clients wait this long for headers (containerd: 30 s); ours come before.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(28);
/// How long a part from the middle waits for its first byte before its headers are sent all the same.
const PART_TIMEOUT: Duration = Duration::from_secs(20);
/// Caches that a request may have come through.
const MAX_VIA: usize = 16;
const BLOB_TYPE: &str = "application/octet-stream";
const BOUNDARY: &str = "image-cri-shim-part-of-a-blob";

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
                return error(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", "not a tag");
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
        self.route(parts, &route, name, &who).await
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
            self.cache.counters().sent(manifest.content.len() as u64);
            json(StatusCode::OK, manifest.content, &manifest.media_type)
        };
        describe(response.headers_mut(), &manifest.digest);
        warn(response.headers_mut(), manifest.warning.as_deref());
        response
    }

    async fn list(&self, parts: &Parts, name: &str, who: &Who, list: &List) -> Response<Body> {
        let query: Option<String> = parts.uri.query().map(without_ns);
        let query = query.as_deref().filter(|query| !query.is_empty());
        let answer = match self.cache.list(who, list, query).await {
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
            headers.insert("oci-filters-applied", filters);
        }
        warn(headers, warning.as_deref());
        response
    }

    async fn blob_head(&self, parts: &Parts, who: &Who, digest: &Digest) -> Response<Body> {
        match self.cache.blob_size(who, digest).await {
            Ok(_) if matches(&parts.headers, digest) => {
                let mut response = empty(StatusCode::NOT_MODIFIED);
                describe(response.headers_mut(), digest);
                response
            }
            Ok(size) => blob_response(StatusCode::OK, digest, size, full(Bytes::new())),
            Err(why) => {
                self.count(RequestKind::Blob, RequestOutcome::Error);
                refusal(&why, "blob")
            }
        }
    }

    async fn blob(&self, parts: &Parts, who: &Who, digest: &Digest) -> Response<Body> {
        let answer = match self.cache.blob(who, digest).await {
            Ok(answer) => answer,
            Err(why) => {
                self.count(RequestKind::Blob, RequestOutcome::Error);
                return refusal(&why, "blob");
            }
        };
        let outcome = match answer {
            BlobAnswer::Whole { .. } => RequestOutcome::Hit,
            BlobAnswer::Growing { .. } => RequestOutcome::Miss,
        };
        self.count(RequestKind::Blob, outcome);
        if matches(&parts.headers, digest) {
            let mut response = empty(StatusCode::NOT_MODIFIED);
            describe(response.headers_mut(), digest);
            return response;
        }
        let range = wanted_range(&parts.headers, digest);
        match answer {
            BlobAnswer::Whole { file, length } => {
                let wanted = range.map_or(range::Wanted::All, |range| range::parse(range, length));
                match wanted {
                    range::Wanted::All => {
                        let body = self.counted(read_file(file, 0, length));
                        blob_response(StatusCode::OK, digest, Some(length), body)
                    }
                    range::Wanted::Unsatisfiable => unsatisfiable(length),
                    range::Wanted::Parts(parts) => match parts.as_slice() {
                        [(start, end)] => {
                            let body = self.counted(read_file(file, *start, *end));
                            part_response(digest, *start, *end, length, body)
                        }
                        _ => self.multipart(digest, &file, &parts, length),
                    },
                }
            }
            BlobAnswer::Growing { transfer, total } => {
                self.growing(digest, range, transfer, total).await
            }
        }
    }

    /// A blob that is still arriving.
    async fn growing(
        &self,
        digest: &Digest,
        range: Option<&str>,
        transfer: Arc<Transfer>,
        mut total: Option<u64>,
    ) -> Response<Body> {
        let Some(range) = range else {
            let body = self.counted(read_along(transfer, 0, None));
            return blob_response(StatusCode::OK, digest, total, body);
        };
        if total.is_none() {
            // Without a length a part can't be described: it is known at the end at the latest.
            let _ = tokio::time::timeout(PART_TIMEOUT, transfer.finished()).await;
            total = transfer.watch().borrow().total;
        }
        let Some(length) = total else {
            let body = self.counted(read_along(transfer, 0, None));
            return blob_response(StatusCode::OK, digest, None, body);
        };
        match range::parse(range, length) {
            range::Wanted::Unsatisfiable => unsatisfiable(length),
            range::Wanted::Parts(parts) if parts.len() == 1 => {
                let (start, end) = parts.first().copied().unwrap_or((0, length));
                let mut progress = transfer.watch();
                let there = progress.wait_for(|progress| {
                    progress.ranges.reach(start) > start
                        || !matches!(progress.state, State::Opening | State::Arriving)
                });
                // The headers are sent in any case; the bytes follow.
                let _ = tokio::time::timeout(PART_TIMEOUT, there).await;
                let to = (end < length).then_some(end);
                let body = self.counted(read_along(transfer, start, to));
                part_response(digest, start, end, length, body)
            }
            // Several parts are for what is complete.
            _ => {
                let body = self.counted(read_along(transfer, 0, None));
                blob_response(StatusCode::OK, digest, Some(length), body)
            }
        }
    }

    fn multipart(
        &self,
        digest: &Digest,
        file: &std::fs::File,
        parts: &[(u64, u64)],
        total: u64,
    ) -> Response<Body> {
        let mut pieces: Vec<ByteStream> = Vec::new();
        let mut length = 0;
        let mut add = |text: String| {
            length += text.len() as u64;
            stream::once(async move { Ok(Bytes::from(text)) }).boxed()
        };
        let mut content = 0;
        for &(start, end) in parts {
            let Ok(file) = file.try_clone() else {
                return error(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "UNAVAILABLE",
                    "the cache has no file descriptor left",
                );
            };
            pieces.push(add(format!(
                "\r\n--{BOUNDARY}\r\nContent-Type: {BLOB_TYPE}\r\nContent-Range: bytes {start}-{}/{total}\r\n\r\n",
                end - 1
            )));
            pieces.push(read_file(file, start, end));
            content += end - start;
        }
        pieces.push(add(format!("\r\n--{BOUNDARY}--\r\n")));
        let body = self.counted(stream::iter(pieces).flatten().boxed());
        let whole = Some(length + content);
        let mut response = blob_response(StatusCode::PARTIAL_CONTENT, digest, whole, body);
        if let Ok(value) =
            HeaderValue::from_str(&format!("multipart/byteranges; boundary={BOUNDARY}"))
        {
            response.headers_mut().insert(CONTENT_TYPE, value);
        }
        response
    }

    fn counted(&self, bytes: ByteStream) -> Body {
        let cache = self.cache.clone();
        let counted = bytes.inspect(move |bytes| match bytes {
            Ok(bytes) => cache.counters().sent(bytes.len() as u64),
            Err(error) => tracing::debug!("an answer broke off: {error}"),
        });
        reply::stream(counted.boxed())
    }
}

fn blob_response(
    status: StatusCode,
    digest: &Digest,
    length: Option<u64>,
    body: Body,
) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(BLOB_TYPE));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    describe(headers, digest);
    response
}

fn part_response(digest: &Digest, start: u64, end: u64, total: u64, body: Body) -> Response<Body> {
    let mut response = blob_response(StatusCode::PARTIAL_CONTENT, digest, Some(end - start), body);
    let range = format!("bytes {start}-{}/{total}", end.saturating_sub(1));
    if let Ok(range) = HeaderValue::from_str(&range) {
        response.headers_mut().insert(CONTENT_RANGE, range);
    }
    response
}

fn unsatisfiable(total: u64) -> Response<Body> {
    let mut response = error(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "RANGE_INVALID",
        "the blob is shorter than that",
    );
    if let Ok(range) = HeaderValue::from_str(&format!("bytes */{total}")) {
        response.headers_mut().insert(CONTENT_RANGE, range);
    }
    response
}

/// The headers that say what a content is.
fn describe(headers: &mut HeaderMap, digest: &Digest) {
    if let Ok(value) = HeaderValue::from_str(digest.as_str()) {
        headers.insert(DIGEST, value);
    }
    if let Ok(value) = HeaderValue::from_str(&etag(digest)) {
        headers.insert(ETAG, value);
    }
}

fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

fn warn(headers: &mut HeaderMap, warning: Option<&str>) {
    let Some(warning) = warning else {
        return;
    };
    // A cache above us has written the whole header; ours is its text.
    let text = match warning.starts_with("299 ") || warning.starts_with("110 ") {
        true => warning.to_owned(),
        false => format!("299 - \"{warning}\""),
    };
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(WARNING, value);
    }
}

/// Whether `If-None-Match` names this content.
fn matches(headers: &HeaderMap, digest: &Digest) -> bool {
    let ours = etag(digest);
    headers.get_all(IF_NONE_MATCH).iter().any(|value| {
        let text = value.to_str().unwrap_or_default();
        text.split(',').map(str::trim).any(|tag| {
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            tag == "*" || tag == ours || tag == digest.as_str()
        })
    })
}

/// The `Range` header, unless `If-Range` says that it is for another content.
fn wanted_range<'h>(headers: &'h HeaderMap, digest: &Digest) -> Option<&'h str> {
    if let Some(condition) = headers.get(IF_RANGE)
        && condition.as_bytes() != etag(digest).as_bytes()
    {
        return None;
    }
    headers.get(RANGE)?.to_str().ok()
}

/// The names in `Via`, as they stand.
fn via(headers: &HeaderMap) -> Vec<String> {
    let mut names = Vec::new();
    for value in headers.get_all(VIA) {
        for hop in value.to_str().unwrap_or_default().split(',') {
            let name = hop.split_whitespace().nth(1);
            names.extend(name.map(|name| policy::text::one_line(name, 128)));
        }
    }
    names.truncate(MAX_VIA + 1);
    names
}

/// What the client sent to prove who it is, where that is Basic.
fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    Credentials::from_pair(&text)
}

fn parameter(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let value = percent_encoding::percent_decode_str(value);
        (key == name).then(|| value.decode_utf8_lossy().into_owned())
    })
}

fn without_ns(query: &str) -> String {
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| !pair.starts_with("ns="))
        .collect();
    kept.join("&")
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
