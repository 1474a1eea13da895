//! Images that came from a mirror, under the names that were asked for.
//!
//! A runtime knows an image by the name that it was pulled by. With containerd the original names are added
//! there ([`containerd`]), so that they stay when the shim goes; elsewhere they are added to the answers
//! that list images ([`answers`]).

pub(crate) mod answers;
pub(crate) mod containerd;
