//! What every store has to do, run by each store's tests.

use futures_util::StreamExt;

use super::{BlobStore, StoreError};
use crate::digest::Digest;

async fn read(store: &impl BlobStore, digest: &Digest, from: u64) -> Option<Vec<u8>> {
    Some(read_part(store, digest, from, None).await?.1)
}

async fn read_part(
    store: &impl BlobStore,
    digest: &Digest,
    from: u64,
    to: Option<u64>,
) -> Option<(u64, Vec<u8>)> {
    let mut reading = store.read(digest, from, to).await.unwrap()?;
    let mut content = Vec::new();
    while let Some(chunk) = reading.bytes.next().await {
        content.extend_from_slice(&chunk.unwrap());
    }
    Some((reading.total, content))
}

async fn list(store: &impl BlobStore) -> Vec<(Digest, u64)> {
    let mut all: Vec<_> = store.list().map(Result::unwrap).collect().await;
    all.sort();
    all
}

/// Runs all of it on an empty store.
pub(crate) async fn check(store: &impl BlobStore) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("content");
    // Longer than what is read or sent at a time.
    let content: Vec<u8> = (0..600_000u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(&file, &content).unwrap();
    let digest = Digest::of(&content);

    // Nothing is there.
    assert_eq!(store.stat(&digest).await.unwrap(), None);
    assert_eq!(read(store, &digest, 0).await, None);
    assert!(!store.delete(&digest).await.unwrap());
    assert!(list(store).await.is_empty());

    // What is not what it is said to be is not stored.
    let other = Digest::of(b"something else");
    let wrong = store.put(&other, &file).await;
    assert!(
        matches!(wrong, Err(StoreError::WrongDigest(_))),
        "{wrong:?}"
    );
    assert_eq!(store.stat(&other).await.unwrap(), None);

    // What was put is there, also when it is put twice.
    store.put(&digest, &file).await.unwrap();
    store.put(&digest, &file).await.unwrap();
    let length = content.len() as u64;
    assert_eq!(store.stat(&digest).await.unwrap(), Some(length));
    assert_eq!(read(store, &digest, 0).await.as_ref(), Some(&content));
    let rest = content[599_000..].to_vec();
    assert_eq!(read(store, &digest, 599_000).await, Some(rest));

    let part = content[300_000..300_010].to_vec();
    let read_it = read_part(store, &digest, 300_000, Some(300_010)).await;
    assert_eq!(read_it, Some((length, part)));
    let rest = content[599_990..].to_vec();
    let beyond = read_part(store, &digest, 599_990, Some(700_000)).await;
    assert_eq!(beyond, Some((length, rest)));

    // An empty blob is a blob.
    let (nothing, empty) = (dir.path().join("nothing"), Digest::of(b""));
    std::fs::write(&nothing, b"").unwrap();
    store.put(&empty, &nothing).await.unwrap();
    assert_eq!(read(store, &empty, 0).await, Some(Vec::new()));
    let mut both = vec![(digest.clone(), length), (empty.clone(), 0)];
    both.sort();
    assert_eq!(list(store).await, both);

    // What was deleted is gone, and can be put again.
    assert!(store.delete(&digest).await.unwrap());
    assert!(!store.delete(&digest).await.unwrap());
    assert_eq!(read(store, &digest, 0).await, None);
    store.put(&digest, &file).await.unwrap();
    assert_eq!(store.stat(&digest).await.unwrap(), Some(length));
}
