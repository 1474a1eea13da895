//! Why there is nothing to give, by what the client is told.

use std::fmt;
use std::time::Duration;

use super::Class;
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
    fn is_everybodys_miss(&self) -> bool {
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

/// What the classes that were asked have come to.
#[derive(Debug, Default)]
pub(super) struct SoFar {
    everybody: Option<Refusal>,
    caller: Option<Refusal>,
}

impl SoFar {
    /// One more class was asked. Whether the next one may have something else.
    pub(super) fn add(&mut self, class: Class, refusal: Refusal) -> bool {
        let goes_on = match &refusal {
            Refusal::Unauthorized(_) | Refusal::Denied => true,
            // The caller's places are only some of everybody's.
            Refusal::NotFound(_) => class == Class::Caller,
            Refusal::RateLimited(..) | Refusal::Wrong(_) | Refusal::Unreachable(_) => false,
        };
        match class {
            Class::Everybody => self.everybody = Some(refusal),
            Class::Caller => self.caller = Some(refusal),
        }
        goes_on
    }

    /// What the client is told. Of a place that was asked twice, what it said to the caller counts.
    pub(super) fn refusal(&self) -> Refusal {
        let others = self.everybody.clone().unwrap_or(Refusal::Denied);
        match self.caller.clone() {
            None => others,
            Some(
                own @ (Refusal::RateLimited(..) | Refusal::Wrong(_) | Refusal::Unreachable(_)),
            ) => own,
            Some(own) => {
                let mut failures = others.failures();
                failures.note_all(own.failures());
                Refusal::of(failures)
            }
        }
    }

    /// Whether everybody was told that nobody has it.
    pub(super) fn is_miss(&self) -> bool {
        let others = self.everybody.as_ref();
        others.is_some_and(Refusal::is_everybodys_miss)
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

    fn status_of(refusal: &Refusal) -> u16 {
        match refusal {
            Refusal::NotFound(_) => 404,
            Refusal::Unauthorized(_) => 401,
            Refusal::RateLimited(_, _) => 429,
            Refusal::Wrong(_) => 502,
            Refusal::Unreachable(_) => 503,
            Refusal::Denied => 403,
        }
    }

    fn failures(all: &[(&str, Failure)]) -> Failures {
        let all = all.iter();
        Failures(all.map(|(at, why)| (at.to_string(), why.clone())).collect())
    }

    #[test]
    fn what_both_classes_come_to() {
        let refused = || Failure::Refused("x".into());
        let silent = || Failure::Silent("x".into());
        let missing = || Failure::NotFound;
        // `a` takes the config's credentials, `b` the caller's: what a said, and b to everybody and to him.
        for (a, b, own, status, is_miss) in [
            // That his own has nothing is no word for a place that refuses.
            (refused(), missing(), Some(missing()), 401, false),
            (refused(), missing(), None, 401, false),
            (refused(), silent(), Some(silent()), 503, false),
            // Who may not see it is not told whether it is there, and he is.
            (missing(), refused(), Some(missing()), 404, false),
            (missing(), refused(), Some(refused()), 401, false),
            (silent(), refused(), Some(missing()), 503, false),
            (missing(), missing(), None, 404, true),
        ] {
            for caller_first in [false, true] {
                let mut so_far = SoFar::default();
                let everybody = Refusal::of(failures(&[("a", a.clone()), ("b", b.clone())]));
                let own = own.as_ref().map(|own| failures(&[("b", own.clone())]));
                let mut classes = vec![(Class::Everybody, everybody)];
                let own = own.map_or(Refusal::Denied, Refusal::of);
                classes.insert(usize::from(!caller_first), (Class::Caller, own));
                for (class, refusal) in classes {
                    if !so_far.add(class, refusal) {
                        break;
                    }
                }
                assert_eq!(status_of(&so_far.refusal()), status);
                assert_eq!(so_far.is_miss(), is_miss);
            }
        }
    }

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
            let refusal = Refusal::of(Failures(failures.collect()));
            assert_eq!(status_of(&refusal), status);
        }
    }
}
