use super::*;
use crate::status::{image, status};

#[tokio::test]
async fn what_was_asked_for_is_counted_and_what_is_there_is_known() {
    let world = World::new();
    place(&world, "hub", 10);
    let pushed = push(&world, "hub", "1", &[7; 100_000]);
    let before = image(&world.cache, "a.test/x:1").await.unwrap();
    assert_eq!((before.digest, before.is_whole), (None, false));
    pull(&world, "a.test/x", "1", &[]).await.unwrap();
    pull(&world, "a.test/x", "1", &[]).await.unwrap();
    let seen = status(&world.cache).await;
    assert_eq!(seen.stored_images, 1);
    assert!(seen.misses >= 3 && seen.hits >= 3, "{seen:?}");
    assert!(seen.received_bytes > 100_000 && seen.sent_bytes > 200_000);
    assert!(seen.stored_bytes > 100_000 && !seen.passes_through);
    assert_eq!(seen.arriving, []);
    let known = image(&world.cache, "a.test/x:1").await.unwrap();
    assert_eq!(known.digest.as_deref(), Some(pushed.manifest.as_str()));
    assert!(known.is_whole && !known.pinned && known.bytes > 100_000);
    assert!(known.confirmed_at.is_some() && known.from.unwrap().contains("hub"));
    // What had to go is not whole any more.
    world.cache.storage().forget(&pushed.layer).unwrap();
    let known = image(&world.cache, &format!("a.test/x@{}", pushed.manifest)).await;
    let known = known.unwrap();
    assert!(!known.is_whole && known.bytes < 100_000 && known.confirmed_at.is_none());
    assert!(image(&world.cache, "UPPER CASE").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_arrives_is_shown_with_where_it_comes_from() {
    let world = World::new();
    place(&world, "hub", 10);
    let pushed = push(&world, "hub", "1", &[7; 400_000]);
    world
        .upstream
        .with("hub", |fake| fake.pace = Duration::from_secs(1));
    assert_eq!(world.get("/v2/a.test/x/manifests/1").await.status, 200);
    let path = format!("/v2/a.test/x/blobs/{}", pushed.layer);
    let reading = world.get(&path);
    let looking = async {
        testkit::wait::until("some of it is there", || async {
            let arriving = status(&world.cache).await.arriving;
            arriving.into_iter().find(|blob| blob.bytes > 0)
        })
        .await
    };
    let (read, seen) = tokio::join!(reading, looking);
    assert_eq!(read.body.len(), 400_000);
    assert_eq!(seen.digest, pushed.layer.as_str());
    assert_eq!(seen.repository, "a.test/x");
    assert_eq!(seen.total, Some(400_000));
    assert!(seen.bytes < 400_000 && seen.from.unwrap().contains("hub"));
}

#[tokio::test]
async fn a_head_sends_no_bytes() {
    let world = World::new();
    place(&world, "hub", 10);
    let pushed = push(&world, "hub", "1", &[7; 1000]);
    pull(&world, "a.test/x", "1", &[]).await.unwrap();
    let sent = || world.cache.counters().bytes().0;
    let before = sent();
    for path in [
        "/v2/a.test/x/manifests/1".to_owned(),
        format!("/v2/a.test/x/manifests/{}", pushed.manifest),
        format!("/v2/a.test/x/blobs/{}", pushed.layer),
    ] {
        let head = world.head(&path).await;
        assert_eq!(head.status, 200, "{path}");
        assert_ne!(head.header("content-length"), "0", "{path}");
        assert_eq!(sent(), before, "{path}");
    }
    let got = world.get("/v2/a.test/x/manifests/1").await;
    assert_eq!(sent(), before + got.body.len() as u64);
}
