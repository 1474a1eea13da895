//! Images that came from a mirror, under the names that were asked for.
//!
//! A runtime knows an image by the name that it was pulled by. With containerd the original names are added
//! there ([`containerd`]), so that they stay when the shim goes; elsewhere they are added to the answers
//! that list images ([`answers`]).

pub(crate) mod answers;
pub(crate) mod containerd;

use policy::Reference;

/// The name that a runtime keeps an image under that it pulled by `reference`: with a digest, that counts.
pub(crate) fn stored_name(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => by_digest(reference, digest),
        None => reference.canonical(),
    }
}

/// `host/repository@digest`.
pub(crate) fn by_digest(reference: &Reference, digest: &str) -> String {
    format!("{}/{}@{digest}", reference.domain(), reference.repository())
}
