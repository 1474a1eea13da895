//! Freeing what nobody uses any more: what no tag has named, and nobody has asked for by its digest, for
//! `unusedFor`.
//!
//! Anything that can't be read ends it before something is deleted. Killed at any moment it leaves at most
//! what the next one deletes; a blob that goes too early costs one more download.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;

use super::{Shared, records};
use crate::digest::Digest;
use crate::manifest::{MAX_MANIFEST, parse};
use crate::storage::now;
use crate::store::s3::Found;
use crate::store::s3::keys::LinkKey;
use crate::store::{Bucket, StoreError};

/// Objects that are read or deleted at once.
const AT_ONCE: usize = 8;

/// What was freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs and manifests that were deleted.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Tags and links that were deleted.
    pub links: u64,
}

#[derive(Default)]
struct Links {
    /// What is used: manifests that a tag or somebody by their digest has named.
    roots: Vec<Digest>,
    tags: Vec<Path>,
    unused: Vec<Path>,
    of_blobs: Vec<(Path, Digest)>,
}

impl Shared {
    /// Frees what was not used for `unusedFor`.
    ///
    /// # Errors
    /// Where the bucket does not answer, or not well. Nothing that is used has been deleted then.
    pub async fn collect(&self) -> Result<Collected, StoreError> {
        let bucket = &self.inner.bucket;
        let is_old = older_than(self.inner.unused_for);
        let links = self.links(&is_old).await?;
        let used = mark(bucket, links.roots).await?;
        let mut collected = Collected::default();
        let blobs: Vec<Found> = bucket
            .list_keys(&bucket.keys().blobs())
            .try_filter_map(|found| {
                let digest = bucket.keys().digest_of(&found.key);
                let is_unused = digest.is_some_and(|d| is_old(&found) && !used.contains(&d));
                futures_util::future::ready(Ok(is_unused.then_some(found)))
            })
            .try_collect()
            .await?;
        // Links first: one that names nothing costs a question, a blob that nothing names its place.
        let of_blobs = links.of_blobs.into_iter();
        let of_blobs = of_blobs.filter(|(_, digest)| !used.contains(digest));
        let unused = links.unused.into_iter().chain(of_blobs.map(|(key, _)| key));
        let unused = unused.map(|key| (key, 0)).collect();
        (collected.links, _) = self.delete_all(unused, &is_old).await?;
        let blobs = blobs.into_iter().map(|found| (found.key, found.size));
        (collected.blobs, collected.bytes) = self.delete_all(blobs.collect(), &is_old).await?;
        Ok(collected)
    }

    async fn links(&self, is_old: &impl Fn(&Found) -> bool) -> Result<Links, StoreError> {
        let bucket = &self.inner.bucket;
        let mut links = Links::default();
        let mut listed = bucket.list_keys(&bucket.keys().links());
        while let Some(found) = listed.next().await {
            let found = found?;
            let old = is_old(&found);
            match bucket.keys().link_of(&found.key) {
                Some(LinkKey::Blob(digest)) if old => links.of_blobs.push((found.key, digest)),
                Some(LinkKey::Tag | LinkKey::Manifest(_)) if old => links.unused.push(found.key),
                Some(LinkKey::Manifest(digest)) => links.roots.push(digest),
                Some(LinkKey::Tag) => links.tags.push(found.key),
                Some(LinkKey::Blob(_)) | None => {}
            }
        }
        let read = stream::iter(std::mem::take(&mut links.tags))
            .map(|key| async move {
                let content = bucket.read_small(&key, records::MAX_RECORD).await?;
                let tag = content.and_then(|c| records::parse::<super::SharedTag>(&c, &key));
                Ok::<_, StoreError>(tag.map(|tag| tag.digest))
            })
            .buffer_unordered(AT_ONCE);
        let named: Vec<Option<Digest>> = read.try_collect().await?;
        links.roots.extend(named.into_iter().flatten());
        Ok(links)
    }

    /// Deletes what nobody has written anew since it was looked at. How many that were, and the sum of
    /// their sizes.
    async fn delete_all(
        &self,
        keys: Vec<(Path, u64)>,
        is_old: &impl Fn(&Found) -> bool,
    ) -> Result<(u64, u64), StoreError> {
        let bucket = &self.inner.bucket;
        let deleted = stream::iter(keys)
            .map(|(key, size)| async move {
                let found = bucket.find(&key).await?;
                let is_unused = found.is_some_and(|found| is_old(&found));
                if is_unused {
                    bucket.delete_key(&key).await?;
                }
                Ok::<_, StoreError>(is_unused.then_some(size))
            })
            .buffer_unordered(AT_ONCE)
            .try_fold((0, 0), |(count, bytes), size| async move {
                Ok(size.map_or((count, bytes), |size| (count + 1, bytes + size)))
            });
        deleted.await
    }
}

fn older_than(age: Duration) -> impl Fn(&Found) -> bool {
    let limit = now().saturating_sub(age.as_secs());
    move |found| found.written_at < limit
}

/// All that the roots refer to, and they themselves.
async fn mark(bucket: &Bucket, roots: Vec<Digest>) -> Result<HashSet<Digest>, StoreError> {
    let mut used: HashSet<Digest> = HashSet::new();
    let mut level: HashSet<Digest> = roots.into_iter().collect();
    while !level.is_empty() {
        level.retain(|digest| !used.contains(digest));
        used.extend(level.iter().cloned());
        let read = stream::iter(std::mem::take(&mut level))
            .map(|digest| async move {
                let key = bucket.keys().blob(&digest);
                let content = bucket.read_small(&key, MAX_MANIFEST as u64).await?;
                // What is another content names nothing; who reads it deletes it.
                let content = content.filter(|content| digest.matches(content));
                Ok::<_, StoreError>(content.and_then(|content| parse(&content, None).ok()))
            })
            .buffer_unordered(AT_ONCE);
        let parsed: Vec<_> = read.try_collect().await?;
        for child in parsed.into_iter().flatten().flat_map(|p| p.children) {
            match child.kind {
                crate::manifest::Kind::Manifest => {
                    level.insert(child.digest);
                }
                crate::manifest::Kind::Blob => {
                    used.insert(child.digest);
                }
            }
        }
    }
    Ok(used)
}
