//! Why there is nothing to give, by what the client is told.

use std::fmt;
use std::time::Duration;

use crate::upstream::{Failure, Failures};

/// Why there is nothing to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Every candidate said that it has not got it (404).
    NotFound(Failures),
    /// Somebody refused, and the caller may still prove a right (401).
    Unauthorized(Failures),
    /// Somebody asked us to come later (429).
    RateLimited(Option<Duration>, Failures),
    /// Somebody answered wrongly (502).
    Wrong(Failures),
    /// Nobody could be reached in time (503).
    Unreachable(Failures),
    /// The config leaves nobody to ask (403).
    Denied,
}

impl Refusal {
    /// What follows from what every place has answered.
    pub(super) fn of(failures: Failures) -> Self {
        let all = || failures.0.iter().map(|(_, failure)| failure);
        if failures.0.is_empty() {
            return Self::Denied;
        }
        if all().any(|failure| matches!(failure, Failure::Refused(_))) {
            return Self::Unauthorized(failures);
        }
        let limited = all().find_map(|failure| match failure {
            Failure::RateLimited(wait) => Some(*wait),
            _ => None,
        });
        if let Some(wait) = limited {
            return Self::RateLimited(wait, failures);
        }
        if all().any(|failure| matches!(failure, Failure::Wrong(_) | Failure::Shorter(_))) {
            return Self::Wrong(failures);
        }
        if all().any(|failure| matches!(failure, Failure::Silent(_))) {
            return Self::Unreachable(failures);
        }
        Self::NotFound(failures)
    }

    /// Whether nobody has it, whoever asks. Where a place has asked us in turn, that was by the way of this request:
    /// who comes by another one may be told something else.
    pub(super) fn is_everybodys_miss(&self) -> bool {
        let is_circle = |(_, failure): &(String, Failure)| matches!(failure, Failure::Circle);
        matches!(self, Self::NotFound(failures) if !failures.0.iter().any(is_circle))
    }

    pub(super) fn failures(self) -> Failures {
        match self {
            Self::NotFound(failures)
            | Self::Unauthorized(failures)
            | Self::RateLimited(_, failures)
            | Self::Wrong(failures)
            | Self::Unreachable(failures) => failures,
            Self::Denied => Failures::default(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(failures)
            | Self::Unauthorized(failures)
            | Self::RateLimited(_, failures)
            | Self::Wrong(failures)
            | Self::Unreachable(failures) => fmt::Display::fmt(failures, f),
            Self::Denied => f.write_str(
                "the config leaves no place to ask: fallbackToOrigin is off and no registry serves this \
                 host, or the host is on this machine and the config does not name it",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_is_told() {
        let missing = || Failure::NotFound;
        let silent = || Failure::Silent("x".into());
        let wrong = || Failure::Wrong("x".into());
        let refused = || Failure::Refused("x".into());
        let limited = || Failure::RateLimited(Some(Duration::from_secs(7)));
        for (all, status) in [
            (vec![missing(), missing()], 404),
            (vec![missing(), Failure::Circle], 404),
            (vec![missing(), silent()], 503),
            (vec![silent(), wrong(), missing()], 502),
            (vec![missing(), Failure::Shorter("x".into())], 502),
            (vec![silent(), limited(), wrong()], 429),
            (vec![missing(), refused(), silent(), limited()], 401),
            (vec![], 403),
        ] {
            let failures = all.into_iter().enumerate();
            let failures = failures.map(|(at, failure)| (at.to_string(), failure));
            let found = match Refusal::of(Failures(failures.collect())) {
                Refusal::NotFound(_) => 404,
                Refusal::Unauthorized(_) => 401,
                Refusal::RateLimited(_, _) => 429,
                Refusal::Wrong(_) => 502,
                Refusal::Unreachable(_) => 503,
                Refusal::Denied => 403,
            };
            assert_eq!(found, status);
        }
    }
}
