//! What counts as an answer to "do you have this manifest?" Pure: status, headers and body in,
//! verdict out.

use std::time::SystemTime;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use sha2::{Digest, Sha256};

use crate::outcome::{Cause, Outcome, Verdict};
use crate::retry_after::retry_after;
use policy::text::one_line;

/// `Accept` of every manifest request: OCI and Docker manifests and indexes
/// (OCI image spec, "media types"; Docker image manifest v2 schema 2).
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// Longest manifest that is read: what the distribution specification asks registries to take.
pub(crate) const MAX_MANIFEST: usize = 4 * 1024 * 1024;

const CONTENT_DIGEST: &str = "docker-content-digest";

/// Whether a registry that answered HEAD so is asked again by GET. 405 is what containerd repeats
/// with GET; 501 and 400 come from gateways that know no HEAD. 404 is believed: containerd resolves
/// by HEAD too, so what a registry hides from HEAD the runtime can't pull either.
pub(crate) fn refuses_head(status: u16) -> bool {
    matches!(status, 400 | 405 | 501)
}

/// Verdict on any status but 200 and 401: those need more than the headers.
pub(crate) fn judge_status(status: u16, headers: &HeaderMap, now: SystemTime) -> Verdict {
    let retry_after = retry_after(headers, now);
    let wait = retry_after.map_or_else(String::new, |wait| {
        format!(", asks to wait {}s", wait.as_secs())
    });
    match status {
        404 | 410 => Verdict::new(Outcome::NotFound, status.to_string()),
        403 => Verdict::new(Outcome::Unauthorized, "403, access denied"),
        429 => Verdict::new(
            Outcome::RateLimited { retry_after },
            format!("429, too many requests{wait}"),
        ),
        200..=299 => Verdict::unavailable(
            Cause::Protocol,
            format!(
                "answered {status}, which is no answer to a manifest request; is this a registry?"
            ),
        ),
        _ => Verdict::new(
            Outcome::Unavailable {
                cause: Cause::Status(status),
                retry_after,
            },
            format!("{status}{wait}"),
        ),
    }
}

/// Verdict on a 200. `body` is there where the manifest was fetched by GET; `wanted` is the digest
/// that was asked for, if it was not a tag.
pub(crate) fn judge_found(
    headers: &HeaderMap,
    body: Option<&[u8]>,
    wanted: Option<&str>,
) -> Verdict {
    let protocol = |detail: String| Verdict::unavailable(Cause::Protocol, detail);
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
    Verdict::new(Outcome::Found { digest }, detail)
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
    use std::time::Duration;

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

    fn cause(verdict: &Verdict) -> Option<Cause> {
        match verdict.outcome {
            Outcome::Unavailable { cause, .. } => Some(cause),
            _ => None,
        }
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
            let is_found = matches!(verdict.outcome, Outcome::Found { .. });
            assert_eq!(is_found, found, "{value}: {}", verdict.detail);
        }
        let verdict = judge_found(&headers(&[("content-type", "text/html")]), None, None);
        assert_eq!(
            verdict.detail,
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
            assert_eq!(verdict.outcome, Outcome::Found { digest }, "{value}");
        }
    }

    #[test]
    fn another_digest_than_asked_for_is_no_answer() {
        let good = format!("sha256:{HEX}");
        let other = format!("sha256:{}", HEX.replace('a', "b"));
        let named = headers(&[("docker-content-digest", &good)]);
        assert!(matches!(
            judge_found(&named, None, Some(&good)).outcome,
            Outcome::Found { .. }
        ));
        let verdict = judge_found(&named, None, Some(&other));
        assert_eq!(cause(&verdict), Some(Cause::Protocol), "{}", verdict.detail);
        // The body counts even where the header claims the right digest.
        let verdict = judge_found(&named, Some(b"{}"), Some(&good));
        assert_eq!(cause(&verdict), Some(Cause::Protocol), "{}", verdict.detail);
        let empty = format!("sha256:{:x}", Sha256::digest(b"{}"));
        assert!(matches!(
            judge_found(&HeaderMap::new(), Some(b"{}"), Some(&empty)).outcome,
            Outcome::Found { .. }
        ));
    }

    #[test]
    fn a_body_that_is_no_json_object_is_no_manifest() {
        let verdict = judge_found(&HeaderMap::new(), Some(b"<html>"), None);
        assert_eq!(cause(&verdict), Some(Cause::Protocol));
        let verdict = judge_found(&HeaderMap::new(), Some(b""), None);
        assert_eq!(cause(&verdict), Some(Cause::Protocol));
    }

    #[test]
    fn statuses() {
        let now = SystemTime::UNIX_EPOCH;
        let wait = headers(&[("retry-after", "7")]);
        let judge = |status| judge_status(status, &wait, now);
        assert_eq!(judge(404).outcome, Outcome::NotFound);
        assert_eq!(judge(410).outcome, Outcome::NotFound);
        assert_eq!(judge(403).outcome, Outcome::Unauthorized);
        let retry_after = Some(Duration::from_secs(7));
        assert_eq!(judge(429).outcome, Outcome::RateLimited { retry_after });
        assert_eq!(
            judge(503).outcome,
            Outcome::Unavailable {
                cause: Cause::Status(503),
                retry_after
            }
        );
        assert_eq!(cause(&judge(204)), Some(Cause::Protocol));
        assert_eq!(cause(&judge(412)), Some(Cause::Status(412)));
    }
}
