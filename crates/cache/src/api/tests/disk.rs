use super::*;
use crate::storage::SizeLimits;

#[tokio::test]
async fn a_full_disk_passes_everything_through_and_stores_again() {
    let world = World::new();
    place(&world, "a", 100);
    push(&world, "a", "1", &vec![1; 300_000]);
    let errno = rustix::io::Errno::NOSPC.raw_os_error();
    world.cache.storage().disk().set_fault(Some(errno));
    pull(&world, "quay.io/x", "1", &[]).await.unwrap();
    assert_eq!(world.cache.storage().stored_objects(), 0);
    let (sent, received) = world.cache.counters().bytes();
    assert!(sent > 300_000 && received > 300_000, "{sent} {received}");
    world.cache.storage().disk().set_fault(None);
    pull(&world, "quay.io/x", "1", &[]).await.unwrap();
    testkit::wait::until("all of it is stored", || async {
        (world.cache.storage().stored_objects() == 3).then_some(())
    })
    .await;
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
    world.cache.storage().set_limits(SizeLimits {
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
