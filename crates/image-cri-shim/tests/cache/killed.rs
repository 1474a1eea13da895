//! `kill -9` at any moment: nothing acknowledged is lost, and nothing stored is wrong.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use testkit::fake_registry::FakeRegistry;
use testkit::images::Image;

use crate::world::{CacheProcess, get};

const ROUNDS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_random_moments() {
    let mut registry = FakeRegistry::start().unwrap();
    let images: Vec<Image> = (0..ROUNDS)
        .map(|round| Image::sized(&format!("round {round}"), 200_000))
        .collect();
    for (round, image) in images.iter().enumerate() {
        registry.add(image, "team/app", &round.to_string());
    }
    let config = format!(
        "fallbackToOrigin: false\nregistries:\n  - {{address: '{}'}}\n",
        registry.url()
    );
    let mut cache = CacheProcess::start(&config, "").await;
    let mut acknowledged: HashSet<String> = HashSet::new();
    for (round, image) in images.iter().enumerate() {
        let address = cache.address;
        let paths: Vec<String> = std::iter::once(format!("manifests/{round}"))
            .chain(std::iter::once(format!(
                "manifests/{}",
                image.manifest_digest
            )))
            .chain(
                image
                    .blobs
                    .iter()
                    .map(|blob| format!("blobs/{}", blob.digest)),
            )
            .map(|rest| format!("/v2/team/app/{rest}?ns=images.test"))
            .collect();
        let (progress, mut acknowledgements) = tokio::sync::watch::channel(0);
        let client = tokio::spawn(async move {
            let mut done = Vec::new();
            for path in paths {
                match get(address, &path, "").await {
                    Ok(answer) if answer.status == 200 && answer.whole => {
                        done.push(path);
                        progress.send_replace(done.len());
                    }
                    _ => break,
                }
            }
            done
        });
        // After some answers, and then at any moment: on a busy machine nothing would have been answered
        // after a fixed time.
        let random = RandomState::new().hash_one(round);
        let wanted = usize::try_from(random % 4).unwrap();
        acknowledgements
            .wait_for(|answers| *answers >= wanted)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(random / 4 % 20)).await;
        cache.kill();
        acknowledged.extend(client.await.unwrap());
        cache.start_again().await;
    }
    registry.stop().await;
    assert!(acknowledged.len() > ROUNDS, "{}", acknowledged.len());
    let verified = cache.run(&["verify"]).await;
    assert!(verified.status.success(), "{verified:?}");
    for path in acknowledged {
        let answer = cache.get(&path, "").await;
        assert!(
            answer.status == 200 && answer.whole,
            "{path}: {}",
            answer.head
        );
    }
    cache.stop().await;
    // The directory can be looked at without a cache, too.
    let verified = cache.run(&["verify"]).await;
    assert!(verified.status.success(), "{verified:?}");
}
