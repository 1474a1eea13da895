use super::*;
use crate::fake::Doors;

#[tokio::test]
async fn a_private_image_is_for_who_proves_his_right() {
    let world = World::new();
    world.upstream.with("origin", |fake| {
        fake.is_callers = true;
        fake.doors = Doors::For("anna".into());
    });
    let image = push(&world, "origin", "1", b"secret layer");
    let (anna, ben) = (basic("anna"), basic("ben"));
    let (anna, ben) = (
        [("authorization", anna.as_str())],
        [("authorization", ben.as_str())],
    );
    let challenge = world.head("/v2/quay.io/x/manifests/1").await;
    assert_eq!(challenge.status, 401);
    assert!(challenge.header("www-authenticate").starts_with("Basic "));
    pull(&world, "quay.io/x", "1", &anna).await.unwrap();
    // What is in the store now is still nobody else's, by whatever way he asks.
    let blob = format!("/v2/quay.io/x/blobs/{}", image.layer);
    let manifest = format!("/v2/quay.io/x/manifests/{}", image.manifest);
    for path in [
        blob.as_str(),
        manifest.as_str(),
        "/v2/quay.io/x/manifests/1",
        "/v2/quay.io/x/tags/list",
    ] {
        for headers in [&[][..], &ben[..]] {
            for method in [Method::HEAD, Method::GET] {
                let answer = world.ask(method.clone(), path, headers).await;
                assert_eq!(answer.status, 401, "{method} {path} {headers:?}");
            }
        }
        let answer = world.ask(Method::GET, path, &anna).await;
        assert_eq!(answer.status, 200, "{path}");
    }
    // The caller's credentials go where they belong, and nowhere else.
    let leaked = world.upstream.read("origin", |fake| {
        fake.askers
            .iter()
            .filter(|asker| asker.credentials.is_some())
            .count()
    });
    assert!(leaked > 0);
    // Anna's proof lasts when upstream is gone; who has none can't prove anything.
    world.cut(&["origin"]);
    assert_eq!(world.ask(Method::GET, &blob, &anna).await.status, 200);
    assert_eq!(world.ask(Method::GET, &manifest, &ben).await.status, 503);
    assert_eq!(world.get(&manifest).await.status, 503);
}

#[tokio::test]
async fn a_digest_known_from_elsewhere_opens_nothing() {
    let world = World::new();
    world.upstream.with("origin", |fake| {
        fake.is_callers = true;
        fake.doors = Doors::For("anna".into());
    });
    let image = push(&world, "origin", "1", b"secret layer");
    let anna = basic("anna");
    pull(&world, "quay.io/secret", "1", &[("authorization", &anna)])
        .await
        .unwrap();
    // A public repository, in which somebody has pushed a manifest that names the secret layer.
    let public = World {
        upstream: FakeUpstream::default(),
        cache: world.cache.clone(),
        api: world.api.clone(),
        dir: tempfile::tempdir().unwrap(),
    };
    drop(public);
    world.upstream.with("origin", |fake| {
        fake.doors = Doors::Open;
        fake.blobs.remove(&image.layer);
    });
    assert_eq!(world.get("/v2/quay.io/evil/manifests/1").await.status, 200);
    let path = format!("/v2/quay.io/evil/blobs/{}", image.layer);
    assert_eq!(world.head(&path).await.status, 404);
    assert_eq!(world.get(&path).await.status, 404);
    // Where upstream says that the blob is there, it is served, and that is asked once.
    world.upstream.with("origin", |fake| {
        fake.blobs
            .insert(image.layer.clone(), image.layer_content.clone().into());
    });
    let path = format!("/v2/quay.io/fork/blobs/{}", image.layer);
    let before = world.upstream.read("origin", |fake| fake.blob_heads);
    assert_eq!(world.get(&path).await.body, b"secret layer");
    assert_eq!(world.get(&path).await.body, b"secret layer");
    let counts = world.upstream.read("origin", |fake| fake.blob_heads);
    assert_eq!(counts - before, 1);
}

#[tokio::test]
async fn an_image_that_becomes_private_is_no_longer_everybodys() {
    let world = World::new();
    world.upstream.with("origin", |fake| fake.is_callers = true);
    let image = push(&world, "origin", "1", b"layer");
    pull(&world, "quay.io/x", "1", &[]).await.unwrap();
    world
        .upstream
        .with("origin", |fake| fake.doors = Doors::For("anna".into()));
    assert_eq!(world.get("/v2/quay.io/x/manifests/1").await.status, 401);
    let blob = format!("/v2/quay.io/x/blobs/{}", image.layer);
    assert_eq!(world.get(&blob).await.status, 401);
    let world = world.restarted().await;
    assert_eq!(world.get(&blob).await.status, 401);
    let anna = basic("anna");
    let anna = [("authorization", anna.as_str())];
    assert_eq!(world.ask(Method::GET, &blob, &anna).await.status, 200);
}

/// A mirror with nothing of anybody's own, above an origin whose `quay.io/x:1` anna alone may have, and has
/// pulled.
async fn a_mirror_above_a_private_image() -> (World, Image, String) {
    let world = World::new();
    place(&world, "mirror", 900);
    world.upstream.with("origin", |fake| {
        fake.is_callers = true;
        fake.doors = Doors::For("anna".into());
    });
    let image = push(&world, "origin", "1", b"secret layer");
    let anna = basic("anna");
    let headers = [("authorization", anna.as_str())];
    pull(&world, "quay.io/x", "1", &headers).await.unwrap();
    (world, image, anna)
}

/// Whether nobody but who proves his right gets the image, by its digests.
async fn is_still_private(world: &World, image: &Image, anna: &str) -> bool {
    let mut is_private = true;
    for path in [
        format!("/v2/quay.io/x/manifests/{}", image.manifest),
        format!("/v2/quay.io/x/blobs/{}", image.layer),
    ] {
        for method in [Method::HEAD, Method::GET] {
            is_private &= world.ask(method, &path, &[]).await.status != 200;
        }
        let hers = [("authorization", anna)];
        let answer = world.ask(Method::GET, &path, &hers).await;
        assert_eq!(answer.status, 200, "{path}");
    }
    is_private
}

#[tokio::test]
async fn what_a_mirror_gives_to_everybody_opens_nothing_of_the_origins() {
    let (world, image, anna) = a_mirror_above_a_private_image().await;
    // The specification wants an empty list where there are no referrers.
    world
        .upstream
        .with("mirror", |fake| fake.lists_referrers = true);
    let referrers = format!("/v2/quay.io/x/referrers/{}", image.manifest);
    assert_eq!(world.get(&referrers).await.status, 200);
    assert!(is_still_private(&world, &image, &anna).await);
    assert_eq!(world.get("/v2/quay.io/x/tags/list").await.status, 200);
    assert!(is_still_private(&world, &image, &anna).await);
    // Another tag of that name is public, at the mirror.
    let public = push(&world, "mirror", "public", b"public layer");
    pull(&world, "quay.io/x", "public", &[]).await.unwrap();
    assert!(is_still_private(&world, &image, &anna).await);
    let world = world.restarted().await;
    assert!(is_still_private(&world, &image, &anna).await);
    // With nobody to ask, each has what was his before, and sees no more of it in lists.
    world.cut(&["mirror", "origin"]);
    assert!(is_still_private(&world, &image, &anna).await);
    let path = format!("/v2/quay.io/x/blobs/{}", public.layer);
    assert_eq!(world.get(&path).await.status, 200);
    let tags = async |headers: &[(&str, &str)]| {
        let answer = world.ask(Method::GET, "/v2/quay.io/x/tags/list", headers);
        String::from_utf8(answer.await.body).unwrap()
    };
    assert!(tags(&[]).await.contains(r#""tags":["public"]"#));
    let all = tags(&[("authorization", &anna)]).await;
    assert!(all.contains(r#""tags":["1","public"]"#), "{all}");
}

#[tokio::test]
async fn a_private_tag_takes_no_public_tag_of_another_place_away() {
    let (world, image, anna) = a_mirror_above_a_private_image().await;
    push(&world, "mirror", "public", b"public layer");
    pull(&world, "quay.io/x", "public", &[]).await.unwrap();
    let private = world.get("/v2/quay.io/x/manifests/1").await;
    assert_eq!(private.status, 401);
    world.cut(&["mirror", "origin"]);
    pull(&world, "quay.io/x", "public", &[]).await.unwrap();
    assert!(is_still_private(&world, &image, &anna).await);
}

#[tokio::test]
async fn a_proof_at_one_place_opens_nothing_of_another() {
    let world = World::new();
    for (at, user, priority) in [("hers", "anna", 900), ("his", "ben", 0)] {
        world.upstream.with(at, |fake| {
            fake.is_callers = true;
            fake.priority = priority;
            fake.doors = Doors::For(user.into());
        });
    }
    let image = push(&world, "hers", "1", b"secret layer");
    push(&world, "his", "2", b"his layer");
    let (anna, ben) = (basic("anna"), basic("ben"));
    let headers = [("authorization", anna.as_str())];
    pull(&world, "quay.io/x", "1", &headers).await.unwrap();
    let headers = [("authorization", ben.as_str())];
    pull(&world, "quay.io/x", "2", &headers).await.unwrap();
    let path = format!("/v2/quay.io/x/blobs/{}", image.layer);
    assert_ne!(world.ask(Method::GET, &path, &headers).await.status, 200);
}
