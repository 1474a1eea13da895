use super::*;
use crate::fake::Doors;

#[tokio::test]
async fn a_miss_is_remembered_and_a_404_deletes_nothing() {
    let world = World::new();
    place(&world, "a", 100);
    push(&world, "a", "1", b"layer");
    assert_eq!(world.get("/v2/quay.io/x/manifests/2").await.status, 404);
    assert_eq!(world.get("/v2/quay.io/x/manifests/2").await.status, 404);
    assert_eq!(world.upstream.read("a", |fake| fake.heads), 1);
    let image = pull(&world, "quay.io/x", "1", &[]).await.unwrap();
    world
        .upstream
        .with("a", |fake| fake.failure = Some(Failure::NotFound));
    assert_eq!(world.get("/v2/quay.io/x/manifests/1").await.status, 404);
    // The copy is there by its digest, and again by its tag when that is wanted.
    let path = format!("/v2/quay.io/x/manifests/{}", image.manifest);
    assert_eq!(world.get(&path).await.status, 200);
    let mut deleted = settings();
    deleted.freshness.serve_deleted = true;
    world.cache.configure(deleted);
    let answer = world.get("/v2/quay.io/x/manifests/1").await;
    assert_eq!(
        (answer.status, answer.header("warning").is_empty()),
        (200, false)
    );
}

#[tokio::test]
async fn a_tag_stays_with_its_place() {
    let world = World::new();
    place(&world, "a", 100);
    place(&world, "b", 50);
    let first = push(&world, "b", "1", b"of b");
    let digest = async || {
        let answer = world.get("/v2/quay.io/x/manifests/1").await;
        (
            answer.header("docker-content-digest").to_owned(),
            !answer.header("warning").is_empty(),
        )
    };
    assert_eq!(digest().await, (first.manifest.to_string(), false));
    // A lower place with another digest is not believed while `b` is silent.
    place(&world, "c", 20);
    let other = push(&world, "c", "1", b"of c");
    world.cut(&["b"]);
    assert_eq!(digest().await, (first.manifest.to_string(), true));
    world
        .upstream
        .with("b", |fake| fake.failure = Some(Failure::NotFound));
    assert_eq!(digest().await, (other.manifest.to_string(), false));
    // A higher one is.
    let best = push(&world, "a", "1", b"of a");
    assert_eq!(digest().await, (best.manifest.to_string(), false));
}

#[tokio::test]
async fn a_tag_whose_manifest_is_not_there_or_another_is_no_answer() {
    let world = World::new();
    place(&world, "a", 100);
    place(&world, "b", 50);
    let good = push(&world, "b", "1", b"good");
    let bad = push(&world, "a", "1", b"bad");
    // The tag resolves, the digest is 404, and by the tag comes something else.
    world.upstream.with("a", |fake| {
        fake.named = Some(Digest::of(b"nowhere"));
    });
    let answer = world.get("/v2/quay.io/x/manifests/1").await;
    assert_eq!(
        answer.header("docker-content-digest"),
        good.manifest.as_str()
    );
    assert!(
        world
            .cache
            .storage()
            .index()
            .object(&bad.manifest)
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_tag_is_served_stale_whatever_keeps_its_place_from_answering() {
    for failure in [
        Failure::Silent("down".into()),
        Failure::Wrong("a page".into()),
        Failure::RateLimited(None),
        Failure::RateLimited(Some(Duration::from_secs(9))),
    ] {
        let world = World::new();
        place(&world, "a", 100);
        let image = push(&world, "a", "1", b"layer");
        pull(&world, "quay.io/x", "1", &[]).await.unwrap();
        world
            .upstream
            .with("a", |fake| fake.failure = Some(failure.clone()));
        let answer = world.get("/v2/quay.io/x/manifests/1").await;
        assert_eq!(answer.status, 200, "{failure:?}");
        let digest = answer.header("docker-content-digest");
        assert_eq!(digest, image.manifest.as_str(), "{failure:?}");
        assert!(!answer.header("warning").is_empty(), "{failure:?}");
    }
}

/// A mirror that gave `quay.io/x:1` and refuses everything now, above a place that has another one of that
/// name; both digests.
async fn a_place_that_refuses(world: &World) -> (String, String) {
    place(world, "mirror", 900);
    place(world, "other", 100);
    let old = push(world, "mirror", "1", b"old");
    pull(world, "quay.io/x", "1", &[]).await.unwrap();
    world
        .upstream
        .with("mirror", |fake| fake.doors = Doors::Closed);
    let new = push(world, "other", "1", b"new");
    (old.manifest.to_string(), new.manifest.to_string())
}

#[tokio::test]
async fn a_tag_does_not_freeze_where_its_place_refuses_the_configs_credentials() {
    let world = World::new();
    world
        .upstream
        .with("mirror", |fake| fake.is_configured = true);
    let (old, new) = a_place_that_refuses(&world).await;
    let answer = world.get("/v2/quay.io/x/manifests/1").await;
    assert_eq!(answer.header("docker-content-digest"), old);
    assert!(answer.header("warning").contains("refuses"));
    // `authStale` is over.
    let mut settings = settings();
    settings.freshness.auth_stale = Duration::ZERO;
    world.cache.configure(settings);
    let answer = world.get("/v2/quay.io/x/manifests/1").await;
    assert_eq!(answer.header("docker-content-digest"), new);
    assert_eq!(answer.header("warning"), "");
}

#[tokio::test]
async fn a_tag_that_is_private_at_its_place_is_what_it_is_elsewhere() {
    let world = World::new();
    let (old, new) = a_place_that_refuses(&world).await;
    let answer = world.get("/v2/quay.io/x/manifests/1").await;
    assert_eq!(answer.header("docker-content-digest"), new);
    assert_eq!(answer.header("warning"), "");
    // What only the first one gave is nobody's now.
    let path = format!("/v2/quay.io/x/manifests/{old}");
    assert_eq!(world.get(&path).await.status, 401);
}
