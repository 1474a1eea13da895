//! Where blobs are kept: under their digest, whole or not at all.
//!
//! Every store behaves in the same way, which `conformance` shows for each: what is there has the
//! digest that it is asked for by, and what was put is there when `put` has returned.

#[cfg(test)]
pub(crate) mod conformance;
pub mod disk;
pub mod s3;

use std::io;
use std::path::Path;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::digest::Digest;

pub use disk::Disk;
pub use s3::Bucket;

/// Why a store could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The content has another digest than the one that it was put under.
    #[error("the content has another digest than {0}; it was not stored")]
    WrongDigest(Digest),
    /// The disk or the network failed.
    #[error("{doing}: {error}")]
    Io {
        /// What was being done, to which file or object.
        doing: String,
        /// What went wrong.
        error: io::Error,
    },
}

impl StoreError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |error| Self::Io { doing, error }
    }
}

/// A part of a blob.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// A blob that is being read.
pub struct Reading {
    /// Length of the whole blob.
    pub total: u64,
    /// The part that was asked for.
    pub bytes: ByteStream,
}

/// A place that keeps blobs by their digest.
pub trait BlobStore: Send + Sync + 'static {
    /// The blob's length, where it is there.
    fn stat<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>, StoreError>>;

    /// The blob from byte `from` to byte `to` (not included) or to its end, where it is there. Nothing
    /// is verified here: what reads a whole blob computes its digest.
    fn read<'a>(
        &'a self,
        digest: &'a Digest,
        from: u64,
        to: Option<u64>,
    ) -> BoxFuture<'a, Result<Option<Reading>, StoreError>>;

    /// Stores a file's content, unless it is there already. It is visible only when it is whole.
    ///
    /// # Errors
    /// [`StoreError::WrongDigest`] where the file is not what it is said to be.
    fn put<'a>(
        &'a self,
        digest: &'a Digest,
        file: &'a Path,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Deletes a blob; true where there was one.
    fn delete<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// All blobs and their lengths.
    fn list(&self) -> BoxStream<'_, Result<(Digest, u64), StoreError>>;
}
