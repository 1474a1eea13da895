//! What counts as a manifest, and whether it is the one that was asked for. Pure.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use policy::text::one_line;
use sha2::{Digest, Sha256, Sha512};

use crate::outcome::{Cause, ExchangeError};

/// Longest manifest that is read, and the longest page of a list: what containerd takes.
pub const MAX_MANIFEST: usize = 4 * 1048 * 1048;

/// `Accept` of manifests: OCI and Docker manifests and indexes (OCI image spec, "media types"; Docker
/// image manifest v2 schema 2).
pub(crate) const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

const CONTENT_DIGEST: &str = "docker-content-digest";

/// Whether a registry that answered HEAD so is asked again by GET. 405 is what containerd repeats
/// with GET; 501 and 400 come from gateways that know no HEAD. 404 is believed: containerd resolves
/// by HEAD too, so what a registry hides from HEAD the runtime can't pull either.
pub(crate) fn refuses_head(status: u16) -> bool {
    matches!(status, 400 | 405 | 501)
}

/// The digest that a reference is, where it is no tag.
pub(crate) fn as_digest(reference: &str) -> Option<&str> {
    reference.contains(':').then_some(reference)
}

/// The digest that an answer's header names, if it is one.
pub(crate) fn content_digest(headers: &HeaderMap) -> Option<String> {
    headers
        .get(CONTENT_DIGEST)
        .and_then(|value| value.to_str().ok())
        .filter(|text| is_digest(text))
        .map(str::to_owned)
}

/// The digest of a body, by the algorithm of `like`; sha256 where that names none.
pub(crate) fn digest_of(body: &[u8], like: Option<&str>) -> String {
    match like.map(algorithm) {
        Some("sha512") => format!("sha512:{:x}", Sha512::digest(body)),
        _ => format!("sha256:{:x}", Sha256::digest(body)),
    }
}

/// Refuses another digest than the one that was asked for. Digests of two algorithms can't be compared.
///
/// # Errors
/// [`Cause::Protocol`].
pub(crate) fn same_digest(wanted: Option<&str>, found: Option<&str>) -> Result<(), ExchangeError> {
    match (wanted, found) {
        (Some(wanted), Some(found)) if algorithm(wanted) == algorithm(found) && wanted != found => {
            Err(protocol(format!(
                "asked for {} and answered with {}: another image, or content that was changed on the way",
                short(wanted),
                short(found)
            )))
        }
        _ => Ok(()),
    }
}

/// The content type in lower case, without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return String::new();
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let essence = text.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// Refuses a type that says that this is something else than a manifest. None at all is fine, and so is
/// what object stores and proxies put in its place.
///
/// # Errors
/// [`Cause::Protocol`].
pub(crate) fn is_manifest_type(essence: &str) -> Result<(), ExchangeError> {
    let known = essence.is_empty()
        || essence == "application/json"
        || essence.ends_with("+json")
        || essence == "application/octet-stream"
        || essence == "binary/octet-stream"
        // Schema 1 is `+prettyjws`: old, but the runtime's to refuse.
        || essence.starts_with("application/vnd.docker.distribution.manifest.");
    if known {
        return Ok(());
    }
    Err(protocol(format!(
        "answered 200 with {}, not a manifest; is this a registry?",
        one_line(essence, 80)
    )))
}

/// Refuses a body that can't be a manifest or a list.
///
/// # Errors
/// [`Cause::Protocol`].
pub(crate) fn is_json_object(body: &[u8]) -> Result<(), ExchangeError> {
    if body.trim_ascii_start().first() == Some(&b'{') {
        return Ok(());
    }
    Err(protocol(
        "answered 200 with a body that is no manifest; is this a registry?".to_owned(),
    ))
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
pub(crate) fn short(digest: &str) -> String {
    one_line(digest, "sha256:".len() + 12)
}

fn protocol(detail: String) -> ExchangeError {
    ExchangeError::image_failed(Cause::Protocol, Some(200), detail)
}
