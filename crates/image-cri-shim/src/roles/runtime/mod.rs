//! The container runtime of this node.
//!
//! | module | what it is |
//! |---|---|
//! | [`socket`] | where it listens |
//! | [`files`] | its own files, beside each config |

pub(crate) mod files;
pub(crate) mod socket;
