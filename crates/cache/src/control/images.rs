//! Images in the store: listed, pinned, deleted, verified.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{Event, Sink};
use crate::digest::Digest;
use crate::index::{Index, IndexError, Named, Pin, TagName};
use crate::manifest::Kind;
use crate::name::Repository;
use crate::service::{Cache, Who};
use crate::storage::StorageError;

/// One image in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// `host/repository:tag`, or `host/repository@digest` where no tag means it; empty where it belongs
    /// to no repository.
    pub name: String,
    /// Its manifest or index.
    pub digest: String,
    /// Bytes of what is in the store of it.
    pub size: u64,
    /// Whether what is there is not enough to run it: it was never fetched to its end, or was evicted in part.
    #[serde(default)]
    pub incomplete: bool,
    /// Bytes in all, with what is missing of the manifests that are there.
    #[serde(default)]
    pub total: u64,
    /// Platforms that are in the store.
    pub platforms: Vec<String>,
    /// Second since 1970 of its last use.
    pub last_used: u64,
    /// Whether it is never evicted.
    pub pinned: bool,
    /// Where it came from.
    pub from: String,
}

pub(super) async fn list(cache: &Cache, sink: &Sink) -> bool {
    let found = cache.stored(|storage| {
        storage.flush_touched()?;
        Ok(records(storage.index())?)
    });
    match found.await {
        Ok(records) => {
            records
                .into_iter()
                .map(Event::Image)
                .for_each(|e| sink.send(e));
            true
        }
        Err(error) => failed(sink, &error),
    }
}

fn records(index: &Index) -> Result<Vec<ImageRecord>, IndexError> {
    let mut names: BTreeMap<Digest, Vec<(String, String)>> = BTreeMap::new();
    for (name, tag) in index.all_tags()? {
        let entry = names.entry(tag.digest).or_default();
        entry.push((name.to_string(), tag.place));
    }
    for (repository, digest, link) in index.all_links()? {
        if link.kind == Kind::Manifest && !names.contains_key(&digest) {
            let name = format!("{repository}@{digest}");
            names.entry(digest).or_default().push((name, link.place));
        }
    }
    let pins = index.pins()?;
    let mut records = Vec::new();
    for digest in index.roots()? {
        let Tree {
            size,
            missing,
            platforms,
        } = tree(index, &digest)?;
        let incomplete = index.whole(&digest)?.missing.is_some();
        let total = match incomplete {
            true => size + missing,
            false => size,
        };
        let last_used = index.used_at(&digest)?;
        let mut named = names.remove(&digest).unwrap_or_default();
        if named.is_empty() {
            named.push((String::new(), String::new()));
        }
        for (name, from) in named {
            records.push(ImageRecord {
                pinned: pins
                    .iter()
                    .any(|(pinned, pin)| *pinned == name || pin.digest == digest),
                name,
                digest: digest.to_string(),
                size,
                incomplete,
                total,
                platforms: platforms.clone(),
                last_used,
                from,
            });
        }
    }
    records.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(records)
}

/// What is below a manifest.
struct Tree {
    /// Bytes that are in the store.
    size: u64,
    /// Bytes that are not, of manifests that are.
    missing: u64,
    /// Platforms of an index whose manifests are in the store.
    platforms: Vec<String>,
}

fn tree(index: &Index, root: &Digest) -> Result<Tree, IndexError> {
    let (mut open, mut seen) = (vec![(root.clone(), 0)], HashSet::new());
    let (mut size, mut missing, mut platforms) = (0, 0, Vec::new());
    while let Some((digest, wanted)) = open.pop() {
        if !seen.insert(digest.clone()) {
            continue;
        }
        let Some(object) = index.object(&digest)? else {
            missing += wanted;
            continue;
        };
        size += object.size;
        for child in object.children {
            if let Some(platform) = child.platform
                && platform != "unknown/unknown"
                && index.object(&child.digest)?.is_some()
            {
                platforms.push(platform);
            }
            // A platform whose manifest nobody has asked for is not wanted.
            let wanted = match child.kind {
                Kind::Blob => child.size,
                Kind::Manifest => 0,
            };
            open.push((child.digest, wanted));
        }
    }
    platforms.sort();
    platforms.dedup();
    Ok(Tree {
        size,
        missing,
        platforms,
    })
}

/// What became of an image that was to be deleted.
enum Removed {
    /// It is gone, and so many bytes with it.
    Freed(u64),
    /// Its name is gone. Another tag means the same.
    StillTagged,
    /// Its name is gone. Another image in the cache has it as a part.
    StillPart,
}

pub(super) async fn remove(cache: &Cache, name: &str, sink: &Sink) -> bool {
    let named = match Named::parse(name) {
        Ok(named) => named,
        Err(error) => return failed(sink, &format!("{name}: {error}")),
    };
    let shown = name.to_owned();
    let removed = cache.stored(move |storage| {
        let index = storage.index();
        let digest = match named {
            Named::Digest(digest) => {
                let tags = index.all_tags()?.into_iter();
                let tags: Vec<TagName> = tags
                    .filter(|(_, tag)| tag.digest == digest)
                    .map(|(name, _)| name)
                    .collect();
                index.remove_tags(&tags)?;
                digest
            }
            Named::InRepository(repository, digest) => {
                if !index.is_part(&repository, &digest)? {
                    index.unlink(&repository, Some(&digest))?;
                }
                digest
            }
            Named::Tag(tag) => {
                let Some(known) = index.tag(&tag)? else {
                    return Ok(None);
                };
                index.remove_tags(std::slice::from_ref(&tag))?;
                index.set_pin(&tag.to_string(), None)?;
                known.digest
            }
        };
        let is_wanted = index
            .all_tags()?
            .iter()
            .any(|(_, tag)| tag.digest == digest);
        if is_wanted {
            return Ok(Some(Removed::StillTagged));
        }
        if index.object(&digest)?.is_none() {
            return Ok(None);
        }
        // A platform of an index that is here: without it the index could not be pulled any more.
        if !index.parents(&digest)?.is_empty() {
            return Ok(Some(Removed::StillPart));
        }
        Ok(Some(Removed::Freed(storage.remove_image(&digest)?)))
    });
    match removed.await {
        Ok(Some(removed)) => {
            sink.send(Event::Text(match removed {
                Removed::Freed(bytes) => format!("{shown} deleted, {bytes} bytes freed"),
                Removed::StillTagged => {
                    format!("{shown} deleted, 0 bytes freed: another tag means the same image")
                }
                Removed::StillPart => format!(
                    "{shown} deleted, 0 bytes freed: another image in the cache consists of it"
                ),
            }));
            true
        }
        Ok(None) => failed(sink, &format!("{shown} is not in the cache")),
        Err(error) => failed(sink, &error),
    }
}

pub(super) async fn pin(cache: &Cache, name: &str, sink: &Sink) -> bool {
    let named = match Named::parse(name) {
        Ok(named) => named,
        Err(error) => return failed(sink, &format!("{name}: {error}")),
    };
    let pinned = cache.stored(move |storage| {
        let index = storage.index();
        let key = named.key();
        let digest = match named {
            Named::Digest(digest) | Named::InRepository(_, digest) => digest,
            Named::Tag(tag) => match index.tag(&tag)? {
                Some(known) => known.digest,
                None => return Ok(false),
            },
        };
        if index.object(&digest)?.is_none() {
            return Ok(false);
        }
        index.set_pin(&key, Some(&Pin { digest }))?;
        Ok(true)
    });
    match pinned.await {
        Ok(true) => {
            sink.send(Event::Text(format!("{name} is pinned")));
            true
        }
        Ok(false) => failed(
            sink,
            &format!("{name} is not in the cache; fetch it with `cache warm --pin`"),
        ),
        Err(error) => failed(sink, &error),
    }
}

pub(super) async fn unpin(cache: &Cache, name: &str, sink: &Sink) -> bool {
    let key = match Named::parse(name) {
        Ok(named) => named.key(),
        Err(error) => return failed(sink, &format!("{name}: {error}")),
    };
    let unpinned = cache.stored(move |storage| Ok(storage.index().set_pin(&key, None)?));
    match unpinned.await {
        Ok(true) => {
            sink.send(Event::Text(format!("{name} is no longer pinned")));
            true
        }
        Ok(false) => failed(sink, &format!("{name} was not pinned")),
        Err(error) => failed(sink, &error),
    }
}

pub(super) async fn verify(cache: &Cache, repair: bool, sink: &Sink) -> bool {
    let verified = match cache.stored(|storage| storage.verify()).await {
        Ok(verified) => verified,
        Err(error) => return failed(sink, &error),
    };
    let is_clean = verified.is_clean();
    let damaged = [verified.damaged.clone(), verified.missing.clone()].concat();
    sink.send(Event::Verified(verified));
    if is_clean || !repair {
        return is_clean;
    }
    let mut all = true;
    for digest in damaged {
        all &= mend(cache, &digest, sink).await;
    }
    all
}

/// Deletes what is damaged, and fetches it from where it belongs.
async fn mend(cache: &Cache, digest: &Digest, sink: &Sink) -> bool {
    let wanted = digest.clone();
    let found = cache.stored(move |storage| {
        let links = storage.index().all_links()?.into_iter();
        let links: Vec<_> = links
            .filter(|(_, linked, _)| *linked == wanted)
            .map(|(repository, _, link)| (repository, link.kind))
            .collect();
        storage.forget(&wanted)?;
        Ok(links)
    });
    let links = match found.await {
        Ok(links) => links,
        Err(error) => return failed(sink, &error),
    };
    for (repository, kind) in links {
        let Some((host, path)) = repository.split_once('/') else {
            continue;
        };
        let Ok(repository) = Repository::new(host, path) else {
            continue;
        };
        let who = Who::nobody(repository);
        let is_back = match kind {
            Kind::Manifest => cache.manifest_by_digest(&who, digest).await.is_ok(),
            Kind::Blob => super::blob::fetch_blob(cache, &who, digest, &|_| ())
                .await
                .is_ok(),
        };
        if is_back {
            sink.send(Event::Text(format!("{digest} is deleted and fetched anew")));
            return true;
        }
    }
    failed(
        sink,
        &format!("{digest} is deleted; it could not be fetched anew and will be when it is wanted"),
    )
}

pub(super) async fn collect(cache: &Cache, sink: &Sink) -> bool {
    let collected = cache.stored(|storage| {
        let before = storage.stored_bytes();
        storage.tidy()?;
        storage.collect()?;
        Ok::<_, StorageError>(before.saturating_sub(storage.stored_bytes()))
    });
    match collected.await {
        Ok(bytes) => {
            sink.send(Event::Text(format!("{bytes} bytes freed")));
            true
        }
        Err(error) => failed(sink, &error),
    }
}

pub(super) async fn collect_shared(cache: &Cache, sink: &Sink) -> bool {
    let Some(shared) = cache.shared() else {
        return failed(
            sink,
            &"the config names no shared store (nodeCache.store.s3)",
        );
    };
    match shared.collect().await {
        Ok(freed) => {
            sink.send(Event::Text(format!(
                "{} blobs and {} links deleted in the shared store, {} bytes freed",
                freed.blobs, freed.links, freed.bytes
            )));
            true
        }
        Err(error) => failed(sink, &error),
    }
}

pub(super) fn failed(sink: &Sink, why: &dyn std::fmt::Display) -> bool {
    sink.send(Event::Failed(why.to_string()));
    false
}
