//! What a probe can find out.

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

/// What an answer means for the image that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 200 with a manifest.
    Found {
        /// Digest of the manifest, where the registry named it or the body was read.
        digest: Option<String>,
    },
    /// 404: the registry works and does not have it.
    NotFound,
    /// 401 or 403 after everything that could be tried with the credentials at hand.
    Unauthorized,
    /// 429, from the registry or its token service.
    RateLimited {
        /// How long the registry asked to be left alone, at most [`MAX_RETRY_AFTER`].
        retry_after: Option<Duration>,
    },
    /// No usable answer.
    Unavailable {
        /// What kind of failure.
        cause: Cause,
        /// `Retry-After` of a 503, at most [`MAX_RETRY_AFTER`].
        retry_after: Option<Duration>,
    },
}

/// Longest pause that a registry can ask for: a clock that is off must not put it aside for ever.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Why there was no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The deadline passed while the registry was being asked.
    Timeout,
    /// The deadline passed before it was this probe's turn; the registry itself was never asked.
    Queue,
    /// The connection was refused.
    Refused,
    /// The connection ended in the middle of a request or an answer.
    Reset,
    /// No way to the host: no route, network down, no permission, proxy unreachable.
    Unreachable,
    /// The host name has no address.
    Dns,
    /// The TLS handshake failed: an untrusted certificate, or a server that speaks no TLS.
    Tls,
    /// A status that is neither an answer nor covered by another outcome. 5xx is the registry's
    /// trouble; 4xx (400, 412, 451, …) may be about this image alone.
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
            Self::Queue => "queue",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Unreachable => "unreachable",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Status(_) => "status",
            Self::Protocol => "protocol",
            Self::Redirect => "redirect",
            Self::TokenService => "token_service",
        }
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

/// An outcome with its line for the trail: a [`Probe`] before it is timed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) detail: String,
}

impl Verdict {
    pub(crate) fn new(outcome: Outcome, detail: impl Into<String>) -> Self {
        Self {
            outcome,
            detail: detail.into(),
        }
    }

    pub(crate) fn unavailable(cause: Cause, detail: impl Into<String>) -> Self {
        Self::new(
            Outcome::Unavailable {
                cause,
                retry_after: None,
            },
            detail,
        )
    }
}
