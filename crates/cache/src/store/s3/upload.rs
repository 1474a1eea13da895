//! Writing a blob: small ones in one request, large ones in parts. Never is more of one in memory than
//! the parts that are on their way.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path as FilePath;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};

use super::{Bucket, StoreError, failed};
use crate::digest::{Digest, Hasher};

/// Length of one part; S3 wants at least 5 MiB of all but the last.
const PART_SIZE: u64 = 8 * 1024 * 1024;
/// Parts of one upload, at most: S3 takes 10,000.
const MAX_PARTS: u64 = 9_000;
/// Parts that are on their way at once.
const PARTS_AT_ONCE: usize = 2;

/// A file that is read and hashed piece by piece.
struct Source {
    file: File,
    hasher: Hasher,
}

pub(super) async fn upload(
    bucket: &Bucket,
    digest: &Digest,
    file: &FilePath,
    replaces: bool,
) -> Result<(), StoreError> {
    let reading = || format!("reading {}", file.display());
    let (path, hasher) = (file.to_owned(), digest.hasher());
    let opened = blocking(move || {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok((Source { file, hasher }, length))
    });
    let (source, length) = opened.await.map_err(StoreError::io(reading()))?;
    let key = bucket.keys.blob(digest);
    if length > PART_SIZE {
        return in_parts(bucket, &key, digest, source, length, reading).await;
    }
    let read = source.part(length).await;
    let (source, content) = read.map_err(StoreError::io(reading()))?;
    if source.hasher.finish() != *digest {
        return Err(StoreError::WrongDigest(digest.clone()));
    }
    if replaces {
        return bucket.write_small(&key, content).await;
    }
    let written = bucket.write_new(&key, content).await;
    written.map_err(|error| failed(&error, format!("writing {key}")))
}

async fn in_parts(
    bucket: &Bucket,
    key: &Path,
    digest: &Digest,
    source: Source,
    length: u64,
    reading: impl Fn() -> String,
) -> Result<(), StoreError> {
    let writing = || format!("writing {key}");
    let begun = bucket.objects.put_multipart(key).await;
    let mut upload = begun.map_err(|error| failed(&error, writing()))?;
    let sent = send_parts(upload.as_mut(), source, length, reading, writing).await;
    let ended = match sent {
        Ok(found) if found == *digest => upload
            .complete()
            .await
            .map(|_| ())
            .map_err(|error| failed(&error, writing())),
        Ok(_) => Err(StoreError::WrongDigest(digest.clone())),
        Err(error) => Err(error),
    };
    if ended.is_err() {
        // What stays of it is the server's to throw away; nobody sees it.
        let _ = upload.abort().await;
    }
    ended
}

async fn send_parts(
    upload: &mut dyn MultipartUpload,
    mut source: Source,
    length: u64,
    reading: impl Fn() -> String,
    writing: impl Fn() -> String,
) -> Result<Digest, StoreError> {
    let size = PART_SIZE.max(length.div_ceil(MAX_PARTS));
    let mut running = FuturesUnordered::new();
    let mut left = length;
    while left > 0 {
        let read = source.part(size.min(left)).await;
        let (next, content) = read.map_err(StoreError::io(reading()))?;
        source = next;
        left -= content.len() as u64;
        running.push(upload.put_part(PutPayload::from(content)));
        if running.len() >= PARTS_AT_ONCE
            && let Some(Err(error)) = running.next().await
        {
            return Err(failed(&error, writing()));
        }
    }
    while let Some(sent) = running.next().await {
        sent.map_err(|error| failed(&error, writing()))?;
    }
    Ok(source.hasher.finish())
}

impl Source {
    /// The next `length` bytes.
    async fn part(mut self, length: u64) -> io::Result<(Self, Bytes)> {
        blocking(move || {
            let length = usize::try_from(length).map_err(io::Error::other)?;
            let mut content = vec![0; length];
            self.file.read_exact(&mut content)?;
            self.hasher.update(&content);
            Ok((self, Bytes::from(content)))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|ended| Err(io::Error::other(ended)))
}
