//! Encodings of answers (RFC 9110, section 8.4). None is asked for: the bytes of an answer are stored, counted
//! and handed on as they come, and have to be those that the digest is of. Pure.

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue};
use policy::text::one_line;

use crate::outcome::{Cause, ExchangeError};

/// `Accept-Encoding` of every request. Without that header, a server may choose any.
pub(crate) const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// Refuses an answer whose body is encoded all the same.
///
/// # Errors
/// [`Cause::Protocol`].
pub(crate) fn is_not_encoded(status: u16, headers: &HeaderMap) -> Result<(), ExchangeError> {
    for value in headers.get_all(CONTENT_ENCODING) {
        let value = String::from_utf8_lossy(value.as_bytes());
        let is_identity = |coding: &str| {
            let coding = coding.trim();
            coding.is_empty() || coding.eq_ignore_ascii_case("identity")
        };
        if !value.split(',').all(is_identity) {
            let coding = one_line(&value, 40);
            let detail = format!(
                "answered {status} with `Content-Encoding: {coding}`, and was asked for none; is there a proxy that compresses?"
            );
            return Err(ExchangeError::image_failed(
                Cause::Protocol,
                Some(status),
                detail,
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_identity_is_no_encoding() {
        for (values, fits) in [
            (&[][..], true),
            (&[""], true),
            (&["identity"], true),
            (&["Identity, identity"], true),
            (&["gzip"], false),
            (&["identity, gzip"], false),
            (&["identity", "br"], false),
            (&["aws-chunked"], false),
        ] {
            let headers = values
                .iter()
                .map(|value| (CONTENT_ENCODING, HeaderValue::from_static(value)));
            let verdict = is_not_encoded(206, &headers.collect());
            assert_eq!(verdict.is_ok(), fits, "{values:?}");
            if let Err(error) = verdict {
                assert_eq!(error.cause(), Some(Cause::Protocol));
            }
        }
    }
}
