//! Answers with a blob: whole or in parts, from the store or while it arrives.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};

use super::headers::{describe, matches, wanted_range};
use super::reply::{Body, empty, error, full, refusal};
use super::{Api, range, reply};
use crate::digest::Digest;
use crate::pull_through::{State, Transfer, Wanted, read_along_while_it_is_quick, read_file};
use crate::service::{BlobAnswer, RequestKind, RequestOutcome, Who};
use crate::store::ByteStream;

/// How long a part from the middle waits for its first byte before its headers are sent all the same.
const PART_TIMEOUT: Duration = Duration::from_secs(20);
const BLOB_TYPE: &str = "application/octet-stream";
const BOUNDARY: &str = "image-cri-shim-part-of-a-blob";

impl Api {
    pub(super) async fn blob_head(
        &self,
        parts: &Parts,
        who: &Who,
        digest: &Digest,
    ) -> Response<Body> {
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

    pub(super) async fn blob(&self, parts: &Parts, who: &Who, digest: &Digest) -> Response<Body> {
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
            BlobAnswer::Growing {
                transfer,
                total,
                own,
            } => self.growing(digest, range, (transfer, own), total).await,
        }
    }

    /// A blob that is still arriving.
    async fn growing(
        &self,
        digest: &Digest,
        range: Option<&str>,
        (transfer, own): (Arc<Transfer>, Option<Arc<Wanted>>),
        mut total: Option<u64>,
    ) -> Response<Body> {
        let Some(range) = range else {
            let body = self.counted(read_along_while_it_is_quick(transfer, own, 0, None));
            return blob_response(StatusCode::OK, digest, total, body);
        };
        if total.is_none() {
            // Without a length a part can't be described: it is known at the end at the latest.
            let _ = tokio::time::timeout(PART_TIMEOUT, transfer.finished()).await;
            total = transfer.watch().borrow().total;
        }
        let Some(length) = total else {
            let body = self.counted(read_along_while_it_is_quick(transfer, own, 0, None));
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
                let body = self.counted(read_along_while_it_is_quick(transfer, own, start, to));
                part_response(digest, start, end, length, body)
            }
            // Several parts are for what is complete.
            _ => {
                let body = self.counted(read_along_while_it_is_quick(transfer, own, 0, None));
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
        "SIZE_INVALID",
        "the blob is shorter than that",
    );
    if let Ok(range) = HeaderValue::from_str(&format!("bytes */{total}")) {
        response.headers_mut().insert(CONTENT_RANGE, range);
    }
    response
}
