//! What a status means that is no good answer. Pure.

use std::time::SystemTime;

use http::HeaderMap;

use super::retry_after::retry_after;
use crate::outcome::{Cause, ExchangeError, Failure};

/// What follows from an answer with any status that a question did not hope for. `now` is for dates
/// in `Retry-After`.
pub(crate) fn refusal(status: u16, headers: &HeaderMap, now: SystemTime) -> ExchangeError {
    let retry_after = retry_after(headers, now);
    let wait = retry_after.map_or_else(String::new, |wait| {
        format!(", asks to wait {}s", wait.as_secs())
    });
    let (failure, detail) = match status {
        // 508: a cache that would have to ask us for what we ask it. It does not have the image, and
        // neither has failed.
        404 | 410 | 508 => (Failure::NotFound, status.to_string()),
        401 | 403 => (Failure::Unauthorized, format!("{status}, access denied")),
        429 => (
            Failure::RateLimited { retry_after },
            format!("429, too many requests{wait}"),
        ),
        200..=399 => (
            Failure::ImageFailed {
                cause: Cause::Protocol,
                retry_after: None,
            },
            format!("answered {status}, which is no answer to this request; is this a registry?"),
        ),
        _ => (
            Failure::ImageFailed {
                cause: Cause::Status(status),
                retry_after,
            },
            format!("{status}{wait}"),
        ),
    };
    ExchangeError::new(failure, Some(status), detail)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;
    use http::header::RETRY_AFTER;

    use super::*;

    #[test]
    fn each_status_is_about_the_image_and_never_about_the_registry() {
        let mut wait = HeaderMap::new();
        wait.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        let retry_after = Some(Duration::from_secs(7));
        let status = |code| Failure::ImageFailed {
            cause: Cause::Status(code),
            retry_after,
        };
        for (code, failure) in [
            (404, Failure::NotFound),
            (508, Failure::NotFound),
            (410, Failure::NotFound),
            (401, Failure::Unauthorized),
            (403, Failure::Unauthorized),
            (429, Failure::RateLimited { retry_after }),
            (400, status(400)),
            (412, status(412)),
            (500, status(500)),
            (503, status(503)),
        ] {
            let error = refusal(code, &wait, SystemTime::UNIX_EPOCH);
            assert_eq!((error.failure, error.status), (failure, Some(code)));
        }
        let odd = refusal(204, &HeaderMap::new(), SystemTime::UNIX_EPOCH);
        assert_eq!(odd.cause(), Some(Cause::Protocol));
    }
}
