//! What asking a registry can find out.

use std::fmt;
use std::time::Duration;

/// The answer to one probe. Every failure is an outcome: probing has no error type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What the registry's answer, or its absence, means.
    pub outcome: Outcome,
    /// One line for the trail, without secrets: what was seen, and what to do about it where that
    /// can be said. Text from outside is cut and freed of control characters.
    pub detail: String,
    /// Time from the call to the verdict, waiting for a free slot included.
    pub elapsed: Duration,
    /// HTTP requests that this probe sent: manifests, redirects and tokens. A token that another
    /// probe was already fetching is not counted here.
    pub requests: u32,
}

/// The answer to "are you there?", which is asked of `/v2/` and is about no image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ping {
    /// `Ok` for every HTTP answer below 500, a 401 included; else why there is no life.
    pub outcome: Result<(), Cause>,
    /// One line for people, as in [`Probe::detail`].
    pub detail: String,
    /// Time from the call to the verdict.
    pub elapsed: Duration,
    /// HTTP requests that were sent: two where both schemes were tried.
    pub requests: u32,
}

/// What an answer means for the image that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 200 with a manifest.
    Found {
        /// Digest of the manifest, where the registry named it or the body was read.
        digest: Option<String>,
    },
    /// As [`Failure::NotFound`].
    NotFound,
    /// As [`Failure::Unauthorized`].
    Unauthorized,
    /// As [`Failure::RateLimited`].
    RateLimited {
        /// As there.
        retry_after: Option<Duration>,
    },
    /// As [`Failure::ImageFailed`].
    ImageFailed {
        /// As there.
        cause: Cause,
        /// As there.
        retry_after: Option<Duration>,
    },
    /// As [`Failure::Unavailable`].
    Unavailable {
        /// As there.
        cause: Cause,
    },
}

/// Why there is no good answer, by what follows from it. Probes and fetches use the same kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// 404: the registry works and does not have it.
    NotFound,
    /// 401 or 403 after everything that could be tried with the credentials at hand.
    Unauthorized,
    /// 429, from the registry or its token service.
    RateLimited {
        /// How long the registry asked to be left alone, at most [`MAX_RETRY_AFTER`].
        retry_after: Option<Duration>,
    },
    /// This question failed. Others to the same registry may be answered well: the registry, or
    /// something on its behalf, did answer, or it took the question and was silent
    /// ([`Cause::is_silence`]; a ping tells whether the registry is silent as a whole).
    ImageFailed {
        /// What kind of failure.
        cause: Cause,
        /// `Retry-After` of a 5xx, at most [`MAX_RETRY_AFTER`].
        retry_after: Option<Duration>,
    },
    /// The registry itself can't be asked, whatever the question: refused, no route, no address, TLS.
    Unavailable {
        /// What kind of failure.
        cause: Cause,
    },
}

/// Longest pause that a registry can ask for: a clock that is off must not put it aside for ever.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// What kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The deadline passed while the registry was being asked.
    Timeout,
    /// The same, and a good part of the time had gone by before it was this question's turn.
    Late,
    /// The deadline passed before it was this question's turn; the registry itself was never asked.
    Queue,
    /// The connection was refused.
    Refused,
    /// The connection ended in the middle of a request or an answer.
    Reset,
    /// No way to the host: no route, network down, no permission, proxy unreachable.
    Unreachable,
    /// The host name has no address.
    Dns,
    /// The host is at an address that may not be connected to ([`crate::AddressGuard`]).
    Address,
    /// The TLS handshake failed: an untrusted certificate, or a server that speaks no TLS.
    Tls,
    /// A status that is neither an answer nor covered by another outcome.
    Status(u16),
    /// An answer that no registry gives: HTML with a 200, an endless or truncated body, another digest.
    Protocol,
    /// Too many redirects, a loop, or a target that can't be followed.
    Redirect,
    /// The registry's token service failed; the registry itself may be well.
    TokenService,
}

impl Cause {
    /// A short word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Late => "late",
            Self::Queue => "queue",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Unreachable => "unreachable",
            Self::Dns => "dns",
            Self::Address => "address",
            Self::Tls => "tls",
            Self::Status(_) => "status",
            Self::Protocol => "protocol",
            Self::Redirect => "redirect",
            Self::TokenService => "token_service",
        }
    }

    /// Whether the registry took the question and gave no answer at all. Only another question
    /// tells whether the registry is silent as a whole.
    pub fn is_silence(self) -> bool {
        matches!(self, Self::Timeout | Self::Late | Self::Reset)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(code) => write!(f, "status {code}"),
            other => f.write_str(other.as_str()),
        }
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotFound => Self::NotFound,
            Failure::Unauthorized => Self::Unauthorized,
            Failure::RateLimited { retry_after } => Self::RateLimited { retry_after },
            Failure::ImageFailed { cause, retry_after } => Self::ImageFailed { cause, retry_after },
            Failure::Unavailable { cause } => Self::Unavailable { cause },
        }
    }
}

/// Why a registry gave no good answer to one question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct ExchangeError {
    /// What follows from it.
    pub failure: Failure,
    /// Status of the answer that decided it, from the registry, a host that it redirected to or its
    /// token service; `None` where there was none.
    pub status: Option<u16>,
    /// One line for people, as in [`Probe::detail`].
    pub detail: String,
}

impl ExchangeError {
    pub(crate) fn new(failure: Failure, status: Option<u16>, detail: impl Into<String>) -> Self {
        Self {
            failure,
            status,
            detail: detail.into(),
        }
    }

    pub(crate) fn unauthorized(status: u16, detail: impl Into<String>) -> Self {
        Self::new(Failure::Unauthorized, Some(status), detail)
    }

    /// The question failed, without a pause that the registry asked for.
    pub(crate) fn image_failed(
        cause: Cause,
        status: Option<u16>,
        detail: impl Into<String>,
    ) -> Self {
        let failure = Failure::ImageFailed {
            cause,
            retry_after: None,
        };
        Self::new(failure, status, detail)
    }

    /// The kind of failure, where it has one.
    pub fn cause(&self) -> Option<Cause> {
        match self.failure {
            Failure::ImageFailed { cause, .. } | Failure::Unavailable { cause } => Some(cause),
            Failure::NotFound | Failure::Unauthorized | Failure::RateLimited { .. } => None,
        }
    }
}
