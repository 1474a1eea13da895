//! What the small objects beside the blobs say. They are JSON, and fields that are not known are passed
//! over.

use object_store::path::Path;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// A longer one is none.
pub(super) const MAX_RECORD: u64 = 16 * 1024;

/// What a tag meant. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedTag {
    /// The manifest that it named.
    pub digest: Digest,
    /// The place that said so, without credentials.
    pub place: String,
    /// When it said so last.
    pub validated_at: u64,
    /// It came with a credential, so that everybody who wants it has to prove a right.
    pub needs_proof: bool,
}

/// That an object belongs to a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedLink {
    /// Where it came from, without credentials.
    pub place: String,
    /// It came with a credential, so that everybody who wants it has to prove a right.
    pub needs_proof: bool,
}

/// Reads a record; one that can't be read is as good as none.
pub(super) fn parse<T: DeserializeOwned>(content: &[u8], key: &Path) -> Option<T> {
    let parsed = serde_json::from_slice(content);
    if let Err(error) = &parsed {
        tracing::debug!("the shared store's {key} can't be read: {error}");
    }
    parsed.ok()
}
