//! Fetching images before they are wanted.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use policy::Reference;

use super::blob::fetch_blob;
use super::{Event, Sink, WarmImage, images};
use crate::digest::Digest;
use crate::manifest::{Child, Kind, parse};
use crate::name::Repository;
use crate::service::{Cache, Refusal, Who};

/// Images that are fetched at once. A registry is asked for so many manifests and layers at a time only,
/// whatever comes here.
const IMAGES_AT_ONCE: usize = 4;
/// Layers of one image that are fetched at once.
const BLOBS_AT_ONCE: usize = 3;

/// Fetches images with all their layers, for as long as somebody waits for it. What is there already is not
/// fetched again. False where one could not be had.
pub(super) async fn warm_all(
    cache: &Cache,
    images: Vec<WarmImage>,
    platforms: &[String],
    sink: &Sink,
) -> bool {
    let total = images.len();
    let warmed = stream::iter(images).map(async |image| {
        // Whoever asked for a thousand images and left is asked again, and goes on from here.
        if !sink.is_listened_to() {
            return false;
        }
        let is_there = warm(cache, &image.image, platforms, sink).await;
        is_there && (!image.pin || images::pin(cache, &image.image, sink).await)
    });
    let warmed: Vec<bool> = warmed.buffer_unordered(IMAGES_AT_ONCE).collect().await;
    let there = warmed.iter().filter(|is_there| **is_there).count();
    if total > 1 {
        sink.send(Event::Text(format!(
            "{there} of {total} images are in the cache"
        )));
    }
    there == total
}

async fn warm(cache: &Cache, image: &str, platforms: &[String], sink: &Sink) -> bool {
    match fetch(cache, image, platforms, sink).await {
        Ok(bytes) => {
            sink.send(Event::Text(format!(
                "{image} is in the cache, {bytes} bytes"
            )));
            true
        }
        Err(why) => {
            // Nothing more is expected of it.
            sink.send(Event::Progress {
                image: image.to_owned(),
                bytes: 0,
                total: 0,
            });
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
                    match cache.manifest_by_digest(&who, &child.digest).await {
                        Ok(found) => open.push(found),
                        // Tools that copy images often leave attestations behind; the image runs without.
                        Err(Refusal::NotFound(_)) if is_attestation(&child) => {
                            sink.send(Event::Text(format!(
                                "{image}: its attestation {} is nowhere, so it is left out",
                                child.digest
                            )));
                        }
                        Err(refusal) => return Err(refused(refusal)),
                    }
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
    // Bytes that are there of each.
    let there = Mutex::new(vec![0; blobs.len()]);
    let progress = |number: usize, bytes: u64| {
        let mut there = there.lock();
        if let Some(known) = there.get_mut(number) {
            *known = bytes;
        }
        sink.send(Event::Progress {
            image: image.to_owned(),
            bytes: there.iter().sum(),
            total,
        });
    };
    stream::iter(blobs.iter().enumerate())
        .map(Ok)
        .try_for_each_concurrent(BLOBS_AT_ONCE, async |(number, blob)| {
            fetch_blob(cache, &who, &blob.digest, &|bytes| progress(number, bytes)).await?;
            progress(number, blob.size);
            Ok::<_, String>(())
        })
        .await?;
    Ok(total)
}

/// Whether a manifest of an index is about the image, and none of its platforms'.
fn is_attestation(child: &Child) -> bool {
    child.platform.as_deref() == Some("unknown/unknown")
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
