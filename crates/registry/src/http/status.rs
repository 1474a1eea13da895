//! What a status means that is no good answer. Pure.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::retry_after::retry_after;
use crate::outcome::{Cause, ExchangeError, Failure};

/// Whose answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answerer {
    /// The registry, or its own token service.
    Registry,
    /// A host that the registry redirected this one question to, or that host's token service.
    Elsewhere,
}

impl Answerer {
    pub(crate) fn of(left_origin: bool) -> Self {
        if left_origin {
            Self::Elsewhere
        } else {
            Self::Registry
        }
    }

    /// How long the registry asks to be left alone. Whoever can make it redirect one image to a host of
    /// his own can't ask for that in its name.
    pub(crate) fn retry_after(self, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
        match self {
            Self::Registry => retry_after(headers, now),
            Self::Elsewhere => None,
        }
    }
}

/// What follows from an answer with any status that a question did not hope for. `now` is for dates
/// in `Retry-After`.
pub(crate) fn refusal(
    status: u16,
    headers: &HeaderMap,
    answerer: Answerer,
    now: SystemTime,
) -> ExchangeError {
    let retry_after = answerer.retry_after(headers, now);
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
            let error = refusal(code, &wait, Answerer::Registry, SystemTime::UNIX_EPOCH);
            assert_eq!((error.failure, error.status), (failure, Some(code)));
        }
        let elsewhere = refusal(429, &wait, Answerer::Elsewhere, SystemTime::UNIX_EPOCH);
        let retry_after = None;
        assert_eq!(elsewhere.failure, Failure::RateLimited { retry_after });
        let nothing = HeaderMap::new();
        let odd = refusal(204, &nothing, Answerer::Registry, SystemTime::UNIX_EPOCH);
        assert_eq!(odd.cause(), Some(Cause::Protocol));
    }
}
