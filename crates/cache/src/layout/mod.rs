//! OCI image layouts in a tar: how images travel where no network leads.
//!
//! | module | what it knows |
//! |---|---|
//! | `names` | what an image in a layout is called |
//! | `import` | from a tar into the store |
//! | `export` | from the store into a tar |
//! | `directory` | a layout that is a directory, as the tar that it would be |
//!
//! A layout is read from its beginning to its end once, so that it may come through a pipe; its parts may
//! stand in any order, as the specification allows.

mod directory;
mod export;
mod import;
mod names;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

pub use self::directory::pack;
pub use self::export::{Exported, Wanted, export};
pub use self::import::{Imported, import};
use crate::digest::Digest;
use crate::index::IndexError;
use crate::storage::StorageError;

/// The file that says that a directory is a layout.
const MARK: &str = "oci-layout";
const VERSION: &str = "1.0.0";
/// What the images of a layout are listed in.
const INDEX: &str = "index.json";
/// The whole name of an image, as containerd and BuildKit write it.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// A tag or a whole name, by the OCI image specification.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Why a layout can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The archive can't be read.
    #[error("the archive can't be read: {0}")]
    Read(io::Error),
    /// It is no tar: why not.
    #[error(
        "it is no tar archive: {0}; `cache export`, `ctr images export` and `docker save` write one"
    )]
    NoArchive(&'static str),
    /// It ends too early.
    #[error("it is cut off after {0} bytes; copy it again")]
    CutOff(u64),
    /// It begins as a tar and goes on as something else.
    #[error(
        "it is damaged: what comes after {0} bytes is no entry of a tar archive; copy it again"
    )]
    Garbled(u64),
    /// The archive can't be written.
    #[error("the archive can't be written: {0}")]
    Write(io::Error),
    /// It is no image layout, or one with mistakes.
    #[error("{0}")]
    Wrong(String),
    /// An image is in it without a name.
    #[error(
        "{0} has no name in the layout; say what it is called: `cache import --name REPOSITORY:TAG`"
    )]
    Nameless(String),
    /// A blob of it has other bytes than its name says.
    #[error("{0} is damaged in the archive; make it anew")]
    Damaged(Digest),
    /// There is no room for a blob.
    #[error("{0} does not fit into the cache ({1} bytes); raise nodeCache.maxSize or free space")]
    NoRoom(Digest, u64),
    /// It is not in the cache as a whole.
    #[error("{image}: {digest} is not in the cache; `cache warm` fetches what is missing")]
    Missing {
        /// What was wanted.
        image: String,
        /// What is missing of it.
        digest: Digest,
    },
    /// A blob in the store has other bytes than its name says.
    #[error("{0} is damaged in the cache; `cache verify --repair` mends it")]
    DamagedHere(Digest),
    /// Whoever asked for it has gone.
    #[error("broken off")]
    BrokenOff,
    /// The store.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<IndexError> for LayoutError {
    fn from(error: IndexError) -> Self {
        Self::Storage(error.into())
    }
}

/// Is told how many bytes are done, and of how many, where that is known; says whether to go on.
pub type Progress<'a> = dyn FnMut(u64, Option<u64>) -> bool + 'a;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    image_layout_version: String,
}

/// `index.json`, as far as it matters here.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    digest: Digest,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}
