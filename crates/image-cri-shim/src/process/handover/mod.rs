//! One process takes over from another: starting it, and what the two say to each other.
//!
//! ```text
//! old ──── control ────▶ starter      the new one's parent until the old one lets go of it
//!  │                        │
//!  └────── control ───────▶ new       Offer ▸ Ready ▸ (a call) ▸ Take ▸ Serving ▸ Yours ▸ Learned…
//! ```
//!
//! | module | what it knows |
//! |---|---|
//! | [`channel`] | messages and descriptors from one process to another |
//! | [`messages`] | what is said |
//! | [`starter`] | the parent of the new process |
//! | [`successor`] | the new process, as the old one sees it |
//! | [`predecessor`] | the old process, as the new one sees it |
//!
//! The starter is a process of the *old* program. It is the new one's parent, so that it knows how the new one ends and
//! whom it kills. When the new one is to take over, the starter ends, and systemd becomes the parent: it would not hear
//! of the end of a process that is not its child. Until then the new one dies with the old one.

pub(crate) mod channel;
pub(crate) mod messages;
pub(crate) mod predecessor;
pub(crate) mod starter;
pub(crate) mod successor;

/// The variable that tells a new process that its standard input is such a channel; its value is the version of what is
/// said there.
pub(crate) const VARIABLE: &str = "IMAGE_CRI_SHIM_HANDOVER";
/// The version of what is said. A process that does not know it refuses, and says so.
pub(crate) const PROTOCOL: &str = "1";
