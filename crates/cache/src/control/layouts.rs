//! Images that come and go in a file.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::images::failed;
use super::{Event, Sink};
use crate::index::Named;
use crate::layout::{self, LayoutError, Wanted};
use crate::service::Cache;
use crate::storage::{Storage, StorageError};

/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Writes images to a file as an image layout.
pub(super) async fn export(
    cache: &Cache,
    names: Vec<String>,
    file: Option<OwnedFd>,
    sink: &Sink,
) -> bool {
    let Some(file) = file else {
        return failed(sink, &"no file came with the command");
    };
    let told = sink.clone();
    let exported = blocking(cache, move |storage| {
        let wanted = names.iter().map(|name| wanted(storage, name));
        let wanted: Vec<Wanted> = wanted.collect::<Result<_, _>>()?;
        let mut progress = progress(&told, "writing the archive", 0);
        layout::export(storage, &wanted, File::from(file), &mut progress)
    });
    match exported.await {
        Ok(images) => {
            for image in images {
                let what = described(&image.name, image.bytes, &image.platforms);
                sink.send(Event::Text(format!("{what} exported")));
            }
            true
        }
        Err(error) => failed(sink, &error),
    }
}

fn wanted(storage: &Storage, name: &str) -> Result<Wanted, LayoutError> {
    let named = Named::parse(name).map_err(|why| LayoutError::Wrong(format!("{name}: {why}")))?;
    let key = Some(named.key());
    Ok(match named {
        Named::Digest(digest) => Wanted { name: None, digest },
        Named::InRepository(_, digest) => Wanted { name: key, digest },
        Named::Tag(tag) => match storage.index().tag(&tag)? {
            Some(known) => Wanted {
                name: key,
                digest: known.digest,
            },
            None => {
                let why = format!("{name} is not in the cache; `cache warm` fetches it");
                return Err(LayoutError::Wrong(why));
            }
        },
    })
}

/// Brings the images of a layout in. True with their names.
pub(super) async fn import(
    cache: &Cache,
    given: Option<String>,
    file: Option<OwnedFd>,
    sink: &Sink,
) -> Option<Vec<String>> {
    let Some(file) = file else {
        failed(sink, &"no file came with the command");
        return None;
    };
    let told = sink.clone();
    let imported = blocking(cache, move |storage| {
        let file = File::from(file);
        let total = file.metadata().map_or(0, |metadata| metadata.len());
        let mut progress = progress(&told, "reading the archive", total);
        layout::import(storage, file, given.as_deref(), &mut progress)
    });
    match imported.await {
        Ok(images) => {
            for image in &images {
                let what = described(&image.name, image.bytes, &image.platforms);
                sink.send(Event::Text(format!("{what} imported")));
            }
            Some(images.into_iter().map(|image| image.name).collect())
        }
        Err(error) => {
            failed(sink, &error);
            None
        }
    }
}

fn described(name: &str, bytes: u64, platforms: &[String]) -> String {
    match platforms.is_empty() {
        true => format!("{name}, {bytes} bytes,"),
        false => format!("{name}, {bytes} bytes, {},", platforms.join(" ")),
    }
}

/// Tells how far it is. It goes on for as long as somebody listens.
fn progress(
    sink: &Sink,
    what: &'static str,
    length: u64,
) -> impl FnMut(u64, Option<u64>) -> bool + use<> {
    let sink = sink.clone();
    let mut last = Instant::now();
    move |bytes, total| {
        if last.elapsed() >= PROGRESS_INTERVAL {
            last = Instant::now();
            sink.send(Event::Progress {
                image: what.to_owned(),
                bytes,
                total: total.unwrap_or(length),
            });
        }
        sink.is_listened_to()
    }
}

async fn blocking<T: Send + 'static>(
    cache: &Cache,
    work: impl FnOnce(&Storage) -> Result<T, LayoutError> + Send + 'static,
) -> Result<T, LayoutError> {
    let storage = cache.storage();
    let done = tokio::task::spawn_blocking(move || work(&storage)).await;
    done.unwrap_or_else(|ended| Err(StorageError::Io(std::io::Error::other(ended)).into()))
}
