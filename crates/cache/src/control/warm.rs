//! Fetching images before they are wanted.

use policy::Reference;

use super::{Event, Sink};
use crate::digest::Digest;
use crate::manifest::{Child, Kind, parse};
use crate::name::Repository;
use crate::service::{BlobAnswer, Cache, Refusal, Who};

/// Fetches an image with all its layers. What is there already is not fetched again.
pub(super) async fn warm(cache: &Cache, image: &str, platforms: &[String], sink: &Sink) -> bool {
    match fetch(cache, image, platforms, sink).await {
        Ok(bytes) => {
            sink.send(Event::Text(format!(
                "{image} is in the cache, {bytes} bytes"
            )));
            true
        }
        Err(why) => {
            sink.send(Event::Failed(format!("{image}: {why}")));
            false
        }
    }
}

async fn fetch(
    cache: &Cache,
    image: &str,
    platforms: &[String],
    sink: &Sink,
) -> Result<u64, String> {
    let reference = Reference::parse(image).map_err(|error| error.to_string())?;
    let repository = Repository::new(reference.domain(), reference.repository())
        .map_err(|error| error.to_string())?;
    let who = Who::nobody(repository);
    let refused = |refusal: Refusal| refusal.to_string();
    let manifest = match reference.digest() {
        Some(digest) => {
            let digest: Digest = digest.parse().map_err(|_| "not a digest".to_owned())?;
            cache.manifest_by_digest(&who, &digest).await
        }
        None => {
            let tag = reference.tag().unwrap_or("latest");
            cache.manifest_by_tag(&who, tag).await
        }
    };
    let manifest = manifest.map_err(refused)?;
    let mut open = vec![manifest];
    let mut blobs: Vec<Child> = Vec::new();
    while let Some(manifest) = open.pop() {
        let parsed = parse(&manifest.content, Some(&manifest.media_type))
            .map_err(|error| error.to_string())?;
        for child in parsed.children {
            match child.kind {
                Kind::Blob => blobs.push(child),
                Kind::Manifest if is_wanted(&child, platforms) => {
                    let found = cache.manifest_by_digest(&who, &child.digest).await;
                    open.push(found.map_err(refused)?);
                }
                Kind::Manifest => {}
            }
        }
    }
    blobs.sort_by(|a, b| a.digest.cmp(&b.digest));
    blobs.dedup_by(|a, b| a.digest == b.digest);
    if blobs.is_empty() {
        return Err("it has no manifest for the platforms that are wanted".to_owned());
    }
    let total = blobs.iter().map(|blob| blob.size).sum();
    let mut there = 0;
    let progress = |bytes: u64| {
        sink.send(Event::Progress {
            image: image.to_owned(),
            bytes,
            total,
        });
    };
    for blob in blobs {
        let before = there;
        fetch_blob(cache, &who, &blob.digest, &|bytes| progress(before + bytes)).await?;
        there += blob.size;
        progress(there);
    }
    Ok(total)
}

/// Whether a manifest of an index is to be fetched. Without platforms, this machine's; attestations
/// belong to no platform, and are fetched with `all` only.
fn is_wanted(child: &Child, platforms: &[String]) -> bool {
    let Some(platform) = &child.platform else {
        return true;
    };
    if platforms.iter().any(|wanted| wanted == "all") {
        return true;
    }
    let covers = |wanted: &str| {
        platform == wanted
            || platform
                .strip_prefix(wanted)
                .is_some_and(|rest| rest.starts_with('/'))
    };
    match platforms.is_empty() {
        true => covers(&format!("linux/{}", architecture())),
        false => platforms.iter().any(|wanted| covers(wanted)),
    }
}

/// This machine's architecture, as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Waits until a blob is in the store.
pub(super) async fn fetch_blob(
    cache: &Cache,
    who: &Who,
    digest: &Digest,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), String> {
    let answer = cache.blob(who, digest).await;
    let BlobAnswer::Growing { transfer, .. } = answer.map_err(|refusal| refusal.to_string())?
    else {
        return Ok(());
    };
    let mut watch = transfer.watch();
    loop {
        let bytes = watch.borrow_and_update().ranges.bytes();
        progress(bytes);
        tokio::select! {
            whole = transfer.finished() => {
                return match whole {
                    true => Ok(()),
                    false => Err(format!("{} could not be stored", digest.short())),
                };
            }
            // Not every piece is news.
            () = tokio::time::sleep(std::time::Duration::from_millis(200)) => {}
        }
    }
}
