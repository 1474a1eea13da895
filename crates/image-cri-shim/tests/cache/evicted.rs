//! `kill -9` while images are evicted to make room, and while they are deleted by command.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use testkit::fake_registry::FakeRegistry;
use testkit::images::Image;

use crate::world::{CacheProcess, get};

const ROUNDS: usize = 30;
/// Of which the store holds about five.
const IMAGES: usize = 20;
const EACH: usize = 200_000;
const ROOM: u64 = 1_200_000;

/// Pulls all of an image, as far as it is answered.
async fn pull(address: std::net::SocketAddr, image: &Image, tag: usize) -> bool {
    let mut paths = vec![format!("manifests/{tag}")];
    paths.extend(
        image
            .blobs
            .iter()
            .map(|blob| format!("blobs/{}", blob.digest)),
    );
    for rest in paths {
        let path = format!("/v2/team/app/{rest}?ns=images.test");
        match get(address, &path, "").await {
            Ok(answer) if answer.status == 200 && answer.whole => {}
            _ => return false,
        }
    }
    true
}

/// The files of the store's blobs, and their bytes.
fn blobs(cache: &CacheProcess) -> (HashSet<String>, u64) {
    let folder = cache.dir.path().join("store/blobs/sha256");
    let (mut names, mut bytes) = (HashSet::new(), 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        bytes += entry.metadata().unwrap().len();
        names.insert(entry.file_name().into_string().unwrap());
    }
    (names, bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_left_is_whole_and_room_is_made_again() {
    let registry = FakeRegistry::start().unwrap();
    let images: Vec<Image> = (0..IMAGES)
        .map(|number| Image::sized(&format!("evicted {number}"), EACH))
        .collect();
    for (tag, image) in images.iter().enumerate() {
        registry.add(image, "team/app", &tag.to_string());
    }
    let config = format!(
        "fallbackToOrigin: false\nregistries:\n  - {{address: '{}'}}\n",
        registry.url()
    );
    let section = format!("  maxSize: {ROOM}");
    let mut cache = CacheProcess::start(&config, &section).await;
    for round in 0..ROUNDS {
        let random = RandomState::new().hash_one(round);
        let address = cache.address;
        let (progress, mut pulled) = tokio::sync::watch::channel(0_u64);
        let client = {
            let images = images.clone();
            tokio::spawn(async move {
                for number in 0..images.len() {
                    let tag = (number * 7 + round) % images.len();
                    if !pull(address, &images[tag], tag).await {
                        return;
                    }
                    progress.send_replace(number as u64 + 1);
                }
            })
        };
        // The store is full after some, so that each after them makes room. A command deletes meanwhile.
        let wanted = 4 + random % 6;
        let full = pulled.wait_for(|done| *done >= wanted).await.is_ok();
        assert!(full, "round {round}: the pulls ended");
        let name = format!("images.test/team/app:{}", round % IMAGES);
        let deleting = tokio::spawn(cache.command(&["rm", &name]).output());
        tokio::time::sleep(Duration::from_millis(random % 40)).await;
        cache.kill();
        client.await.unwrap();
        // It may find no cache any more, and then deletes by itself.
        deleting.await.unwrap().unwrap();
        // Whoever looks at the directory before the next start finds it clean, too.
        if round % 5 == 0 {
            let verified = cache.run(&["verify"]).await;
            assert!(verified.status.success(), "round {round}: {verified:?}");
        }
        cache.start_again().await;
        // Nothing is ever only read: what comes next is stored at once.
        let next = (round * 3) % IMAGES;
        assert!(
            pull(cache.address, &images[next], next).await,
            "round {round}"
        );
    }
    let verified = cache.run(&["verify"]).await;
    assert!(verified.status.success(), "{verified:?}");
    testkit::wait::until("there is as much as there may be", || async {
        let collected = cache.run(&["gc"]).await;
        assert!(collected.status.success(), "{collected:?}");
        (blobs(&cache).1 <= ROOM).then_some(())
    })
    .await;
    // Every file is one that the index knows: none is left over.
    testkit::wait::until("the index knows every file", || async {
        let verified = cache.run(&["verify"]).await;
        let said = String::from_utf8_lossy(&verified.stdout).into_owned();
        let (files, _) = blobs(&cache);
        said.starts_with(&format!("{} blobs", files.len()))
            .then_some(())
    })
    .await;
    let partial = std::fs::read_dir(cache.dir.path().join("store/partial")).unwrap();
    let left: Vec<_> = partial.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        left.iter()
            .all(|name| !name.to_string_lossy().starts_with("new.")),
        "{left:?}"
    );
}
