//! Headers of requests and answers: what a content is, conditions, who asks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    AUTHORIZATION, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE, VIA, WARNING,
};
use policy::Credentials;

use super::reply::DIGEST;
use crate::digest::Digest;

/// Caches that a request may have come through.
pub(super) const MAX_VIA: usize = 16;

/// The headers that say what a content is.
pub(super) fn describe(headers: &mut HeaderMap, digest: &Digest) {
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

pub(super) fn warn(headers: &mut HeaderMap, warning: Option<&str>) {
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
pub(super) fn matches(headers: &HeaderMap, digest: &Digest) -> bool {
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
pub(super) fn wanted_range<'h>(headers: &'h HeaderMap, digest: &Digest) -> Option<&'h str> {
    if let Some(condition) = headers.get(IF_RANGE)
        && condition.as_bytes() != etag(digest).as_bytes()
    {
        return None;
    }
    headers.get(RANGE)?.to_str().ok()
}

/// The names in `Via`, as they stand.
pub(super) fn via(headers: &HeaderMap) -> Vec<String> {
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
pub(super) fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    Credentials::from_pair(&text)
}

pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let value = percent_encoding::percent_decode_str(value);
        (key == name).then(|| value.decode_utf8_lossy().into_owned())
    })
}

pub(super) fn without_ns(query: &str) -> String {
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| !pair.starts_with("ns="))
        .collect();
    kept.join("&")
}
