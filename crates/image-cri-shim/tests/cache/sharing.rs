//! Two caches that share a bucket of a real S3 server.

use testkit::docker_registry::DockerRegistry;
use testkit::images::{Format, Image};
use testkit::seaweedfs::SeaweedFs;
use testkit::wait;

use crate::world::CacheProcess;

const NAME: &str = "images.test/team/app:1";

fn section(s3: &SeaweedFs) -> String {
    format!(
        "  store:\n    s3:\n      bucket: {}\n      endpoint: {}\n      prefix: nodes\n      \
         credentials: {{accessKeyId: {}, secretAccessKey: {}}}",
        SeaweedFs::BUCKET,
        s3.url(),
        SeaweedFs::ACCESS_KEY_ID,
        SeaweedFs::SECRET_ACCESS_KEY
    )
}

/// All that a runtime asks for, by what the image is known to have.
async fn pull(cache: &CacheProcess, image: &Image) {
    let manifest = cache
        .get("/v2/team/app/manifests/1?ns=images.test", "")
        .await;
    assert_eq!(manifest.status, 200, "{}", manifest.head);
    assert_eq!(
        manifest.header("docker-content-digest"),
        Some(image.manifest_digest.as_str())
    );
    for blob in &image.blobs {
        let path = format!("/v2/team/app/blobs/{}?ns=images.test", blob.digest);
        let answer = cache.get(&path, "").await;
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert!(answer.whole && answer.body == blob.content);
    }
}

fn log_has(cache: &CacheProcess, text: &str) -> bool {
    let log = std::fs::read_to_string(cache.dir.path().join("log")).unwrap();
    for secret in [SeaweedFs::ACCESS_KEY_ID, SeaweedFs::SECRET_ACCESS_KEY] {
        assert!(!log.contains(secret), "{log}");
    }
    log.contains(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_starts_warm_and_outlives_the_server() {
    let mut registry = DockerRegistry::plain().await.unwrap();
    let image = Image::sized("shared", 20 << 20);
    registry.push(&image, "team/app", "1").await.unwrap();
    let mut s3 = SeaweedFs::start().await.unwrap();
    let config = format!(
        "fallbackToOrigin: false\nregistries:\n  - {{address: '{}'}}\n",
        registry.url()
    );
    let first = CacheProcess::start(&config, &section(&s3)).await;
    pull(&first, &image).await;

    // By a command without a running cache, all is written before it ends.
    let other = Image::index("warmed", Format::Oci);
    registry.push(&other, "team/other", "1").await.unwrap();
    let mut stopped = CacheProcess::start(&config, &section(&s3)).await;
    stopped.stop().await;
    let warmed = stopped.run(&["warm", "images.test/team/other:1"]).await;
    assert!(warmed.status.success(), "{warmed:?}");

    // The first node has filled the bucket in the background; a new one takes it from there.
    let mut keys: Vec<String> = image
        .blobs
        .iter()
        .map(|blob| blob_key(&blob.digest))
        .collect();
    keys.push(blob_key(&image.manifest_digest));
    keys.push("nodes/links/images.test/team/app/_tags/1".to_owned());
    wait::until("the bucket has the image", || async {
        for key in &keys {
            if !s3.has(key).await.unwrap() {
                return None;
            }
        }
        Some(())
    })
    .await;
    let before = transfers(&registry);
    let second = CacheProcess::start(&config, &section(&s3)).await;
    let warmed = second.run(&["warm", NAME]).await;
    assert!(warmed.status.success(), "{warmed:?}");
    assert_eq!(transfers(&registry), before);
    registry.stop().await;
    let third = CacheProcess::start(&config, &section(&s3)).await;
    pull(&third, &image).await;
    let stale = third
        .get("/v2/team/other/manifests/1?ns=images.test", "")
        .await;
    assert_eq!(stale.status, 200);
    assert!(
        stale
            .header("warning")
            .is_some_and(|w| w.starts_with("299"))
    );

    // Nothing is old enough to go.
    let freed = third.run(&["gc", "--shared"]).await;
    assert!(freed.status.success(), "{freed:?}");
    let text = String::from_utf8_lossy(&freed.stdout);
    assert_eq!(
        text,
        "0 blobs and 0 links deleted in the shared store, 0 bytes freed\n"
    );

    // Without the server, what is here stays, and upstream gives the rest.
    s3.kill();
    pull(&third, &image).await;
    registry.start_again().await.unwrap();
    let fourth = CacheProcess::start(&config, &section(&s3)).await;
    pull(&fourth, &image).await;
    assert!(log_has(
        &fourth,
        "circuit open: the shared store is not asked"
    ));
    assert!(!log_has(&third, "panicked"));
    s3.start_again().await.unwrap();
    wait::until("the shared store is asked again", || async {
        log_has(&fourth, "circuit closed: the shared store answers again").then_some(())
    })
    .await;
}

fn blob_key(digest: &str) -> String {
    format!("nodes/blobs/{}", digest.replace(':', "/"))
}

/// Blobs that upstream has sent.
fn transfers(registry: &DockerRegistry) -> usize {
    registry
        .recording()
        .count(|request| request.method == http::Method::GET && request.path.contains("/blobs/"))
}
