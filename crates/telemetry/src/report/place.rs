//! Kinds of places that images come from.

use policy::CandidateKind;
use policy::rules::EntryKind;
use serde::{Deserialize, Serialize};

/// What kind of place an image may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The offline registry (`address`).
    Offline,
    /// An entry of `registries`.
    Registry,
    /// The target of a redirect.
    Redirect,
    /// Where the image's own name points.
    Origin,
}

impl Place {
    /// As in the log: `source=offline`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Registry => "registry",
            Self::Redirect => "redirect",
            Self::Origin => "origin",
        }
    }
}

impl From<CandidateKind> for Place {
    fn from(kind: CandidateKind) -> Self {
        match kind {
            CandidateKind::Registry(EntryKind::Offline) => Self::Offline,
            CandidateKind::Registry(EntryKind::Listed(_) | EntryKind::NodeCache) => Self::Registry,
            CandidateKind::Redirect(_) => Self::Redirect,
        }
    }
}
