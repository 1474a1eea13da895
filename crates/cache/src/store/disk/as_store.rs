//! A directory as one store among others.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};

use super::Disk;
use crate::digest::Digest;
use crate::store::{BlobStore, ByteStream, Reading, StoreError};

/// Read at a time.
const CHUNK: usize = 256 * 1024;

/// A file from an offset to another, read piece by piece where blocking is fine.
fn stream_file(file: File, from: u64, to: u64) -> ByteStream {
    let file = Arc::new(file);
    stream::try_unfold((file, from), move |(file, at)| async move {
        let reading = Arc::clone(&file);
        let read = tokio::task::spawn_blocking(move || {
            let left = usize::try_from(to.saturating_sub(at)).unwrap_or(CHUNK);
            let mut chunk = vec![0; left.min(CHUNK)];
            let length = reading.read_at(&mut chunk, at)?;
            chunk.truncate(length);
            Ok::<_, io::Error>(Bytes::from(chunk))
        });
        let chunk = read
            .await
            .unwrap_or_else(|ended| Err(io::Error::other(ended)))?;
        let next = at + chunk.len() as u64;
        Ok((!chunk.is_empty()).then_some((chunk, (file, next))))
    })
    .boxed()
}

impl BlobStore for Disk {
    fn stat<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>, StoreError>> {
        let wanted = digest.clone();
        Box::pin(
            self.blocking(format!("looking for {}", digest.short()), move |disk| {
                Ok(disk.open_blob(&wanted)?.map(|(_, length)| length))
            }),
        )
    }

    fn read<'a>(
        &'a self,
        digest: &'a Digest,
        from: u64,
        to: Option<u64>,
    ) -> BoxFuture<'a, Result<Option<Reading>, StoreError>> {
        let wanted = digest.clone();
        Box::pin(async move {
            let doing = format!("opening {}", wanted.short());
            let opened = self
                .blocking(doing, move |disk| disk.open_blob(&wanted))
                .await?;
            Ok(opened.map(|(file, total)| Reading {
                total,
                bytes: stream_file(file, from, to.unwrap_or(total)),
            }))
        })
    }

    fn put<'a>(
        &'a self,
        digest: &'a Digest,
        file: &'a Path,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let (wanted, source) = (digest.clone(), file.to_owned());
        Box::pin(async move {
            let doing = format!("storing {}", wanted.short());
            let put = wanted.clone();
            let is_right = self
                .blocking(doing, move |disk| disk.put_file(&put, &source))
                .await?;
            if is_right {
                Ok(())
            } else {
                Err(StoreError::WrongDigest(wanted))
            }
        })
    }

    fn delete<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, StoreError>> {
        let wanted = digest.clone();
        let doing = format!("deleting {}", digest.short());
        Box::pin(self.blocking(doing, move |disk| disk.remove(&wanted)))
    }

    fn list(&self) -> BoxStream<'_, Result<(Digest, u64), StoreError>> {
        stream::once(async move {
            let doing = format!("listing {}", self.dir().display());
            let listed = self.blocking(doing, |disk| {
                let mut all = Vec::new();
                disk.for_each(|digest, length| all.push((digest, length)))?;
                Ok(all)
            });
            match listed.await {
                Ok(all) => all.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            }
        })
        .flat_map(stream::iter)
        .boxed()
    }
}

impl Disk {
    async fn blocking<T: Send + 'static>(
        &self,
        doing: String,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let disk = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&disk)).await;
        done.unwrap_or_else(|ended| Err(io::Error::other(ended)))
            .map_err(StoreError::io(doing))
    }

    /// Copies a file to a blob's place; false where it has another digest.
    fn put_file(&self, digest: &Digest, source: &Path) -> io::Result<bool> {
        if self.open_blob(digest)?.is_some() {
            return Ok(true);
        }
        let Some(staged) = self.stage(digest, &mut File::open(source)?)? else {
            return Ok(false);
        };
        self.place(&staged, digest)?;
        Ok(true)
    }
}
