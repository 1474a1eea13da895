//! A bucket of an S3-compatible server: blobs as raw bytes under their digest, and small records
//! beside them.
//!
//! Nothing here waits for a bounded time or asks less often what does not answer: that is
//! [`crate::shared`]'s. A bucket may be written to by anybody, so what comes from it is verified.

pub mod client;
pub mod keys;
#[cfg(test)]
mod tests;
mod upload;

use std::fmt;
use std::io;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

use super::{BlobStore, Reading, StoreError};
use crate::digest::Digest;

pub use self::client::{BucketError, open};
use self::keys::Keys;

/// A bucket, below the prefix that the config gives. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    objects: Arc<dyn ObjectStore>,
    keys: Keys,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client's own text may name the key's ID.
        f.debug_struct("Bucket").finish_non_exhaustive()
    }
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its key.
    pub key: Path,
    /// Its length.
    pub size: u64,
    /// When it was written last, in seconds since 1970, by the server's clock.
    pub written_at: u64,
}

impl From<ObjectMeta> for Found {
    fn from(meta: ObjectMeta) -> Self {
        Self {
            size: meta.size,
            written_at: u64::try_from(meta.last_modified.timestamp()).unwrap_or_default(),
            key: meta.location,
        }
    }
}

impl Bucket {
    /// A bucket behind a client; what is below `prefix` is ours.
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self {
            objects,
            keys: Keys::new(prefix),
        }
    }

    /// Where things lie in it.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What is known of an object; None where there is none.
    ///
    /// # Errors
    /// The server does not answer, or not well.
    pub async fn find(&self, key: &Path) -> Result<Option<Found>, StoreError> {
        let found = self.objects.head(key).await;
        Ok(present(found, || format!("asking for {key}"))?.map(Found::from))
    }

    /// A whole small object; None where there is none. One that is longer than `limit` is not what it
    /// should be, and is as good as empty.
    ///
    /// # Errors
    /// The server does not answer, or not well.
    pub async fn read_small(&self, key: &Path, limit: u64) -> Result<Option<Bytes>, StoreError> {
        let doing = || format!("reading {key}");
        let Some(got) = present(self.objects.get(key).await, doing)? else {
            return Ok(None);
        };
        if got.meta.size > limit {
            return Ok(Some(Bytes::new()));
        }
        let content = got.bytes().await;
        content.map(Some).map_err(|error| failed(&error, doing()))
    }

    /// Writes a small object, whatever was there.
    ///
    /// # Errors
    /// The server does not answer, or refuses.
    pub async fn write_small(&self, key: &Path, content: Bytes) -> Result<(), StoreError> {
        let written = self.objects.put(key, PutPayload::from(content)).await;
        written
            .map(|_| ())
            .map_err(|error| failed(&error, format!("writing {key}")))
    }

    /// Deletes an object, where there is one.
    ///
    /// # Errors
    /// The server does not answer, or refuses.
    pub async fn delete_key(&self, key: &Path) -> Result<(), StoreError> {
        let deleted = self.objects.delete(key).await;
        present(deleted, || format!("deleting {key}")).map(|_| ())
    }

    /// All objects below a folder.
    pub fn list_keys(&self, folder: &Path) -> BoxStream<'static, Result<Found, StoreError>> {
        let doing = format!("listing {folder}");
        let listed = self.objects.list(Some(folder));
        listed
            .map(move |found| match found {
                Ok(meta) => Ok(meta.into()),
                Err(error) => Err(failed(&error, doing.clone())),
            })
            .boxed()
    }

    /// Writes a blob, over what is there where `replaces` says so. Verified before it is visible.
    ///
    /// # Errors
    /// [`StoreError::WrongDigest`]; the server or the file fail.
    pub async fn upload(
        &self,
        digest: &Digest,
        file: &FilePath,
        replaces: bool,
    ) -> Result<(), StoreError> {
        upload::upload(self, digest, file, replaces).await
    }

    /// Writes unless it is there; servers that don't know that condition overwrite.
    async fn write_new(&self, key: &Path, content: Bytes) -> Result<(), object_store::Error> {
        let options = PutOptions::from(PutMode::Create);
        let payload = PutPayload::from(content.clone());
        match self.objects.put_opts(key, payload, options).await {
            Ok(_) => Ok(()),
            // Another node was quicker. Were its bytes wrong, who reads them would notice.
            Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            // The condition may be what the server does not know.
            Err(_) => {
                let payload = PutPayload::from(content);
                self.objects.put(key, payload).await.map(|_| ())
            }
        }
    }
}

impl BlobStore for Bucket {
    fn stat<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>, StoreError>> {
        Box::pin(async move {
            let found = self.find(&self.keys.blob(digest)).await?;
            Ok(found.map(|found| found.size))
        })
    }

    fn read<'a>(
        &'a self,
        digest: &'a Digest,
        from: u64,
        to: Option<u64>,
    ) -> BoxFuture<'a, Result<Option<Reading>, StoreError>> {
        Box::pin(async move {
            let key = self.keys.blob(digest);
            let range = match (from, to) {
                // An empty blob has no byte 0 that could be asked for.
                (0, None) => None,
                (from, None) => Some(GetRange::Offset(from)),
                (from, Some(to)) => Some(GetRange::Bounded(from..to)),
            };
            let options = GetOptions {
                range,
                ..GetOptions::default()
            };
            let doing = format!("reading {key}");
            let is_part = options.range.is_some();
            let got = self.objects.get_opts(&key, options).await;
            if is_part
                && matches!(&got, Err(error) if !matches!(error, object_store::Error::NotFound { .. }))
                && let Some(total) = self.stat(digest).await?
                && total <= from
            {
                // It ends before what was asked for, and is not the blob that it is said to be.
                let bytes = futures_util::stream::empty().boxed();
                return Ok(Some(Reading { total, bytes }));
            }
            let Some(got) = present(got, || doing.clone())? else {
                return Ok(None);
            };
            let total = got.meta.size;
            let bytes = got.into_stream().map(move |chunk| {
                chunk.map_err(|error| io::Error::other(failed(&error, doing.clone())))
            });
            Ok(Some(Reading {
                total,
                bytes: bytes.boxed(),
            }))
        })
    }

    fn put<'a>(
        &'a self,
        digest: &'a Digest,
        file: &'a FilePath,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let length = tokio::fs::metadata(file)
                .await
                .map(|metadata| metadata.len());
            let length = length.map_err(StoreError::io(format!("reading {}", file.display())))?;
            // Of another length, it is not this blob.
            let known = self.stat(digest).await?;
            if known == Some(length) {
                return Ok(());
            }
            self.upload(digest, file, known.is_some()).await
        })
    }

    fn delete<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let key = self.keys.blob(digest);
            // A server answers a DELETE in the same way where there is nothing.
            let is_there = self.find(&key).await?.is_some();
            if is_there {
                self.delete_key(&key).await?;
            }
            Ok(is_there)
        })
    }

    fn list(&self) -> BoxStream<'_, Result<(Digest, u64), StoreError>> {
        let found = self.list_keys(&self.keys.blobs());
        found
            .filter_map(|found| {
                let blob = match found {
                    Ok(found) => self
                        .keys
                        .digest_of(&found.key)
                        .map(|digest| Ok((digest, found.size))),
                    Err(error) => Some(Err(error)),
                };
                futures_util::future::ready(blob)
            })
            .boxed()
    }
}

/// What was found, or nothing where there is no such object.
fn present<T>(
    found: Result<T, object_store::Error>,
    doing: impl FnOnce() -> String,
) -> Result<Option<T>, StoreError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(failed(&error, doing())),
    }
}

fn failed(error: &object_store::Error, doing: String) -> StoreError {
    let kind = match error {
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    StoreError::Io {
        doing,
        error: io::Error::new(kind, one_line(&error.to_string())),
    }
}

/// An error's text without what the server sent: that repeats the key's ID and what was signed. The URL in it
/// may be the environment's (`AWS_ENDPOINT`), with a password.
fn one_line(text: &str) -> String {
    let end = text.find(['<', '{']).unwrap_or(text.len());
    let text = text.get(..end).unwrap_or_default().trim();
    policy::text::one_line(text.trim_end_matches(':'), 300)
}
