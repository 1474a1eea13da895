//! What is known of one candidate after it was asked.

use serde::{Deserialize, Serialize};

/// What a probe, or a pull, has shown about one image at one registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The registry has the manifest.
    Found,
    /// It says it does not (404).
    NotFound,
    /// It wants other credentials (401 or 403 after the token flow).
    Unauthorized,
    /// It said that it was asked too often (429).
    RateLimited,
    /// It gave no usable answer to this one question (5xx, a hang, a web page, another digest, a
    /// redirect loop, a token service that refuses). That says nothing about its other images.
    ImageFailed,
    /// It gave no answer at all: refused, no route, DNS, TLS, silence. Or it was not asked, because
    /// its circuit is open.
    Unavailable,
    /// It said that it has the image, but the runtime failed to pull it from there a short while ago.
    PullFailed,
}

impl Verdict {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::Found,
        Self::NotFound,
        Self::Unauthorized,
        Self::RateLimited,
        Self::ImageFailed,
        Self::Unavailable,
        Self::PullFailed,
    ];

    /// `not_found`: as in JSON and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::NotFound => "not_found",
            Self::Unauthorized => "unauthorized",
            Self::RateLimited => "rate_limited",
            Self::ImageFailed => "image_failed",
            Self::Unavailable => "unavailable",
            Self::PullFailed => "pull_failed",
        }
    }

    /// Whether nothing was learned about whether the registry has the image.
    pub fn is_unanswered(self) -> bool {
        matches!(
            self,
            Self::RateLimited | Self::ImageFailed | Self::Unavailable
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_ones_of_json() {
        for verdict in Verdict::ALL {
            let json = serde_json::to_string(&verdict).unwrap();
            assert_eq!(json, format!("\"{}\"", verdict.name()));
        }
    }
}
