//! The node cache at a glance, and what it has of an image.

use serde::{Deserialize, Serialize};

/// State of the node cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCacheStatus {
    /// Its version.
    pub version: String,
    /// Where its store is.
    pub dir: String,
    /// Requests for manifests and blobs that were answered from the store, since its start.
    pub hits: u64,
    /// Those for which a registry was asked for content.
    pub misses: u64,
    /// Those that were answered from the store because no registry answered.
    pub stale: u64,
    /// Those for which there was nothing to give.
    pub errors: u64,
    /// Bytes that it sent to clients.
    pub sent_bytes: u64,
    /// Bytes that it received from registries.
    pub received_bytes: u64,
    /// Bytes in the store.
    pub stored_bytes: u64,
    /// Bytes that the store may hold.
    pub max_bytes: u64,
    /// Images in the store; a few seconds old.
    pub stored_images: u64,
    /// Images that had to go since its start.
    pub evictions: u64,
    /// Whether it can't store at the moment: what is new passes through.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passes_through: bool,
    /// Blobs that are arriving.
    #[serde(default)]
    pub arriving: Vec<Arriving>,
}

/// A blob that is arriving.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arriving {
    /// Its digest.
    pub digest: String,
    /// The repository that it is fetched for: `docker.io/library/nginx`.
    pub repository: String,
    /// Bytes that are there.
    pub bytes: u64,
    /// Bytes in all, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// The place that has answered; none where nobody has yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// What the node cache has of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCacheImage {
    /// The manifest or index that it has under that name; none where it has nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Where that came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// When a registry last confirmed that the tag means it, RFC 3339 in UTC; none for a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_at: Option<String>,
    /// Bytes of it that are there.
    pub bytes: u64,
    /// The platforms that are whole.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// Whether a platform of it is there with all its layers.
    pub is_whole: bool,
    /// Whether it is never evicted.
    #[serde(default)]
    pub pinned: bool,
    /// Blobs of it that are arriving.
    #[serde(default)]
    pub arriving: Vec<Arriving>,
}
