//! The cache at a glance, and what it has of an image: for `status`, the page and `resolve`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use telemetry::report::{Arriving, NodeCacheImage, NodeCacheStatus, timestamp};

use crate::digest::Digest;
use crate::index::{Index, IndexError, Named};
use crate::pull_through::Transfer;
use crate::service::{Cache, RequestKind, RequestOutcome};
use crate::storage::StorageError;

/// State of the cache.
pub async fn status(cache: &Cache) -> NodeCacheStatus {
    let counters = cache.counters();
    let count = |outcome| {
        let kinds = [RequestKind::Manifest, RequestKind::Blob];
        kinds
            .map(|kind| counters.requests(kind, outcome))
            .iter()
            .sum()
    };
    let storage = cache.storage();
    let (sent_bytes, received_bytes) = counters.bytes();
    let counted = cache.stored(|storage| storage.image_count_of_late());
    NodeCacheStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        dir: storage.disk().dir().display().to_string(),
        hits: count(RequestOutcome::Hit),
        misses: count(RequestOutcome::Miss),
        stale: count(RequestOutcome::Stale),
        errors: count(RequestOutcome::Error),
        sent_bytes,
        received_bytes,
        stored_bytes: storage.stored_bytes(),
        max_bytes: storage.limits().max_size,
        stored_images: counted.await.unwrap_or(0),
        evictions: storage.evictions(),
        passes_through: storage.is_failing(),
        arriving: arriving(cache, |_| true),
    }
}

/// What arrives, in the order of digests, so that it does not jump about.
fn arriving(cache: &Cache, wanted: impl Fn(&Digest) -> bool) -> Vec<Arriving> {
    let mut all = cache.transfers().all();
    all.retain(|transfer| wanted(transfer.digest()));
    all.sort_by(|a, b| a.digest().cmp(b.digest()));
    all.iter().map(described).collect()
}

fn described(transfer: &Arc<Transfer>) -> Arriving {
    let progress = transfer.watch();
    let progress = progress.borrow();
    Arriving {
        digest: transfer.digest().to_string(),
        repository: transfer.wanted().repository.to_string(),
        bytes: progress.ranges.bytes(),
        total: progress.total.or(transfer.wanted().size),
        from: progress.proven_by.clone(),
    }
}

/// What it has of an image.
///
/// # Errors
/// The name is none, or the store fails.
pub async fn image(cache: &Cache, name: &str) -> Result<NodeCacheImage, String> {
    let named = Named::parse(name)?;
    let found = cache.stored(move |storage| known(storage.index(), &named));
    let (mut image, digests) = found.await.map_err(|error| error.to_string())?;
    image.arriving = arriving(cache, |digest| digests.contains(digest));
    Ok(image)
}

fn known(index: &Index, named: &Named) -> Result<(NodeCacheImage, HashSet<Digest>), StorageError> {
    let mut image = NodeCacheImage::default();
    let root = match named {
        Named::Tag(name) => index.tag(name)?.map(|tag| {
            let at = UNIX_EPOCH + Duration::from_secs(tag.validated_at);
            image.confirmed_at = Some(timestamp(at));
            image.from = Some(tag.place);
            tag.digest
        }),
        Named::InRepository(repository, digest) => index.linked(repository, digest)?.map(|link| {
            image.from = Some(link.place);
            digest.clone()
        }),
        Named::Digest(digest) => Some(digest.clone()),
    };
    let mut digests = HashSet::new();
    let root = match root {
        Some(root) if index.object(&root)?.is_some() => root,
        // Nothing, or a name whose content had to go.
        _ => return Ok((NodeCacheImage::default(), digests)),
    };
    let whole = index.whole(&root)?;
    image.is_whole = whole.missing.is_none();
    image.platforms = whole.platforms;
    image.bytes = below(index, &root, &mut digests)?;
    let pins = index.pins()?;
    let is_named = |pinned: &str| named.key() == pinned;
    image.pinned = pins
        .iter()
        .any(|(pinned, pin)| is_named(pinned) || pin.digest == root);
    image.digest = Some(root.to_string());
    Ok((image, digests))
}

/// Bytes that are there of a manifest and all below it; collects what it refers to.
fn below(index: &Index, root: &Digest, digests: &mut HashSet<Digest>) -> Result<u64, IndexError> {
    let (mut open, mut bytes) = (vec![root.clone()], 0);
    while let Some(digest) = open.pop() {
        if !digests.insert(digest.clone()) {
            continue;
        }
        if let Some(object) = index.object(&digest)? {
            bytes += object.size;
            open.extend(object.children.into_iter().map(|child| child.digest));
        }
    }
    Ok(bytes)
}
