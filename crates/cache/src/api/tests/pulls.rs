use super::*;
use crate::fake::Sending;

#[tokio::test]
async fn what_was_pulled_is_there_when_everybody_is_gone_and_after_a_restart() {
    let world = World::new();
    place(&world, "a", 100);
    let image = push(&world, "a", "1", &vec![7; 200_000]);
    pull(&world, "quay.io/x", "1", &[]).await.unwrap();
    world.cut(&["a"]);
    let world = world.restarted().await;
    let pulled = pull(&world, "quay.io/x", "1", &[]).await.unwrap();
    assert_eq!(pulled.manifest, image.manifest);
    let stale = world.get("/v2/quay.io/x/manifests/1").await;
    assert!(
        stale.header("warning").starts_with("299 - \""),
        "{}",
        stale.header("warning")
    );
    let missing = world.get("/v2/quay.io/x/manifests/2").await;
    assert_eq!((missing.status, missing.header("retry-after")), (503, "5"));
    // A digest is for ever: it is not stale.
    let path = format!("/v2/quay.io/x/manifests/{}", image.manifest);
    assert!(world.get(&path).await.header("warning").is_empty());
    let tags = world.get("/v2/quay.io/x/tags/list").await;
    assert!(!tags.header("warning").is_empty());
    assert!(world.cache.storage().verify().unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn one_head_for_a_thousand_clients_of_one_tag() {
    let world = World::new();
    place(&world, "a", 100);
    push(&world, "a", "1", b"layer");
    world
        .upstream
        .with("a", |fake| fake.delay = Duration::from_secs(1));
    let clients = (0..1000).map(|_| world.head("/v2/quay.io/x/manifests/1"));
    for answer in futures_util::future::join_all(clients).await {
        assert_eq!(answer.status, 200);
    }
    let counts = world.upstream.read("a", |fake| (fake.heads, fake.gets));
    assert_eq!(counts, (1, 1));
}

#[tokio::test]
async fn wrong_bytes_break_the_answer_off() {
    let world = World::new();
    place(&world, "a", 100);
    let image = push(&world, "a", "1", &vec![1; 500_000]);
    world
        .upstream
        .with("a", |fake| fake.sending = Sending::Wrongly);
    let path = format!("/v2/quay.io/x/blobs/{}", image.layer);
    let answer = world.get(&path).await;
    // An error, where the end was known before anything was sent.
    let is_refused = answer.status == 502;
    assert!(
        (answer.broken || is_refused) && answer.body.len() < 500_000,
        "{}",
        answer.status
    );
    assert!(
        world
            .cache
            .storage()
            .index()
            .object(&image.layer)
            .unwrap()
            .is_none()
    );
}
