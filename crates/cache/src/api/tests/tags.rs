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

/// What anna sends.
const ANNA: (&str, &str) = ("authorization", "Basic YW5uYTpzZWNyZXQ=");

/// A mirror, with the config's password, that gave `quay.io/x:1`; it refuses everything now, for longer than `authStale`
/// lets pass.
async fn a_refused_password(world: &World) -> Image {
    world
        .upstream
        .with("mirror", |fake| fake.is_configured = true);
    place(world, "mirror", 900);
    let old = push(world, "mirror", "1", b"old");
    pull(world, "quay.io/x", "1", &[]).await.unwrap();
    world
        .upstream
        .with("mirror", |fake| fake.doors = Doors::Closed);
    let mut settings = settings();
    settings.freshness.auth_stale = Duration::ZERO;
    world.cache.configure(settings);
    old
}

/// The origin, which takes the caller's credentials and knows anna.
fn an_origin(world: &World) {
    place(world, "origin", 0);
    world.upstream.with("origin", |fake| {
        fake.is_callers = true;
        fake.doors = Doors::For("anna".into());
    });
}

#[tokio::test]
async fn credentials_that_no_place_takes_are_none() {
    let world = World::new();
    let old = a_refused_password(&world).await;
    let by_digest = format!("/v2/quay.io/x/manifests/{}", Digest::of(b"unknown"));
    let blob = format!("/v2/quay.io/x/blobs/{}", Digest::of(b"no blob"));
    for path in [
        "/v2/quay.io/x/manifests/1",
        "/v2/quay.io/x/manifests/2",
        "/v2/quay.io/x/tags/list",
        &by_digest,
        &blob,
    ] {
        for headers in [vec![], vec![ANNA], vec![ANNA]] {
            let answer = world.ask(Method::GET, path, &headers).await;
            assert_eq!(answer.status, 401, "{path} {headers:?}");
        }
    }
    // What it gave while the password was good is still everybody's, by its digest.
    let path = format!("/v2/quay.io/x/manifests/{}", old.manifest);
    assert_eq!(world.get(&path).await.status, 200);
}

#[tokio::test]
async fn a_place_that_refuses_may_have_what_the_callers_own_has_not() {
    let world = World::new();
    a_refused_password(&world).await;
    an_origin(&world);
    let by_digest = format!("/v2/quay.io/x/manifests/{}", Digest::of(b"unknown"));
    let blob = format!("/v2/quay.io/x/blobs/{}", Digest::of(b"no blob"));
    for path in [
        "/v2/quay.io/x/manifests/1",
        "/v2/quay.io/x/manifests/2",
        &by_digest,
        &blob,
    ] {
        // The second and third time it is known that the repository refuses everybody; and nothing is remembered of it.
        for headers in [vec![ANNA], vec![ANNA], vec![ANNA], vec![]] {
            let answer = world.ask(Method::GET, path, &headers).await;
            assert_eq!(answer.status, 401, "{path} {headers:?}");
        }
    }
    // Where no place refuses the caller, he is told what is so, and others are not.
    world
        .upstream
        .with("mirror", |fake| fake.doors = Doors::Open);
    for path in ["/v2/quay.io/x/manifests/3", &by_digest, &blob] {
        for _ in 0..2 {
            assert_eq!(world.ask(Method::GET, path, &[ANNA]).await.status, 404);
            assert_eq!(world.get(path).await.status, 401);
        }
    }
}

#[tokio::test]
async fn a_tag_stays_with_a_place_that_does_not_take_the_callers_credentials() {
    let world = World::new();
    let old = a_refused_password(&world).await;
    an_origin(&world);
    let new = push(&world, "origin", "1", b"new");
    let digest = async || {
        let answer = world
            .ask(Method::GET, "/v2/quay.io/x/manifests/1", &[ANNA])
            .await;
        answer.header("docker-content-digest").to_owned()
    };
    // It is known that the repository refuses everybody.
    assert_eq!(world.get("/v2/quay.io/x/manifests/2").await.status, 401);
    world.cache.configure(settings());
    assert_eq!(digest().await, old.manifest.as_str());
    // `authStale` is over.
    let mut late = settings();
    late.freshness.auth_stale = Duration::ZERO;
    world.cache.configure(late);
    assert_eq!(digest().await, new.manifest.as_str());
}
