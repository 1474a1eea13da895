//! Two caches that have each other as a mirror.

use testkit::fake_registry::FakeRegistry;
use testkit::images::Image;
use testkit::wait;

use crate::world::{CacheProcess, get};

/// Each asks the other first, and the registry after it.
fn config(other: &CacheProcess, registry: &FakeRegistry) -> String {
    format!(
        "fallbackToOrigin: false\nregistries:\n  \
         - {{address: 'http://{}', layout: host, priority: 900}}\n  \
         - {{address: '{}', priority: 100}}\n",
        other.address,
        registry.url()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_has_is_404_and_what_is_there_is_served_without_a_storm() {
    let mut registry = FakeRegistry::start().unwrap();
    let image = Image::sized("mirrored", 300_000);
    registry.add(&image, "team/app", "1");
    let mut first = CacheProcess::start("registries: []\n", "").await;
    let mut second = CacheProcess::start(&config(&first, &registry), "").await;
    first.configure(&config(&second, &registry), "");
    first.stop().await;
    first.start_again().await;
    second.stop().await;
    second.start_again().await;

    // Many ask both at once for what nobody has.
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..40 {
        let address = [first.address, second.address][number % 2];
        clients.spawn(async move {
            let path = "/v2/images.test/team/app/manifests/none";
            get(address, path, "").await.unwrap()
        });
    }
    while let Some(answer) = clients.join_next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 404, "{}", answer.head);
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(body.contains("MANIFEST_UNKNOWN"), "{body}");
    }
    // Each cache asks for itself, and once for the other.
    let asked = registry.recording().count(|r| r.path.contains("none"));
    assert!((1..=4).contains(&asked), "{asked}");

    // A tag that exists comes whole, wherever it is asked for, and its blobs once.
    for cache in [&first, &second] {
        let manifest = "/v2/images.test/team/app/manifests/1";
        let answer = cache.get(manifest, "").await;
        assert_eq!(answer.status, 200, "{}", answer.head);
        for blob in &image.blobs {
            let path = format!("/v2/images.test/team/app/blobs/{}", blob.digest);
            let answer = cache.get(&path, "").await;
            assert!(
                answer.whole && answer.body == blob.content,
                "{}",
                answer.head
            );
        }
    }
    for blob in &image.blobs {
        let sent = registry.recording().count(|request| {
            request.method == http::Method::GET && request.path.contains(&blob.digest)
        });
        assert_eq!(sent, 1, "{}", blob.digest);
    }

    // With the registry gone, what is new can't be had (503, and no 404), and what is there is stale.
    registry.stop().await;
    for cache in [&first, &second] {
        let missing = "/v2/images.test/team/app/manifests/2";
        let answer = wait::until("the registry's silence is noticed", || async {
            let answer = cache.get(missing, "").await;
            (answer.status != 404).then_some(answer)
        })
        .await;
        assert_eq!(answer.status, 503, "{}", answer.head);
        let known = cache.get("/v2/images.test/team/app/manifests/1", "").await;
        assert_eq!(known.status, 200, "{}", known.head);
        assert!(known.header("warning").is_some(), "{}", known.head);
    }
}
