//! How far this node is, for readiness and the log.

use std::fmt;

/// What the installer of one node is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It looks at the node.
    Looking,
    /// It waits for its turn.
    Waiting(Waiting),
    /// It has the Lease and changes the node.
    Working,
    /// The node has what was wanted.
    Done,
}

/// What a node waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Another node is being changed.
    Busy {
        /// Which.
        node: String,
    },
    /// Another node had begun and gives no sign of life.
    Silent {
        /// Which.
        node: String,
    },
    /// The change has failed, here or on another node.
    Failed {
        /// The annotation of the Lease that says so.
        mark: String,
        /// Which node, when and why.
        what: String,
    },
    /// The API server does not say whose turn it is.
    Unknown {
        /// Why.
        why: String,
    },
}

impl Progress {
    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        *self == Self::Done
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Looking => f.write_str("looking at the node"),
            Self::Waiting(waiting) => waiting.fmt(f),
            Self::Working => f.write_str("changing the node"),
            Self::Done => f.write_str("the node has what was wanted"),
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { node } => write!(f, "waiting: node {node} is being changed"),
            Self::Silent { node } => write!(
                f,
                "waiting: node {node} has begun and gives no sign of life, so it counts as failed. It goes on when it is \
                 back; if it never will, look at it, and delete the Lease"
            ),
            Self::Failed { mark, what } => write!(
                f,
                "waiting: {what}. No other node is changed. When the reason is gone, remove the annotation {mark} from the Lease"
            ),
            Self::Unknown { why } => {
                write!(f, "waiting: the Lease can't be read or written: {why}")
            }
        }
    }
}
