//! The names that a runtime keeps images under.

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
