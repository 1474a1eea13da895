//! What counts as a manifest. Pure: headers and body in, verdict out.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use sha2::{Digest, Sha256};

use crate::outcome::{Cause, ExchangeError};
use policy::text::one_line;

/// `Accept` of every manifest request: OCI and Docker manifests and indexes
/// (OCI image spec, "media types"; Docker image manifest v2 schema 2).
pub(super) const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// Longest manifest that is read: what the distribution specification asks registries to take.
pub(super) const MAX_MANIFEST: usize = 4 * 1024 * 1024;

/// A manifest that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where the registry named it or the body was read.
    pub(super) digest: Option<String>,
    /// One line for the trail.
    pub(super) detail: String,
}

const CONTENT_DIGEST: &str = "docker-content-digest";

/// Whether a registry that answered HEAD so is asked again by GET. 405 is what containerd repeats
/// with GET; 501 and 400 come from gateways that know no HEAD. 404 is believed: containerd resolves
/// by HEAD too, so what a registry hides from HEAD the runtime can't pull either.
pub(super) fn refuses_head(status: u16) -> bool {
    matches!(status, 400 | 405 | 501)
}

/// Verdict on a 200. `body` is there where the manifest was fetched by GET; `wanted` is the digest
/// that was asked for, if it was not a tag.
///
/// # Errors
/// [`Cause::Protocol`]: whatever was answered, it is not the manifest that was asked for.
pub(super) fn judge_found(
    headers: &HeaderMap,
    body: Option<&[u8]>,
    wanted: Option<&str>,
) -> Result<Found, ExchangeError> {
    let protocol = |detail: String| {
        Err(ExchangeError::image_failed(
            Cause::Protocol,
            Some(200),
            detail,
        ))
    };
    if let Some(other) = foreign_type(headers) {
        return protocol(format!(
            "answered 200 with {}, not a manifest; is this a registry?",
            one_line(&other, 80)
        ));
    }
    if let Some(body) = body
        && body.trim_ascii_start().first() != Some(&b'{')
    {
        return protocol(
            "answered 200 with a body that is no manifest; is this a registry?".into(),
        );
    }
    let named = headers
        .get(CONTENT_DIGEST)
        .and_then(|value| value.to_str().ok())
        .filter(|text| is_digest(text))
        .map(str::to_owned);
    let computed = body.map(|body| format!("sha256:{:x}", Sha256::digest(body)));
    if let Some(wanted) = wanted {
        // The computed one first: a header is a claim, a body is a fact.
        for found in [&computed, &named].into_iter().flatten() {
            if algorithm(found) == algorithm(wanted) && found != wanted {
                return protocol(format!(
                    "asked for {} and answered with {}: another image, or content that was changed on the way",
                    short(wanted),
                    short(found)
                ));
            }
        }
    }
    let digest = wanted.map(str::to_owned).or(computed).or(named);
    let detail = match &digest {
        Some(digest) => format!("200, {}", short(digest)),
        None => "200".to_owned(),
    };
    Ok(Found { digest, detail })
}

/// The content type, if it says that this is something else than a manifest. None at all is fine,
/// and so is what object stores and proxies put in its place.
fn foreign_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?;
    let text = String::from_utf8_lossy(value.as_bytes());
    let essence = text
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let known = essence.is_empty()
        || essence == "application/json"
        || essence.ends_with("+json")
        || essence == "application/octet-stream"
        || essence == "binary/octet-stream"
        // Schema 1 is `+prettyjws`: old, but the runtime's to refuse.
        || essence.starts_with("application/vnd.docker.distribution.manifest.");
    (!known).then_some(essence)
}

/// Whether text is a digest of the two registered algorithms (OCI image spec, "digests").
fn is_digest(text: &str) -> bool {
    let hex = match text.split_once(':') {
        Some(("sha256", hex)) if hex.len() == 64 => hex,
        Some(("sha512", hex)) if hex.len() == 128 => hex,
        _ => return false,
    };
    hex.bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

fn algorithm(digest: &str) -> &str {
    digest.split(':').next().unwrap_or_default()
}

/// Enough of a digest to recognise it in a log line.
fn short(digest: &str) -> String {
    one_line(digest, "sha256:".len() + 12)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    const HEX: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect()
    }

    fn cause(verdict: Result<Found, ExchangeError>) -> Option<Cause> {
        verdict.unwrap_err().cause()
    }

    #[test]
    fn content_types() {
        for (value, found) in [
            ("application/vnd.oci.image.manifest.v1+json", true),
            (
                "application/vnd.oci.image.index.v1+json; charset=utf-8",
                true,
            ),
            ("Application/JSON", true),
            ("application/vnd.docker.distribution.manifest.v2+json", true),
            (
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
                true,
            ),
            ("application/octet-stream", true),
            ("binary/octet-stream", true),
            ("", true),
            ("text/html; charset=utf-8", false),
            ("text/plain", false),
            ("image/png", false),
        ] {
            let verdict = judge_found(&headers(&[("content-type", value)]), None, None);
            assert_eq!(verdict.is_ok(), found, "{value}: {verdict:?}");
        }
        let verdict = judge_found(&headers(&[("content-type", "text/html")]), None, None);
        assert_eq!(
            verdict.unwrap_err().detail,
            "answered 200 with text/html, not a manifest; is this a registry?"
        );
    }

    #[test]
    fn digests_are_kept_when_well_formed() {
        let good = format!("sha256:{HEX}");
        for (value, kept) in [
            (good.as_str(), true),
            ("sha256:abc", false),
            (&good.to_uppercase(), false),
            ("md5:abc", false),
            ("", false),
        ] {
            let verdict = judge_found(&headers(&[("docker-content-digest", value)]), None, None);
            let digest = kept.then(|| value.to_owned());
            assert_eq!(verdict.unwrap().digest, digest, "{value}");
        }
    }

    #[test]
    fn another_digest_than_asked_for_is_no_answer() {
        let good = format!("sha256:{HEX}");
        let other = format!("sha256:{}", HEX.replace('a', "b"));
        let named = headers(&[("docker-content-digest", &good)]);
        assert!(judge_found(&named, None, Some(&good)).is_ok());
        let verdict = judge_found(&named, None, Some(&other));
        assert_eq!(cause(verdict), Some(Cause::Protocol));
        // The body counts even where the header claims the right digest.
        let verdict = judge_found(&named, Some(b"{}"), Some(&good));
        assert_eq!(cause(verdict), Some(Cause::Protocol));
        let empty = format!("sha256:{:x}", Sha256::digest(b"{}"));
        assert!(judge_found(&HeaderMap::new(), Some(b"{}"), Some(&empty)).is_ok());
    }

    #[test]
    fn a_body_that_is_no_json_object_is_no_manifest() {
        let verdict = judge_found(&HeaderMap::new(), Some(b"<html>"), None);
        assert_eq!(cause(verdict), Some(Cause::Protocol));
        let verdict = judge_found(&HeaderMap::new(), Some(b""), None);
        assert_eq!(cause(verdict), Some(Cause::Protocol));
    }
}
