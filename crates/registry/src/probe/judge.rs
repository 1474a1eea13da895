//! Whether a 200 is the manifest that was asked for. Pure: headers and body in, verdict out.

use http::HeaderMap;

use crate::manifest::{
    content_digest, digest_of, is_json_object, is_manifest_type, media_type, same_digest, short,
};
use crate::outcome::ExchangeError;

/// A manifest that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where the registry named it or the body was read.
    pub(super) digest: Option<String>,
    /// One line for the trail.
    pub(super) detail: String,
}

/// Verdict on a 200. `body` is there where the manifest was fetched by GET; `wanted` is the digest
/// that was asked for, if it was not a tag.
///
/// # Errors
/// [`crate::Cause::Protocol`]: whatever was answered, it is not the manifest that was asked for.
pub(super) fn judge_found(
    headers: &HeaderMap,
    body: Option<&[u8]>,
    wanted: Option<&str>,
) -> Result<Found, ExchangeError> {
    is_manifest_type(&media_type(headers))?;
    if let Some(body) = body {
        is_json_object(body)?;
    }
    let named = content_digest(headers);
    let computed = body.map(|body| digest_of(body, wanted));
    // The computed one first: a header is a claim, a body is a fact.
    for found in [&computed, &named].into_iter().flatten() {
        same_digest(wanted, Some(found))?;
    }
    let digest = wanted.map(str::to_owned).or(computed).or(named);
    let detail = match &digest {
        Some(digest) => format!("200, {}", short(digest)),
        None => "200".to_owned(),
    };
    Ok(Found { digest, detail })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::outcome::Cause;

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
