use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http_body_util::BodyExt;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::fake::{Doors, FakeUpstream, Sending};
use crate::freshness::Freshness;
use crate::manifest::{OCI_INDEX, OCI_MANIFEST};
use crate::pull_through::Parallelism;
use crate::service::Settings;
use crate::storage::Storage;

struct World {
    upstream: FakeUpstream,
    cache: Cache,
    api: Api,
    dir: TempDir,
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    /// The body ended before its end.
    broken: bool,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or_default()
    }

    fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        body["errors"][0]["code"].as_str().unwrap().to_owned()
    }
}

fn settings() -> Settings {
    Settings {
        freshness: Freshness {
            tag_ttl: Duration::ZERO,
            max_stale: None,
            auth_stale: Duration::from_secs(24 * 3600),
            serve_deleted: false,
        },
        auth_ttl: Duration::from_secs(300),
        negative_ttl: Duration::from_secs(30),
        parallelism: Parallelism {
            connections: 4,
            above: 32 * 1024 * 1024,
        },
    }
}

impl World {
    fn new() -> Self {
        Self::over(FakeUpstream::default(), tempfile::tempdir().unwrap())
    }

    fn over(upstream: FakeUpstream, dir: TempDir) -> Self {
        let storage = Arc::new(Storage::open(dir.path()).unwrap());
        let cache = Cache::new(storage, Arc::new(upstream.clone()), None, settings());
        let gate = Gate {
            addresses: vec!["127.0.0.1:7439".parse().unwrap()],
            ..Gate::default()
        };
        Self {
            upstream,
            api: Api::new(cache.clone(), gate, "this-cache"),
            cache,
            dir,
        }
    }

    /// The same directory in another process.
    async fn restarted(self) -> Self {
        let Self {
            upstream,
            cache,
            api,
            dir,
        } = self;
        let storage = cache.storage();
        drop((cache, api));
        testkit::wait::until("nobody uses the store any more", || async {
            (Arc::strong_count(&storage) == 1).then_some(())
        })
        .await;
        drop(storage);
        Self::over(upstream, dir)
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(HOST, "localhost:7439");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let Ok(response) = self.api.handle(request.body(()).unwrap()).await;
        let (parts, mut body) = response.into_parts();
        let (mut content, mut broken) = (Vec::new(), false);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => content.extend_from_slice(frame.data_ref().unwrap()),
                Err(_) => broken = true,
            }
        }
        Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: content,
            broken,
        }
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask(Method::GET, path, &[]).await
    }

    async fn head(&self, path: &str) -> Reply {
        self.ask(Method::HEAD, path, &[]).await
    }

    /// Everybody that is there is gone.
    fn cut(&self, places: &[&str]) {
        for place in places {
            self.upstream.with(place, |fake| {
                fake.failure = Some(Failure::Silent("cut".into()))
            });
        }
    }
}

/// An image of one layer, at a place.
struct Image {
    manifest: Digest,
    layer: Digest,
    layer_content: Vec<u8>,
}

fn place(world: &World, name: &str, priority: u32) {
    world.upstream.with(name, |fake| fake.priority = priority);
}

fn push(world: &World, at: &str, tag: &str, layer: &[u8]) -> Image {
    let layer_digest = Digest::of(layer);
    let config = b"{}";
    let content = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(config), "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": layer.len()}],
    })
    .to_string();
    let digest = Digest::of(content.as_bytes());
    world.upstream.with(at, |fake| {
        let entry = (Bytes::from(content), OCI_MANIFEST.to_owned());
        fake.manifests.insert(tag.to_owned(), entry.clone());
        fake.manifests.insert(digest.to_string(), entry);
        fake.blobs
            .insert(layer_digest.clone(), layer.to_vec().into());
        fake.blobs
            .insert(Digest::of(config), Bytes::from_static(config));
    });
    Image {
        manifest: digest,
        layer: layer_digest,
        layer_content: layer.to_vec(),
    }
}

/// Pulls an image as a runtime does.
async fn pull(
    world: &World,
    name: &str,
    tag: &str,
    headers: &[(&str, &str)],
) -> Result<Image, u16> {
    let head = world
        .ask(
            Method::HEAD,
            &format!("/v2/{name}/manifests/{tag}"),
            headers,
        )
        .await;
    if head.status != 200 {
        return Err(head.status);
    }
    let digest = head.header("docker-content-digest").to_owned();
    let path = format!("/v2/{name}/manifests/{digest}");
    let manifest = world.ask(Method::GET, &path, headers).await;
    if manifest.status != 200 {
        return Err(manifest.status);
    }
    let parsed = crate::manifest::parse(&manifest.body, None).unwrap();
    let layer = parsed.children[1].digest.clone();
    for child in &parsed.children {
        let path = format!("/v2/{name}/blobs/{}", child.digest);
        let blob = world.ask(Method::GET, &path, headers).await;
        if blob.status != 200 || blob.broken {
            return Err(blob.status);
        }
        assert!(child.digest.matches(&blob.body));
    }
    Ok(Image {
        manifest: digest.parse().unwrap(),
        layer,
        layer_content: Vec::new(),
    })
}

fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:password")))
}

#[tokio::test]
async fn the_specification_s_pull_category() {
    let world = World::new();
    place(&world, "a", 100);
    let image = push(&world, "a", "1", b"layer");
    let root = world.get("/v2/").await;
    assert_eq!((root.status, root.body.as_slice()), (200, b"{}".as_slice()));
    for reference in ["1", image.manifest.as_str()] {
        let path = format!("/v2/quay.io/x/manifests/{reference}");
        for method in [Method::HEAD, Method::GET] {
            let answer = world.ask(method.clone(), &path, &[]).await;
            assert_eq!(answer.status, 200, "{method} {reference}");
            assert_eq!(answer.header("content-type"), OCI_MANIFEST);
            assert_eq!(
                answer.header("docker-content-digest"),
                image.manifest.as_str()
            );
            assert_eq!(answer.header("etag"), format!("\"{}\"", image.manifest));
            assert!(answer.header("content-encoding").is_empty());
            let length: usize = answer.header("content-length").parse().unwrap();
            match method {
                Method::HEAD => assert!(answer.body.is_empty() && length > 0),
                _ => assert_eq!(answer.body.len(), length),
            }
        }
    }
    let path = format!("/v2/quay.io/x/blobs/{}", image.layer);
    let head = world.head(&path).await;
    assert_eq!((head.status, head.header("content-length")), (200, "5"));
    let blob = world.get(&path).await;
    assert_eq!(blob.body, b"layer");
    assert_eq!(blob.header("docker-content-digest"), image.layer.as_str());
    assert_eq!(blob.header("content-type"), "application/octet-stream");
    let again = world
        .ask(
            Method::GET,
            &path,
            &[("if-none-match", blob.header("etag"))],
        )
        .await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    for (path, status, code) in [
        ("/v2/quay.io/x/manifests/2", 404, "MANIFEST_UNKNOWN"),
        (
            &format!("/v2/quay.io/x/blobs/{}", Digest::of(b"no")),
            404,
            "BLOB_UNKNOWN",
        ),
        ("/v2/quay.io/x/blobs/sha256:12", 400, "DIGEST_INVALID"),
        ("/v2/quay.io/X/manifests/1", 400, "NAME_INVALID"),
        ("/v2/_catalog", 404, "UNSUPPORTED"),
    ] {
        let answer = world.get(path).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{path}"
        );
        assert_eq!(answer.header("content-type"), "application/json");
    }
    let put = world
        .ask(Method::PUT, "/v2/quay.io/x/manifests/1", &[])
        .await;
    assert_eq!((put.status, put.header("allow")), (405, "GET, HEAD"));
    let tags = world.get("/v2/quay.io/x/tags/list").await;
    let tags: serde_json::Value = serde_json::from_slice(&tags.body).unwrap();
    assert_eq!(tags, json!({"name": "x", "tags": ["1"]}));
    // No registry has any: an empty index, never a 404.
    let referrers = world
        .get(&format!("/v2/quay.io/x/referrers/{}", image.manifest))
        .await;
    assert_eq!(referrers.status, 200);
    assert_eq!(referrers.header("content-type"), OCI_INDEX);
    let index: serde_json::Value = serde_json::from_slice(&referrers.body).unwrap();
    assert_eq!(index["manifests"], json!([]));
}

#[tokio::test]
async fn one_image_by_every_name() {
    let world = World::new();
    place(&world, "a", 100);
    push(&world, "a", "1", b"layer");
    for path in [
        "/v2/library/nginx/manifests/1?ns=docker.io",
        "/v2/docker.io/nginx/manifests/1",
        "/v2/docker.io/library/nginx/manifests/1",
        "/v2/nginx/manifests/1",
        "/v2/docker.io/nginx/manifests/1?ns=localhost:7439",
    ] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
    let tags = world.cache.storage().index().all_tags().unwrap();
    let names: Vec<String> = tags.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["docker.io/library/nginx:1"]);
}

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

#[tokio::test]
async fn ranges_of_what_is_complete() {
    let world = World::new();
    place(&world, "a", 100);
    let image = push(&world, "a", "1", b"0123456789");
    let path = format!("/v2/quay.io/x/blobs/{}", image.layer);
    world.get(&path).await;
    let transfers = world.cache.clone();
    testkit::wait::until("it is stored", || async {
        (transfers.transfers().count() == 0).then_some(())
    })
    .await;
    let range = async |range: &str| world.ask(Method::GET, &path, &[("range", range)]).await;
    let part = range("bytes=2-4").await;
    assert_eq!(
        (part.status, part.body.as_slice()),
        (206, b"234".as_slice())
    );
    assert_eq!(part.header("content-range"), "bytes 2-4/10");
    let rest = range("bytes=7-").await;
    assert_eq!(rest.body, b"789");
    let none = range("bytes=10-").await;
    assert_eq!(
        (none.status, none.header("content-range")),
        (416, "bytes */10")
    );
    let several = range("bytes=0-1,-2").await;
    assert_eq!(several.status, 206);
    let kind = several.header("content-type").to_owned();
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let text = String::from_utf8(several.body.clone()).unwrap();
    let parts: Vec<&str> = text.split(&format!("--{boundary}")).collect();
    assert_eq!(parts.len(), 4);
    assert!(
        parts[1].contains("Content-Range: bytes 0-1/10") && parts[1].ends_with("\r\n\r\n01\r\n")
    );
    assert!(
        parts[2].contains("Content-Range: bytes 8-9/10") && parts[2].ends_with("\r\n\r\n89\r\n")
    );
    let length: usize = several.header("content-length").parse().unwrap();
    assert_eq!(length, several.body.len());
    let other = [("range", "bytes=2-4"), ("if-range", "\"other\"")];
    let whole = world.ask(Method::GET, &path, &other).await;
    assert_eq!((whole.status, whole.body.len()), (200, 10));
}

#[tokio::test(start_paused = true)]
async fn ranges_while_it_arrives() {
    let world = World::new();
    place(&world, "a", 100);
    let layer: Vec<u8> = (0..400_000u32).map(|n| (n % 253) as u8).collect();
    let image = push(&world, "a", "1", &layer);
    world
        .upstream
        .with("a", |fake| fake.pace = Duration::from_millis(10));
    let path = format!("/v2/quay.io/x/blobs/{}", image.layer);
    let whole = world.get(&path);
    let part = async {
        // As containerd asks for the chunks of one blob.
        testkit::wait::until("the transfer has begun", || async {
            (world.cache.transfers().count() > 0).then_some(())
        })
        .await;
        world
            .ask(Method::GET, &path, &[("range", "bytes=300000-")])
            .await
    };
    let (whole, part) = tokio::join!(whole, part);
    assert!(whole.body == layer);
    assert_eq!(part.status, 206);
    assert_eq!(part.header("content-range"), "bytes 300000-399999/400000");
    assert!(part.body == layer[300_000..]);
    assert_eq!(world.upstream.sent(), 400_000);
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
async fn errors_say_what_is_so_and_who_was_asked() {
    let world = World::new();
    place(&world, "a", 100);
    place(&world, "b", 50);
    let failures = [
        (Failure::Silent("x".into()), 503),
        (Failure::Wrong("a page".into()), 502),
        (Failure::RateLimited(Some(Duration::from_secs(7))), 429),
        (Failure::Refused("401".into()), 401),
        (Failure::NotFound, 404),
        (Failure::Circle, 404),
    ];
    for (number, (failure, status)) in failures.into_iter().enumerate() {
        world
            .upstream
            .with("b", |fake| fake.failure = Some(failure));
        let answer = world
            .get(&format!("/v2/quay.io/x{number}/manifests/1"))
            .await;
        assert_eq!(answer.status, status);
        let text = String::from_utf8(answer.body.clone()).unwrap();
        assert!(text.contains("b "), "{text}");
        if status == 429 {
            assert_eq!(answer.header("retry-after"), "7");
        }
        if status == 401 {
            assert!(answer.header("www-authenticate").starts_with("Basic "));
        }
    }
    let circle = [("via", "1.1 other, 1.1 this-cache")];
    let answer = world
        .ask(Method::GET, "/v2/quay.io/x/manifests/1", &circle)
        .await;
    assert_eq!(answer.status, 508);
    let mut request = Request::get("/v2/").header(HOST, "evil.example:7439");
    request = request.header("x", "y");
    let Ok(response) = world.api.handle(request.body(()).unwrap()).await;
    assert_eq!(response.status(), 421);
}

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
async fn a_full_disk_passes_everything_through_and_stores_again() {
    let world = World::new();
    place(&world, "a", 100);
    push(&world, "a", "1", &vec![1; 300_000]);
    let errno = rustix::io::Errno::NOSPC.raw_os_error();
    world.cache.storage().disk().set_fault(Some(errno));
    pull(&world, "quay.io/x", "1", &[]).await.unwrap();
    assert_eq!(world.cache.storage().stored_objects(), 0);
    world.cache.storage().disk().set_fault(None);
    pull(&world, "quay.io/x", "1", &[]).await.unwrap();
    testkit::wait::until("all of it is stored", || async {
        (world.cache.storage().stored_objects() == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_deeper_cache_says_is_passed_on() {
    let world = World::new();
    place(&world, "a", 100);
    push(&world, "a", "1", b"layer");
    let via = [("via", "1.1 deeper")];
    let answer = world
        .ask(Method::GET, "/v2/quay.io/x/manifests/1", &via)
        .await;
    assert_eq!(answer.status, 200);
    let via = world.upstream.read("a", |fake| fake.askers[0].via.to_vec());
    assert_eq!(via, ["deeper"]);
}

/// A file system of its own, of a few megabytes.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let flags = rustix::mount::MountFlags::empty();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        rustix::mount::mount("cache-test", dir.path(), "tmpfs", flags, options.as_c_str()).unwrap();
        Self(dir)
    }

    fn fill(&self) -> std::path::PathBuf {
        let path = self.0.path().join("filler");
        let mut filler = std::fs::File::create(&path).unwrap();
        for size in [1 << 16, 4096, 1] {
            while std::io::Write::write_all(&mut filler, &vec![1; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_that_fills_up_and_has_room_again() {
    let tmpfs = Tmpfs::mount("16m");
    let upstream = FakeUpstream::default();
    let dir = tempfile::tempdir_in(tmpfs.0.path()).unwrap();
    let world = World::over(upstream, dir);
    place(&world, "a", 100);
    push(&world, "a", "1", &vec![1; 1_000_000]);
    push(&world, "a", "2", &vec![2; 1_000_000]);
    pull(&world, "quay.io/x", "1", &[]).await.unwrap();
    let storage = world.cache.storage();
    testkit::wait::until("the first image is stored", || async {
        (storage.stored_objects() == 3).then_some(())
    })
    .await;
    let filler = tmpfs.fill();
    // Nothing can be written any more, the index included: what is new passes through, and what is
    // there is served, again and again.
    for _ in 0..3 {
        pull(&world, "quay.io/x", "2", &[]).await.unwrap();
        pull(&world, "quay.io/x", "1", &[]).await.unwrap();
    }
    world.cut(&["a"]);
    pull(&world, "quay.io/x", "1", &[]).await.unwrap();
    world.upstream.with("a", |fake| fake.failure = None);
    std::fs::remove_file(filler).unwrap();
    testkit::wait::until("it stores again", || async {
        pull(&world, "quay.io/x", "2", &[]).await.unwrap();
        (storage.stored_objects() == 5).then_some(())
    })
    .await;
    drop(storage);
    world.cut(&["a"]);
    let world = world.restarted().await;
    for tag in ["1", "2"] {
        pull(&world, "quay.io/x", tag, &[]).await.unwrap();
    }
    assert!(world.cache.storage().verify().unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pull_while_images_are_evicted() {
    let world = Arc::new(World::new());
    place(&world, "a", 100);
    world
        .cache
        .storage()
        .set_limits(crate::storage::SizeLimits {
            max_size: 1_500_000,
            min_free: 0,
        });
    // All share one layer's config; each has a layer of its own.
    for tag in 0..12u8 {
        push(&world, "a", &tag.to_string(), &vec![tag; 300_000]);
    }
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..6u64 {
        let world = Arc::clone(&world);
        clients.spawn(async move {
            for round in 0..12u64 {
                let tag = (client * 5 + round * 7) % 12;
                let pulled = pull(&world, "quay.io/x", &tag.to_string(), &[]).await;
                assert!(pulled.is_ok(), "{tag}: {:?}", pulled.err());
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let storage = world.cache.storage();
    testkit::wait::until("all downloads have ended", || async {
        (world.cache.transfers().count() == 0).then_some(())
    })
    .await;
    assert!(
        storage.stored_bytes() <= 1_500_000,
        "{}",
        storage.stored_bytes()
    );
    assert!(storage.evictions() > 0);
    assert!(storage.verify().unwrap().is_clean());
    let (_, bytes) = storage.index().totals().unwrap();
    assert_eq!(bytes, storage.stored_bytes());
}
