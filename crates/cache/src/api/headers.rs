//! Headers of requests and answers: what a content is, conditions, who asks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    AUTHORIZATION, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE, VIA, WARNING,
};
use policy::Credentials;

use super::reply::DIGEST;
use crate::digest::Digest;

/// Longest text of a warning. All warnings of an answer may have 4096 bytes, and each character may need two.
const MAX_WARNING: usize = 1024;
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

/// Writes a warning as the distribution specification wants it: code 299, no agent, no date. One of a
/// cache above us is passed on by its text.
pub(super) fn warn(headers: &mut HeaderMap, warning: Option<&str>) {
    let Some(warning) = warning else {
        return;
    };
    let text = quoted_text(warning).unwrap_or_else(|| warning.to_owned());
    let mut value = String::from("299 - \"");
    for c in policy::text::one_line(&text, MAX_WARNING).chars() {
        match c {
            '"' | '\\' => value.extend(['\\', c]),
            c if c.is_ascii() => value.push(c),
            _ => value.push('?'),
        }
    }
    value.push('"');
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(WARNING, value);
    }
}

/// The text of a whole `Warning` header: `CODE AGENT "TEXT" ["DATE"]`.
fn quoted_text(header: &str) -> Option<String> {
    let (code, rest) = header.split_once(' ')?;
    let (_, quoted) = rest.split_once(" \"")?;
    if code.len() != 3 || !code.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (mut text, mut chars) = (String::new(), quoted.chars());
    loop {
        match chars.next()? {
            '"' => return Some(text),
            '\\' => text.push(chars.next()?),
            c => text.push(c),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_as_the_specification_wants_them() {
        for (warning, expected) in [
            ("no answer", r#"299 - "no answer""#),
            (r#"299 - "stale""#, r#"299 - "stale""#),
            (
                r#"110 a.b:1 "stale" "Sun, 06 Nov 1994 08:49:37 GMT""#,
                r#"299 - "stale""#,
            ),
            (r#"299 - "a \"b\" \\""#, r#"299 - "a \"b\" \\""#),
            (r#"a "b" \"#, r#"299 - "a \"b\" \\""#),
            ("299 - \"no end", r#"299 - "299 - \"no end""#),
            ("größer", r#"299 - "gr??er""#),
        ] {
            let mut headers = HeaderMap::new();
            warn(&mut headers, Some(warning));
            assert_eq!(headers[WARNING], expected, "{warning}");
        }
        let mut headers = HeaderMap::new();
        warn(&mut headers, Some(&"\"ä".repeat(5000)));
        assert!(headers[WARNING].len() <= 4096);
        warn(&mut headers, None);
        assert_eq!(headers.len(), 1);
    }
}
