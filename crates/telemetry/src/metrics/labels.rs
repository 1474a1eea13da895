//! Labels, and the values that they can have.

use prometheus_client::encoding::EncodeLabelSet;

use crate::report::Place;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CallLabels {
    pub(super) method: &'static str,
    pub(super) code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct MethodLabels {
    pub(super) method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ResolutionLabels {
    pub(super) outcome: &'static str,
    pub(super) registry: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ProbeLabels {
    pub(super) registry: String,
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RegistryLabels {
    pub(super) registry: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PullLabels {
    pub(super) registry: String,
    pub(super) place: &'static str,
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PlaceLabels {
    pub(super) place: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReviewLabels {
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RuleLabels {
    pub(super) rule: String,
}

/// What has no labels, and shows only once it was counted.
pub(super) type NoLabels = [(&'static str, &'static str); 0];

/// How a resolution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// A registry has the image.
    Found,
    /// Everybody was asked and nobody has it.
    Absent,
    /// Nobody is known to have it, and somebody gave no answer.
    Unanswered,
}

impl Resolved {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Absent => "absent",
            Self::Unanswered => "unanswered",
        }
    }

    pub(super) const ALL: [Self; 3] = [Self::Found, Self::Absent, Self::Unanswered];
}

/// How a review ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reviewed {
    /// Images were moved.
    Patched,
    /// Nothing in it was ours to change.
    Unchanged,
    /// It was no review that we can read.
    Refused,
    /// It was larger than reviews may be.
    TooLarge,
    /// It did not come, or not in time.
    Late,
    /// There was no room for it.
    Busy,
}

impl Reviewed {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::Patched,
        Self::Unchanged,
        Self::Refused,
        Self::TooLarge,
        Self::Late,
        Self::Busy,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Patched => "patched",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
            Self::TooLarge => "too_large",
            Self::Late => "late",
            Self::Busy => "busy",
        }
    }
}

pub(super) const PLACES: [Place; 4] = [
    Place::Offline,
    Place::Registry,
    Place::Redirect,
    Place::Origin,
];

/// `result` of a pull that was begun early and then not wanted.
pub(super) const CALLED_OFF: &str = "called_off";
/// Every `result` of a pull.
pub(super) const PULL_RESULTS: [&str; 3] = ["ok", "failed", CALLED_OFF];

/// `result` of a pull that has come to its end.
pub(super) fn pull_result(succeeded: bool) -> &'static str {
    if succeeded { "ok" } else { "failed" }
}

/// A gRPC code's name, as in the specification; a number that it does not have is `UNKNOWN`.
pub fn code_name(code: i32) -> &'static str {
    match code {
        0 => "OK",
        1 => "CANCELLED",
        3 => "INVALID_ARGUMENT",
        4 => "DEADLINE_EXCEEDED",
        5 => "NOT_FOUND",
        6 => "ALREADY_EXISTS",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        10 => "ABORTED",
        11 => "OUT_OF_RANGE",
        12 => "UNIMPLEMENTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        15 => "DATA_LOSS",
        16 => "UNAUTHENTICATED",
        _ => "UNKNOWN",
    }
}
