//! Two nodes and a bucket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use http::Method;
use policy::Credentials;
use serde_json::json;
use tempfile::TempDir;
use testkit::tree;

use super::*;
use crate::fake::{Doors, FakeUpstream, Sending};
use crate::fake_bucket::FakeBucket;
use crate::freshness::Freshness;
use crate::manifest::{OCI_MANIFEST, parse};
use crate::pull_through::{Parallelism, read_along, read_file};
use crate::service::{BlobAnswer, Cache, Manifest, Refusal, Settings, Who};
use crate::storage::Storage;

const PLENTY: Duration = Duration::from_secs(60);

/// One cache.
struct Node {
    cache: Cache,
    shared: Shared,
    _dir: TempDir,
}

struct World {
    upstream: FakeUpstream,
    bucket: FakeBucket,
}

fn settings() -> Settings {
    Settings {
        freshness: Freshness {
            tag_ttl: Duration::ZERO,
            max_stale: None,
            auth_stale: PLENTY,
            serve_deleted: false,
        },
        auth_ttl: PLENTY,
        negative_ttl: Duration::ZERO,
        parallelism: Parallelism {
            connections: 4,
            above: 4 * 1024 * 1024,
        },
    }
}

fn patient() -> Bounds {
    Bounds {
        answer_timeout: PLENTY,
        piece_timeout: PLENTY,
        slow_after: PLENTY,
        write_timeout: PLENTY,
        ..Bounds::default()
    }
}

fn hasty() -> Bounds {
    Bounds {
        answer_timeout: Duration::from_millis(300),
        ..patient()
    }
}

fn content(seed: u32, length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|n| ((n ^ seed).wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

impl World {
    async fn new() -> Self {
        Self {
            upstream: FakeUpstream::default(),
            bucket: FakeBucket::start().await,
        }
    }

    fn node(&self, bounds: Bounds) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let settings_s3 = self.bucket.settings();
        let bucket = crate::store::s3::open(&settings_s3).unwrap();
        let shared = Shared::new(bucket, settings_s3.unused_for, bounds);
        let storage = Arc::new(Storage::open(dir.path()).unwrap());
        let upstream = Arc::new(self.upstream.clone());
        Node {
            cache: Cache::new(storage, upstream, Some(shared.clone()), settings()),
            shared,
            _dir: dir,
        }
    }

    /// Pushes an image of these layers to a place; its digest.
    fn push(&self, place: &str, tag: &str, layers: &[Vec<u8>]) -> Digest {
        let described = |layer: &Vec<u8>| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": Digest::of(layer), "size": layer.len()});
        let config = format!("{{\"tag\":\"{tag}\"}}").into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described(&config),
            "layers": layers.iter().map(described).collect::<Vec<_>>(),
        });
        let manifest = bytes::Bytes::from(manifest.to_string());
        let digest = Digest::of(&manifest);
        self.upstream.with(place, |fake| {
            let entry = (manifest, OCI_MANIFEST.to_owned());
            fake.manifests.insert(tag.to_owned(), entry.clone());
            fake.manifests.insert(digest.to_string(), entry);
            for blob in layers.iter().chain([&config]) {
                fake.blobs.insert(Digest::of(blob), blob.clone().into());
            }
        });
        digest
    }

    fn cut(&self, place: &str) {
        let gone = Failure::Silent("cut".into());
        self.upstream.with(place, |fake| fake.failure = Some(gone));
    }

    fn back(&self, place: &str) {
        self.upstream.with(place, |fake| fake.failure = None);
    }

    fn blob_gets(&self, place: &str) -> u64 {
        self.upstream.read(place, |fake| fake.blob_gets)
    }
}

fn who(path: &str, user: Option<&str>) -> Who {
    let mut who = Who::nobody(Repository::new("images.test", path).unwrap());
    who.credentials = user.map(|user| Credentials::new(user, "secret"));
    who
}

impl Node {
    async fn blob(&self, who: &Who, digest: &Digest) -> Result<Vec<u8>, Refusal> {
        let (mut stream, total) = match self.cache.blob(who, digest).await? {
            BlobAnswer::Whole { file, length } => (read_file(file, 0, length), Some(length)),
            BlobAnswer::Growing {
                transfer, total, ..
            } => (read_along(transfer, 0, None), total),
        };
        let mut content = Vec::new();
        while let Some(bytes) = stream.next().await {
            content.extend_from_slice(&bytes.unwrap());
        }
        assert!(digest.matches(&content));
        assert!(total.is_none_or(|total| total == content.len() as u64));
        Ok(content)
    }

    /// Pulls as a runtime does.
    async fn pull(&self, who: &Who, tag: &str) -> Result<Manifest, Refusal> {
        let found = self.cache.manifest_by_tag(who, tag).await?;
        let manifest = self.cache.manifest_by_digest(who, &found.digest).await?;
        for child in parse(&manifest.content, None).unwrap().children {
            self.blob(who, &child.digest).await?;
        }
        Ok(found)
    }

    /// Waits until the bucket has all.
    async fn written(&self) {
        assert!(self.shared.finish().await);
    }
}

#[tokio::test]
async fn a_new_node_starts_warm_with_upstream_gone() {
    let world = World::new().await;
    let layers = [
        content(1, 3_000_000),
        content(2, 9 * 1024 * 1024),
        content(3, 10),
    ];
    let digest = world.push("a", "1", &layers);
    let first = world.node(patient());
    let app = who("team/app", None);
    first.pull(&app, "1").await.unwrap();
    first.written().await;
    world.cut("a");
    let before = world.upstream.sent();
    let second = world.node(patient());
    let found = second.pull(&app, "1").await.unwrap();
    assert_eq!(found.digest, digest);
    assert!(found.warning.is_some(), "not marked stale");
    assert_eq!(world.upstream.sent(), before);
    // By its digest alone, too; and what nobody has ever pulled is not there.
    let third = world.node(patient());
    let by_digest = third.cache.manifest_by_digest(&app, &digest).await.unwrap();
    assert_eq!(by_digest.digest, digest);
    let missing = third.pull(&app, "2").await.unwrap_err();
    assert!(matches!(missing, Refusal::Unreachable(_)), "{missing:?}");
    // Upstream may be there, and of no use.
    for useless in [Failure::RateLimited(None), Failure::Wrong("500".into())] {
        world
            .upstream
            .with("a", |fake| fake.failure = Some(useless));
        let found = world.node(patient()).pull(&app, "1").await.unwrap();
        assert!(found.warning.is_some());
    }
    // The bucket goes, and the second node has it all the same.
    world.bucket.faults.fails.store(true, Ordering::SeqCst);
    second.pull(&app, "1").await.unwrap();
}

#[tokio::test]
async fn one_node_s_pull_serves_all() {
    let world = World::new().await;
    world.push(
        "a",
        "1",
        &[content(1, 300_000), content(2, 9 * 1024 * 1024)],
    );
    let app = who("team/app", None);
    let first = world.node(patient());
    first.pull(&app, "1").await.unwrap();
    first.written().await;
    let (blobs, gets) = (
        world.blob_gets("a"),
        world.upstream.read("a", |fake| fake.gets),
    );
    let second = world.node(patient());
    let found = second.pull(&app, "1").await.unwrap();
    assert_eq!(found.warning, None);
    // Upstream was asked whether it holds, and sent nothing.
    assert_eq!(world.blob_gets("a"), blobs);
    assert_eq!(world.upstream.read("a", |fake| fake.gets), gets);
    let [_, misses, errors] = second.shared.counters().requests();
    assert_eq!((misses, errors), (("miss", 0), ("error", 0)));
}

#[tokio::test]
async fn a_tag_of_the_bucket_is_nothing_where_upstream_answers() {
    let world = World::new().await;
    world.push("a", "1", &[content(1, 100)]);
    let app = who("team/app", None);
    let first = world.node(patient());
    first.pull(&app, "1").await.unwrap();
    first.written().await;
    // It has moved.
    let newer = world.push("a", "1", &[content(2, 100)]);
    let second = world.node(patient());
    assert_eq!(second.pull(&app, "1").await.unwrap().digest, newer);
    // It was deleted.
    world.upstream.with("a", |fake| fake.manifests.clear());
    let third = world.node(patient());
    let gone = third.pull(&app, "1").await.unwrap_err();
    assert!(matches!(gone, Refusal::NotFound(_)), "{gone:?}");
    // It is private now.
    world.upstream.with("a", |fake| fake.doors = Doors::Closed);
    let refused = third.pull(&app, "1").await.unwrap_err();
    assert!(matches!(refused, Refusal::Unauthorized(_)), "{refused:?}");
    // And older than maxStale it is of no use, either.
    world.cut("a");
    let mut strict = settings();
    strict.freshness.max_stale = Some(Duration::ZERO);
    third.cache.configure(strict);
    assert!(third.pull(&app, "1").await.is_err());
}

#[tokio::test]
async fn private_content_needs_its_proof_on_every_node() {
    let world = World::new().await;
    let layer = content(1, 200_000);
    world.upstream.with("a", |fake| {
        fake.is_callers = true;
        fake.doors = Doors::For("anna".into());
    });
    world.push("a", "1", std::slice::from_ref(&layer));
    let (anna, nobody, other) = (
        who("team/app", Some("anna")),
        who("team/app", None),
        who("team/app", Some("mallory")),
    );
    let first = world.node(patient());
    first.pull(&anna, "1").await.unwrap();
    first.written().await;
    assert!(world.bucket.blob(&Digest::of(&layer)).exists());
    // Nobody can prove anything while upstream is silent: not even anna.
    world.cut("a");
    let second = world.node(patient());
    for caller in [&nobody, &anna, &other] {
        let refused = second.pull(caller, "1").await.unwrap_err();
        assert!(matches!(refused, Refusal::Unreachable(_)), "{refused:?}");
        let blob = second.blob(caller, &Digest::of(&layer)).await;
        assert!(blob.is_err());
    }
    world.back("a");
    let sent = world.upstream.sent();
    for caller in [&nobody, &other] {
        let refused = second.pull(caller, "1").await.unwrap_err();
        assert!(matches!(refused, Refusal::Unauthorized(_)), "{refused:?}");
        assert!(second.blob(caller, &Digest::of(&layer)).await.is_err());
    }
    second.pull(&anna, "1").await.unwrap();
    // The bytes came from the bucket.
    assert_eq!(world.upstream.sent(), sent);
    // A digest that is known from elsewhere opens nothing.
    let elsewhere = who("team/other", None);
    world.upstream.with("a", |fake| {
        fake.doors = Doors::Open;
        fake.blobs.clear();
    });
    let third = world.node(patient());
    let refused = third.blob(&elsewhere, &Digest::of(&layer)).await;
    assert!(matches!(refused, Err(Refusal::NotFound(_))), "{refused:?}");
}

#[tokio::test]
async fn a_place_that_this_node_does_not_ask_opens_nothing() {
    let world = World::new().await;
    world.push("internal", "1", &[content(1, 100)]);
    let app = who("team/app", None);
    let first = world.node(patient());
    first.pull(&app, "1").await.unwrap();
    first.written().await;
    let elsewhere = World {
        upstream: FakeUpstream::default(),
        bucket: world.bucket,
    };
    elsewhere.cut("origin");
    let second = elsewhere.node(patient());
    assert!(second.pull(&app, "1").await.is_err());
}

#[tokio::test]
async fn wrong_bytes_under_a_digest_are_not_served_and_deleted() {
    let world = World::new().await;
    let layer = content(1, 900_000);
    let (digest, shorter) = (Digest::of(&layer), content(9, 50_000));
    let manifest = world.push("a", "1", std::slice::from_ref(&layer));
    let app = who("team/app", None);
    let first = world.node(patient());
    first.pull(&app, "1").await.unwrap();
    first.written().await;
    let mut flipped = layer.clone();
    flipped[899_999] ^= 1;
    for (planted, is_long) in [(flipped, true), (shorter, false), (Vec::new(), false)] {
        std::fs::write(world.bucket.blob(&digest), &planted).unwrap();
        let manifest_file = world.bucket.blob(&manifest);
        std::fs::write(&manifest_file, b"{\"schemaVersion\": 2}").unwrap();
        let second = world.node(patient());
        let found = second.cache.manifest_by_tag(&app, "1").await.unwrap();
        assert!(manifest.matches(&found.content));
        if is_long {
            // Its reader is cut off before the end; the next one gets it.
            let BlobAnswer::Growing { transfer, .. } =
                second.cache.blob(&app, &digest).await.unwrap()
            else {
                panic!("it is not here yet");
            };
            assert!(transfer.finished().await);
        }
        assert_eq!(second.blob(&app, &digest).await.unwrap(), layer);
        second.written().await;
        testkit::wait::until("the right bytes are in the bucket", || async {
            let is_right = std::fs::read(world.bucket.blob(&digest)).is_ok_and(|c| c == layer);
            let manifest_there = std::fs::read(&manifest_file);
            (is_right && manifest_there.is_ok_and(|c| manifest.matches(&c))).then_some(())
        })
        .await;
        // The manifest and the layer. Who began to read before one was deleted may see the wrong bytes once more.
        let discards = second.shared.counters().discards();
        assert!((2..=3).contains(&discards), "{discards}");
    }
}

#[tokio::test]
async fn a_manifest_that_lies_about_a_length_deletes_nothing() {
    let world = World::new().await;
    let layer = content(1, 900_000);
    let digest = Digest::of(&layer);
    world.push("a", "1", std::slice::from_ref(&layer));
    let first = world.node(patient());
    first.pull(&who("team/app", None), "1").await.unwrap();
    first.written().await;
    let lying = json!({"schemaVersion": 2, "layers": [{"digest": digest, "size": 7}]}).to_string();
    world.upstream.with("a", |fake| {
        let entry = (lying.into(), OCI_MANIFEST.to_owned());
        fake.manifests.insert("lying".to_owned(), entry);
    });
    let second = world.node(patient());
    let evil = who("evil/app", None);
    second.cache.manifest_by_tag(&evil, "lying").await.unwrap();
    assert_eq!(second.blob(&evil, &digest).await.unwrap(), layer);
    second.written().await;
    assert_eq!(second.shared.counters().discards(), 0);
    assert_eq!(std::fs::read(world.bucket.blob(&digest)).unwrap(), layer);
    // Whoever says nothing of its length has the layer from the bucket.
    world.cut("a");
    let third = world.node(patient());
    third.pull(&who("team/app", None), "1").await.unwrap();
}

#[tokio::test]
async fn killed_in_the_middle_of_a_pull() {
    let world = World::new().await;
    let layers = [content(1, 3_000_000), content(2, 9 * 1024 * 1024)];
    world.push("a", "1", &layers);
    let app = who("team/app", None);
    let first = world.node(patient());
    first.pull(&app, "1").await.unwrap();
    first.written().await;
    let before = world.upstream.sent();
    world
        .bucket
        .faults
        .dies_after
        .store(1_500_000, Ordering::SeqCst);
    let second = world.node(patient());
    second.pull(&app, "1").await.unwrap();
    assert!(world.bucket.is_dead());
    // What had come from the bucket was not fetched again.
    let all: u64 = layers.iter().map(|layer| layer.len() as u64).sum();
    let sent = world.upstream.sent() - before;
    assert!(sent < all && sent > 9 * 1024 * 1024, "{sent}");
}

#[tokio::test]
async fn one_that_hangs_costs_one_wait_and_is_filled_when_it_is_back() {
    let world = World::new().await;
    let layers: Vec<_> = (0..10).map(|seed| content(seed, 1000)).collect();
    world.push("a", "1", &layers);
    world.bucket.faults.hangs.store(true, Ordering::SeqCst);
    let app = who("team/app", None);
    let node = world.node(hasty());
    node.pull(&app, "1").await.unwrap();
    assert!(node.shared.is_circuit_open());
    // Trials are HEADs; every blob and manifest would have been a GET.
    assert_eq!(world.bucket.count(&Method::GET, ""), 1);
    assert_eq!(node.shared.counters().requests()[2], ("error", 1));
    world.bucket.faults.hangs.store(false, Ordering::SeqCst);
    testkit::wait::until("the bucket has the image", || async {
        node.shared.finish().await.then_some(())
    })
    .await;
    assert!(!node.shared.is_circuit_open());
    for layer in &layers {
        assert!(world.bucket.blob(&Digest::of(layer)).exists());
    }
}

#[tokio::test]
async fn one_that_stalls_in_the_middle_is_left_for_upstream() {
    let world = World::new().await;
    let layer = content(1, 4_000_000);
    let digest = Digest::of(&layer);
    world.push("a", "1", std::slice::from_ref(&layer));
    let stalling = |piece: Duration| async move {
        tokio::time::sleep(piece).await;
        Ok(Bytes::from_static(&[0; 16]))
    };
    let shared = world.node(Bounds {
        slow_after: Duration::from_millis(50),
        min_speed: 1_000_000,
        piece_timeout: Duration::from_millis(500),
        ..patient()
    });
    for pause in [Duration::from_millis(20), PLENTY] {
        let pieces = futures_util::stream::repeat(pause).then(stalling);
        let found = Reading {
            total: 4_000_000,
            bytes: pieces.boxed(),
        };
        let mut bounded = reading::bounded(found, &shared.shared).bytes;
        let ended = loop {
            if let Err(error) = bounded.next().await.unwrap() {
                break error.to_string();
            }
        };
        assert!(
            ended.contains("too slowly") || ended.contains("sent nothing"),
            "{ended}"
        );
        assert!(shared.shared.is_circuit_open());
    }
    let app = who("team/app", None);
    assert_eq!(
        shared.pull(&app, "1").await.unwrap().digest.algorithm(),
        digest.algorithm()
    );
}

#[tokio::test]
async fn a_key_for_reading_only_reads() {
    let world = World::new().await;
    world.push("a", "1", &[content(1, 1000)]);
    let app = who("team/app", None);
    let first = world.node(patient());
    first.pull(&app, "1").await.unwrap();
    first.written().await;
    world
        .bucket
        .faults
        .is_read_only
        .store(true, Ordering::SeqCst);
    world.push("a", "2", &[content(2, 1000)]);
    let second = world.node(patient());
    second.pull(&app, "2").await.unwrap();
    assert!(!second.shared.finish().await);
    assert!(!second.shared.is_circuit_open());
    let gets = world.blob_gets("a");
    second.pull(&app, "1").await.unwrap();
    assert_eq!(world.blob_gets("a"), gets);
}

#[tokio::test]
async fn a_transfer_that_no_source_but_the_bucket_has() {
    let world = World::new().await;
    let layer = content(1, 500_000);
    world.push("a", "1", std::slice::from_ref(&layer));
    let app = who("team/app", None);
    let first = world.node(patient());
    first.pull(&app, "1").await.unwrap();
    first.written().await;
    // Upstream breaks off at every byte: it says that it has the blob, and can't send it.
    world
        .upstream
        .with("a", |fake| fake.sending = Sending::CutAfter(0));
    let second = world.node(patient());
    second.pull(&app, "1").await.unwrap();
}

#[tokio::test]
async fn what_nobody_uses_is_freed() {
    let world = World::new().await;
    let (own, common, young) = (content(1, 5000), content(2, 6000), content(3, 7000));
    let old_image = world.push("a", "old", &[own.clone(), common.clone()]);
    world.push("a", "used", std::slice::from_ref(&common));
    let by_digest = world.push("a", "by-digest", std::slice::from_ref(&young));
    let app = who("team/app", None);
    let node = world.node(patient());
    for tag in ["old", "used", "by-digest"] {
        node.pull(&app, tag).await.unwrap();
    }
    node.written().await;
    assert_eq!(node.shared.collect().await.unwrap(), Collected::default());
    let links = "links/images.test/team/app";
    let manifest_link = |digest: &Digest| {
        world
            .bucket
            .file(&format!("{links}/_manifests/sha256/{}", digest.hex()))
    };
    let day = Duration::from_secs(24 * 3600);
    // Everything is old, but for one tag and one manifest that were used since.
    for file in tree::files(&world.bucket.file("")).unwrap() {
        world.bucket.age(&file, day);
    }
    world.bucket.age(
        &world.bucket.file(&format!("{links}/_tags/used")),
        Duration::ZERO,
    );
    world.bucket.age(&manifest_link(&by_digest), Duration::ZERO);
    let freed = node.shared.collect().await.unwrap();
    let exists = |content: &[u8]| world.bucket.blob(&Digest::of(content)).exists();
    assert!(!exists(&own) && exists(&common) && exists(&young));
    assert!(!world.bucket.blob(&old_image).exists());
    assert!(!world.bucket.file(&format!("{links}/_tags/old")).exists());
    assert!(world.bucket.file(&format!("{links}/_tags/used")).exists());
    // The old manifest, its config and its own layer.
    assert_eq!(freed.blobs, 3);
    assert!(freed.bytes > 5000 && freed.bytes < 6000, "{freed:?}");
    assert_eq!(node.shared.collect().await.unwrap(), Collected::default());
    // What can't be read ends it before something is deleted.
    for file in tree::files(&world.bucket.file("")).unwrap() {
        world.bucket.age(&file, day);
    }
    world.bucket.faults.fails.store(true, Ordering::SeqCst);
    assert!(node.shared.collect().await.is_err());
    assert!(exists(&common));
}
