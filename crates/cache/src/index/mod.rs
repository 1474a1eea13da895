//! What the cache knows about its blobs: which images they make up, which tag means which digest,
//! what belongs to which repository, and when it was used last.
//!
//! One file, by `redb`: copy-on-write with checksums, so that after a crash at any moment it is as
//! the last commit left it. What a client may have been told is committed durably before it is told;
//! what may be lost for a few seconds (when something was used) goes with the next durable commit.

mod eviction;
mod file;
mod imports;
mod named;
mod names;
mod objects;
pub mod records;
mod tables;
#[cfg(test)]
mod tests;
mod whole;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use redb::{Durability, ReadTransaction, ReadableDatabase, WriteTransaction};

pub use self::eviction::Evicted;
use self::file::Databases;
pub use self::imports::{IMPORTED, ImportedImage};
pub use self::named::Named;
pub use self::records::{Link, Object, Pin, Tag, TagName};
use self::tables::VERSION;
pub use self::whole::WholeImage;
use crate::digest::Digest;
use crate::manifest::Parsed;

/// Why the index can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The database failed.
    #[error("the cache's index: {0}")]
    Database(#[from] redb::Error),
    /// A record that can't be read.
    #[error("the cache's index has a record that can't be read: {0}")]
    Record(#[from] serde_json::Error),
    /// Written by a newer version.
    #[error("the cache's index is of version {0}, and this program knows version {VERSION}")]
    Version(u64),
}

impl IndexError {
    /// Whether what is in the file can't be used.
    fn is_damage(&self) -> bool {
        matches!(self, Self::Database(redb::Error::Corrupted(_)))
            || matches!(self, Self::Database(redb::Error::Io(error))
                if error.kind() == std::io::ErrorKind::InvalidData)
    }

    /// Whether the disk is the trouble, and not what is in the file.
    pub fn is_disk_trouble(&self) -> bool {
        match self {
            Self::Database(redb::Error::Io(error)) => error.raw_os_error().is_some(),
            _ => false,
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for IndexError {
            fn from(error: $error) -> Self {
                Self::Database(error.into())
            }
        }
    )*};
}
from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::SetDurabilityError
);

type Result<T> = std::result::Result<T, IndexError>;

/// The index of one cache. Cheap to clone. Its calls block; a durable write waits for the disk.
#[derive(Clone)]
pub struct Index {
    databases: Arc<Databases>,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

/// What `put` is to note with a new object.
#[derive(Clone, Debug)]
pub struct NewObject<'a> {
    /// What it is called.
    pub digest: &'a Digest,
    /// Its length.
    pub size: u64,
    /// What was understood of it, where it is a manifest.
    pub manifest: Option<&'a Parsed>,
    /// The second it is now.
    pub now: u64,
}

impl Index {
    /// Opens the index, or makes an empty one.
    ///
    /// # Errors
    /// Where the file can't be used, is damaged, or is of a newer version.
    pub fn open(path: &Path) -> Result<Self> {
        let databases = Arc::new(Databases::open(path)?);
        Ok(Self { databases })
    }

    /// An index in memory, for a directory that can't be written to.
    ///
    /// # Errors
    /// None in practice.
    pub fn in_memory() -> Result<Self> {
        Self::in_memory_copy(&[])
    }

    /// The same, with what a file of an index holds.
    ///
    /// # Errors
    /// Where the content is damaged, or of a newer version.
    pub fn in_memory_copy(content: &[u8]) -> Result<Self> {
        let databases = Arc::new(Databases::in_memory(content)?);
        Ok(Self { databases })
    }

    fn write<T>(
        &self,
        durability: Durability,
        act: impl FnOnce(&WriteTransaction) -> Result<T>,
    ) -> Result<T> {
        self.databases.with(|database| {
            let mut txn = database.begin_write()?;
            txn.set_durability(durability)?;
            let done = act(&txn)?;
            txn.commit()?;
            Ok(done)
        })
    }

    fn read<T>(&self, act: impl FnOnce(&ReadTransaction) -> Result<T>) -> Result<T> {
        self.databases.with(|database| act(&database.begin_read()?))
    }
}
