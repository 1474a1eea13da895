use super::*;
use crate::control::{Command, Event, WarmImage, run};
use crate::fake::Sending;
use crate::manifest::OCI_INDEX;

/// What a command says, and whether all of it could be done.
async fn command(world: &World, command: Command) -> (String, bool) {
    let mut events = run(world.cache.clone(), command, None);
    let mut said = String::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Text(text) | Event::Failed(text) => said.push_str(&text),
            Event::Done(is_done) => return (said, is_done),
            _ => {}
        }
    }
    panic!("a command without an end");
}

async fn remove(world: &World, name: &str) -> String {
    let names = vec![name.to_owned()];
    let (said, is_done) = command(world, Command::Rm { names }).await;
    assert!(is_done, "{said}");
    said
}

/// `a.test/app:1`, an index of one platform that is tagged, too: `a.test/app:part`. Both are fetched, and the
/// index is pinned.
async fn an_index_and_its_part(world: &World) -> Image {
    place(world, "hub", 100);
    let part = push(world, "hub", "part", &[7; 100_000]);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [{"mediaType": OCI_MANIFEST, "digest": part.manifest, "size": 300}],
    })
    .to_string();
    world.upstream.with("hub", |fake| {
        let entry = (Bytes::from(index.clone()), OCI_INDEX.to_owned());
        let digest = Digest::of(index.as_bytes());
        fake.manifests.insert("1".to_owned(), entry.clone());
        fake.manifests.insert(digest.to_string(), entry);
    });
    let warm = |image: &str, pin| WarmImage {
        image: image.to_owned(),
        pin,
    };
    let warm = Command::Warm {
        images: vec![warm("a.test/app:1", true), warm("a.test/app:part", false)],
        platforms: Vec::new(),
    };
    assert!(command(world, warm).await.1);
    part
}

#[tokio::test]
async fn the_name_of_a_part_of_a_pinned_image_goes_and_the_image_stays_whole() {
    let world = World::new();
    let part = an_index_and_its_part(&world).await;
    let said = remove(&world, "a.test/app:part").await;
    assert!(said.contains("0 bytes freed"), "{said}");
    let by_digest = format!("a.test/app@{}", part.manifest);
    let said = remove(&world, &by_digest).await;
    assert!(said.contains("0 bytes freed"), "{said}");
    world.cut(&["hub"]);
    for path in [
        "manifests/1".to_owned(),
        format!("manifests/{}", part.manifest),
        format!("blobs/{}", part.layer),
    ] {
        let answer = world.get(&format!("/v2/a.test/app/{path}")).await;
        assert_eq!(answer.status, 200, "{path}");
    }
    // With the whole the part goes.
    let said = remove(&world, "a.test/app:1").await;
    assert!(!said.contains(" 0 bytes freed"), "{said}");
    assert_eq!(world.cache.storage().stored_objects(), 0);
}

#[tokio::test]
async fn a_part_that_has_a_tag_stays_when_the_whole_goes() {
    let world = World::new();
    an_index_and_its_part(&world).await;
    remove(&world, "a.test/app:1").await;
    world.cut(&["hub"]);
    pull(&world, "a.test/app", "part", &[]).await.unwrap();
    assert_eq!(world.get("/v2/a.test/app/manifests/1").await.status, 503);
}

async fn listed(world: &World) -> Vec<crate::control::ImageRecord> {
    let mut events = run(world.cache.clone(), Command::Ls, None);
    let mut images = Vec::new();
    while let Some(event) = events.recv().await {
        if let Event::Image(image) = event {
            images.push(image);
        }
    }
    images
}

#[tokio::test]
async fn a_registry_that_fails_in_a_layer_is_named_and_the_half_image_is_listed_as_one() {
    let world = World::new();
    place(&world, "hub", 100);
    push(&world, "hub", "1", &[7; 100_000]);
    world
        .upstream
        .with("hub", |fake| fake.sending = Sending::Wrongly);
    let warm = || Command::Warm {
        images: vec![WarmImage {
            image: "a.test/app:1".to_owned(),
            pin: false,
        }],
        platforms: Vec::new(),
    };
    let (said, is_done) = command(&world, warm()).await;
    assert!(
        !is_done && said.contains("could not be fetched: hub "),
        "{said}"
    );
    let half = listed(&world).await.remove(0);
    assert!(half.incomplete && half.size < 1_000, "{half:?}");
    // The layer and the two bytes of the config.
    assert_eq!(half.total, half.size + 100_002);

    place(&world, "other", 50);
    push(&world, "other", "1", &[7; 100_000]);
    let (said, is_done) = command(&world, warm()).await;
    assert!(is_done, "{said}");
    let whole = listed(&world).await.remove(0);
    assert!(!whole.incomplete && whole.total == half.total, "{whole:?}");
    assert_eq!(whole.size, whole.total);
}

#[tokio::test]
async fn of_an_index_the_platforms_that_nobody_wants_are_not_missing() {
    let world = World::new();
    an_index_and_its_part(&world).await;
    let other = json!({"mediaType": OCI_MANIFEST, "digest": Digest::of(b"other"), "size": 5,
        "platform": {"os": "linux", "architecture": "s390x"}});
    let part = json!({"mediaType": OCI_MANIFEST, "digest": push(&world, "hub", "part", &[7; 100_000]).manifest, "size": 300});
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [part, other]});
    world.upstream.with("hub", |fake| {
        let entry = (Bytes::from(index.to_string()), OCI_INDEX.to_owned());
        fake.manifests.insert("2".to_owned(), entry);
    });
    assert_eq!(world.get("/v2/a.test/app/manifests/2").await.status, 200);
    for image in listed(&world).await {
        assert!(!image.incomplete, "{image:?}");
    }
}
