use std::time::Duration;

use futures_util::StreamExt;

use super::*;
use crate::fake::Sending;
use crate::manifest::OCI_INDEX;
use crate::name::Repository;
use crate::pull_through::{State, read_along_while_it_is_quick};
use crate::service::{BlobAnswer, Who};

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

#[tokio::test]
async fn a_head_of_a_blob_has_its_length_also_where_the_registry_does_not_say_it() {
    let world = World::new();
    place(&world, "a", 100);
    let image = push(&world, "a", "1", &vec![1; 300_000]);
    world
        .upstream
        .with("a", |fake| fake.sending = Sending::WithoutLength);
    let path = format!("/v2/quay.io/x/blobs/{}", image.layer);
    let head = world.head(&path).await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, "300000")
    );
    // Whoever asks for its length wants the blob next, and it is there.
    assert_eq!(world.get(&path).await.body.len(), 300_000);
    assert_eq!(world.upstream.read("a", |fake| fake.blob_gets), 1);
}

#[tokio::test]
async fn an_index_is_pulled_with_its_attestations() {
    let world = World::new();
    place(&world, "a", 100);
    let image = push(&world, "a", "amd64", b"layer");
    let statement = Bytes::from_static(b"{\"_type\":\"https://in-toto.io/Statement/v0.1\"}");
    let config = Bytes::from_static(b"{}");
    let attestation = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(&config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.in-toto+json",
            "digest": Digest::of(&statement), "size": statement.len()}],
    });
    let attestation = Bytes::from(attestation.to_string());
    let attested = Digest::of(&attestation);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {"mediaType": OCI_MANIFEST, "digest": image.manifest, "size": 100,
                "platform": {"os": "linux", "architecture": "amd64"}},
            {"mediaType": OCI_MANIFEST, "digest": attested, "size": attestation.len(),
                "platform": {"os": "unknown", "architecture": "unknown"},
                "annotations": {"vnd.docker.reference.type": "attestation-manifest"}},
        ],
    });
    let index = Bytes::from(index.to_string());
    let digest = Digest::of(&index);
    world.upstream.with("a", |fake| {
        for (name, content, kind) in [
            ("1".to_owned(), &index, OCI_INDEX),
            (digest.to_string(), &index, OCI_INDEX),
            (attested.to_string(), &attestation, OCI_MANIFEST),
        ] {
            fake.manifests
                .insert(name, (content.clone(), kind.to_owned()));
        }
        fake.blobs.insert(Digest::of(&statement), statement.clone());
    });
    // Fresh, and again when nobody is there.
    for is_cut in [false, true] {
        if is_cut {
            testkit::wait::until("all of it is stored", || async {
                (world.cache.transfers().count() == 0).then_some(())
            })
            .await;
            world.cut(&["a"]);
        }
        for (path, content) in [
            (format!("manifests/{digest}"), &index),
            (format!("manifests/{attested}"), &attestation),
            (format!("blobs/{}", Digest::of(&config)), &config),
            (format!("blobs/{}", Digest::of(&statement)), &statement),
        ] {
            let answer = world.get(&format!("/v2/quay.io/x/{path}")).await;
            assert_eq!(answer.status, 200, "{path}, cut: {is_cut}");
            assert_eq!(answer.body, content[..], "{path}, cut: {is_cut}");
        }
    }
}

#[tokio::test]
async fn whoever_joins_another_repositorys_download_can_leave_it() {
    let world = World::new();
    place(&world, "a", 100);
    let pushed = push(&world, "a", "1", &vec![1; 300_000]);
    world
        .upstream
        .with("a", |fake| fake.pace = Duration::from_millis(500));
    for (repository, may_leave) in [("x", false), ("x", false), ("y", true)] {
        let who = Who::nobody(Repository::new("quay.io", repository).unwrap());
        let answer = world.cache.blob(&who, &pushed.layer).await.unwrap();
        let BlobAnswer::Growing { own, .. } = answer else {
            panic!("it is here already");
        };
        assert_eq!(own.is_some(), may_leave, "{repository}");
    }
}

/// What a caller who has joined another repository's download gets.
async fn joined(world: &World, digest: &Digest) -> (Option<u64>, Vec<u8>) {
    let who = Who::nobody(Repository::new("quay.io", "y").unwrap());
    let BlobAnswer::Growing {
        transfer,
        total,
        own: Some(own),
    } = world.cache.blob(&who, digest).await.unwrap()
    else {
        panic!("it is not for another repository");
    };
    let mut content = Vec::new();
    let mut stream = read_along_while_it_is_quick(transfer, Some(own), 0, None);
    while let Some(bytes) = stream.next().await {
        content.extend_from_slice(&bytes.unwrap());
    }
    (total, content)
}

async fn begin_for_another(world: &World, digest: &Digest) {
    let cache = world.cache.clone();
    let (who, digest) = (
        Who::nobody(Repository::new("quay.io", "x").unwrap()),
        digest.clone(),
    );
    let gets = || world.upstream.read("a", |fake| fake.blob_gets);
    let before = gets();
    tokio::spawn(async move { cache.blob(&who, &digest).await.map(|_| ()) });
    testkit::wait::until("it is asked", || async { (gets() > before).then_some(()) }).await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_hangs_for_another_repository_is_not_waited_for() {
    let world = World::new();
    place(&world, "a", 100);
    let content = vec![1; 300_000];
    let pushed = push(&world, "a", "1", &content);
    world
        .upstream
        .with("a", |fake| fake.delay = Duration::from_secs(24 * 3600));
    begin_for_another(&world, &pushed.layer).await;
    // For this one it answers at once.
    world.upstream.with("a", |fake| fake.delay = Duration::ZERO);
    let (total, read) = joined(&world, &pushed.layer).await;
    assert_eq!(total, Some(content.len() as u64));
    assert!(read == content);
    // The other one is being waited for to this day.
    let theirs = world.cache.transfers().get(&pushed.layer).unwrap();
    assert!(matches!(theirs.watch().borrow().state, State::Opening));
}

#[tokio::test]
async fn the_length_that_another_repositorys_registry_gives_is_not_passed_on() {
    let world = World::new();
    place(&world, "a", 100);
    let content = vec![1; 300_000];
    let pushed = push(&world, "a", "1", &content);
    let path = format!("/v2/quay.io/y/manifests/{}", pushed.manifest);
    assert_eq!(world.get(&path).await.status, 200);
    world.upstream.with("a", |fake| {
        fake.pace = Duration::from_millis(200);
        let longer = vec![1; 400_000];
        fake.blobs.insert(pushed.layer.clone(), longer.into());
    });
    begin_for_another(&world, &pushed.layer).await;
    let who = Who::nobody(Repository::new("quay.io", "y").unwrap());
    let answer = world.cache.blob(&who, &pushed.layer).await.unwrap();
    let BlobAnswer::Growing { total, own, .. } = answer else {
        panic!("it is here already");
    };
    assert!(own.is_some());
    assert_eq!(total, Some(content.len() as u64));
}
