use std::time::Duration;

use futures_util::StreamExt;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::fake::{FakeUpstream, Sending};
use crate::name::Repository;
use crate::storage::SizeLimits;
use crate::store::ByteStream;
use crate::upstream::{Asker, Failure, Upstream};

const SEQUENTIAL: Parallelism = Parallelism {
    connections: 1,
    above: u64::MAX,
};

const PARALLEL: Parallelism = Parallelism {
    connections: 4,
    above: 1024 * 1024,
};

struct World {
    upstream: FakeUpstream,
    storage: Arc<Storage>,
    transfers: Transfers,
    limits: Arc<HostLimits>,
    liars: Arc<Liars>,
    dir: TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            upstream: FakeUpstream::default(),
            storage: Arc::new(Storage::open(dir.path()).unwrap()),
            transfers: Transfers::default(),
            limits: Arc::default(),
            liars: Arc::default(),
            dir,
        }
    }

    fn has(&self, place: &str, content: &[u8], sending: Sending) -> Digest {
        let digest = Digest::of(content);
        let priority = 100 - u32::from(place.as_bytes()[0] - b'a');
        self.upstream.with(place, |fake| {
            fake.priority = priority;
            fake.sending = sending;
            fake.blobs.insert(digest.clone(), content.to_vec().into());
        });
        digest
    }

    fn join(&self, digest: &Digest, hint: Option<u64>, how: Parallelism) -> Arc<Transfer> {
        let repository = Repository::new("a.test", "x").unwrap();
        let wanted = Wanted {
            upstream: Arc::new(self.upstream.clone()),
            digest: digest.clone(),
            places: self.upstream.places(&repository),
            repository,
            asker: Asker::default(),
            shared: None,
            size: hint,
            limits: Arc::clone(&self.limits),
            liars: Arc::clone(&self.liars),
            received: Arc::default(),
        };
        let done = |_: &Transfer| ();
        self.transfers
            .join(wanted, &self.storage, hint, how, done)
            .0
    }

    async fn pull(&self, digest: &Digest) -> Result<Vec<u8>, String> {
        collect(&self.join(digest, None, SEQUENTIAL), 0, None).await
    }

    fn is_stored(&self, digest: &Digest) -> bool {
        self.storage.disk().open_blob(digest).unwrap().is_some()
    }
}

async fn collect(transfer: &Arc<Transfer>, from: u64, to: Option<u64>) -> Result<Vec<u8>, String> {
    drained(read_along(Arc::clone(transfer), from, to)).await
}

async fn drained(mut stream: ByteStream) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    while let Some(bytes) = stream.next().await {
        content.extend_from_slice(&bytes.map_err(|error| error.to_string())?);
    }
    Ok(content)
}

fn content(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn many_clients_are_one_transfer_and_see_the_first_byte_before_the_last() {
    let world = World::new();
    let blob = content(3_000_000);
    let digest = world.has("a", &blob, Sending::Well);
    world
        .upstream
        .with("a", |fake| fake.pace = Duration::from_millis(1));
    let transfer = world.join(&digest, None, SEQUENTIAL);
    let mut first = read_along(Arc::clone(&transfer), 0, None);
    assert!(first.next().await.unwrap().is_ok());
    assert!(matches!(transfer.watch().borrow().state, State::Arriving));
    drop(first);
    let readers = (0..64).map(|_| world.pull(&digest));
    for read in futures_util::future::join_all(readers).await {
        assert_eq!(read.unwrap(), blob);
    }
    assert_eq!(world.upstream.sent(), blob.len() as u64);
    assert!(world.is_stored(&digest));
    assert!(world.storage.verify().unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_transfer_is_finished_when_all_have_left() {
    let world = World::new();
    let digest = world.has("a", &content(1_000_000), Sending::Well);
    let transfer = world.join(&digest, None, SEQUENTIAL);
    drop(read_along(Arc::clone(&transfer), 0, None));
    assert!(transfer.finished().await);
    assert!(world.is_stored(&digest));
}

#[tokio::test(start_paused = true)]
async fn cut_at_every_tenth_no_byte_comes_twice() {
    let blob = content(2_000_000);
    for tenth in 0..10u64 {
        let world = World::new();
        let cut = tenth * 200_000;
        let digest = world.has("a", &blob, Sending::CutAt(vec![cut]));
        world.has("b", &blob, Sending::Well);
        assert_eq!(world.pull(&digest).await.unwrap(), blob, "cut at {cut}");
        assert_eq!(world.upstream.sent(), blob.len() as u64, "cut at {cut}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_stalls_is_left_for_the_next() {
    let world = World::new();
    let blob = content(1_000_000);
    let digest = world.has("a", &blob, Sending::StallAt(400_000));
    world.has("b", &blob, Sending::Well);
    assert_eq!(world.pull(&digest).await.unwrap(), blob);
    assert_eq!(world.upstream.sent(), blob.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_source_without_ranges_is_read_from_the_start_and_skipped() {
    let world = World::new();
    let blob = content(1_000_000);
    let digest = world.has("a", &blob, Sending::CutAfter(300_000));
    world.has("b", &blob, Sending::WithoutRanges);
    world.upstream.with("a", |fake| fake.failure = None);
    let transfer = world.join(&digest, None, SEQUENTIAL);
    // After its first answer, `a` refuses.
    let mut early = read_along(Arc::clone(&transfer), 0, None);
    early.next().await.unwrap().unwrap();
    world.upstream.with("a", |fake| {
        fake.failure = Some(crate::upstream::Failure::Silent("gone".into()));
    });
    assert_eq!(collect(&transfer, 0, None).await.unwrap(), blob);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_sends_the_same_again_and_again_is_left_for_the_next() {
    let world = World::new();
    let blob = content(3_000_000);
    let digest = world.has("a", &blob, Sending::WithoutRangesCutAfter(1_000_000));
    world.has("b", &blob, Sending::Well);
    assert_eq!(world.pull(&digest).await.unwrap(), blob);
    // Once, and once more because it had sent something.
    assert_eq!(world.upstream.read("a", |fake| fake.blob_gets), 2);
    assert_eq!(world.upstream.sent(), 2_000_000 + 2_000_000);
}

#[tokio::test(start_paused = true)]
async fn a_transfer_ends_when_its_only_source_sends_nothing_new() {
    let world = World::new();
    let digest = world.has(
        "a",
        &content(3_000_000),
        Sending::WithoutRangesCutAfter(1_000_000),
    );
    // Each time it takes longer than all sources may be silent; it is not silent.
    world
        .upstream
        .with("a", |fake| fake.pace = Duration::from_secs(2));
    assert!(world.pull(&digest).await.is_err());
    assert_eq!(world.upstream.read("a", |fake| fake.blob_gets), 2);

    let digest = world.has("c", &content(3_000_001), Sending::CutAfter(0));
    assert!(world.pull(&digest).await.is_err());
    // With pauses, for a minute.
    let asked = world.upstream.read("c", |fake| fake.blob_gets);
    assert!((5..40).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn wrong_bytes_are_never_whole_and_the_next_source_is_used() {
    let world = World::new();
    let blob = content(50_000);
    let digest = world.has("a", &blob, Sending::Wrongly);
    world.has("b", &blob, Sending::Well);
    // Shorter than what is held back: the client never sees a wrong byte.
    assert_eq!(world.pull(&digest).await.unwrap(), blob);
    assert!(world.liars.is_one("a", &digest));
    assert!(!world.liars.is_one("b", &digest));

    let long = content(1_000_000);
    let digest = world.has("a", &long, Sending::Wrongly);
    let read = world.pull(&digest).await;
    // Bytes were handed out that turned out to be wrong: that client's answer breaks off.
    assert!(read.is_err(), "{}", read.unwrap().len());
    assert!(!world.is_stored(&digest));
    testkit::wait::until("the other places have been asked", || async {
        (world.transfers.count() == 0).then_some(())
    })
    .await;
    world.has("b", &long, Sending::Well);
    assert_eq!(world.pull(&digest).await.unwrap(), long);
    assert!(world.is_stored(&digest));
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_is_no_blob() {
    let world = World::new();
    let blob = content(1000);
    let digest = world.has("a", &blob, Sending::Nothing);
    assert!(world.pull(&digest).await.is_err());
    assert!(!world.is_stored(&digest));
    world.has("b", &blob, Sending::Well);
    assert_eq!(world.pull(&digest).await.unwrap(), blob);
    let empty = world.has("b", b"", Sending::Well);
    assert_eq!(world.pull(&empty).await.unwrap(), b"");
    assert!(world.is_stored(&empty));
}

#[tokio::test(start_paused = true)]
async fn without_a_length_the_digest_says_where_the_end_is() {
    let world = World::new();
    let blob = content(300_000);
    let digest = world.has("a", &blob, Sending::WithoutLength);
    assert_eq!(world.pull(&digest).await.unwrap(), blob);
}

/// Each further connection would only wait, and hold what the first one could fetch.
#[tokio::test(start_paused = true)]
async fn a_registry_that_counts_connections_holds_up_no_blob() {
    let world = World::new();
    let blob = content(32 * 1024 * 1024);
    let digest = world.has("a", &blob, Sending::Well);
    let pace = Duration::from_millis(1);
    world.upstream.with("a", |fake| {
        fake.pace = pace;
        fake.one_at_a_time = Some(Failure::RateLimited(None));
    });
    let began = tokio::time::Instant::now();
    let transfer = world.join(&digest, Some(blob.len() as u64), PARALLEL);
    assert!(transfer.finished().await);
    assert!(world.is_stored(&digest));
    // Of a clock that stands still while anybody works.
    let pieces = u32::try_from(blob.len() / (16 * 1024)).unwrap();
    assert!(
        began.elapsed() < pace * pieces * 3 / 2,
        "{:?}",
        began.elapsed()
    );
}

/// `Content-Range: bytes 0-4194303/*` (RFC 9110, section 14.4).
#[tokio::test]
async fn a_part_of_a_blob_whose_length_is_not_said_is_not_the_whole() {
    for hint in [10 * 1024 * 1024, 1024 * 1024 * 1024] {
        let world = World::new();
        let blob = content(10 * 1024 * 1024);
        let digest = world.has("a", &blob, Sending::WithoutLength);
        let transfer = world.join(&digest, Some(hint), PARALLEL);
        assert!(collect(&transfer, 0, None).await.unwrap() == blob);
        assert!(world.is_stored(&digest));
        assert_eq!(world.upstream.sent(), blob.len() as u64);
    }
}

#[tokio::test]
async fn large_blobs_come_over_several_connections_from_all_who_have_them() {
    let world = World::new();
    let blob = content(40 * 1024 * 1024);
    let digest = world.has("a", &blob, Sending::Well);
    world.has("b", &blob, Sending::Well);
    let transfer = world.join(&digest, Some(blob.len() as u64), PARALLEL);
    assert!(collect(&transfer, 0, None).await.unwrap() == blob);
    for place in ["a", "b"] {
        let gets = world.upstream.read(place, |fake| fake.blob_gets);
        assert!(gets > 1, "{place}: {gets}");
    }
    assert!(world.is_stored(&digest));
    // Nothing was fetched twice, but for what was in flight when a chunk was shared.
    let extra = world.upstream.sent() - blob.len() as u64;
    assert!(extra < 4 * 1024 * 1024, "{extra}");
}

#[tokio::test(start_paused = true)]
async fn large_blobs_leave_room_for_others_to_begin() {
    let silent = || crate::upstream::Failure::Silent("away".into());
    large_blobs_leave_room(&|_| ()).await;
    // Also where another place has none of it, does not answer, or is known not to answer.
    large_blobs_leave_room(&|world| world.upstream.with("b", |_| ())).await;
    large_blobs_leave_room(&|world| {
        world
            .upstream
            .with("b", |fake| fake.failure = Some(silent()));
    })
    .await;
    large_blobs_leave_room(&|world| {
        world.upstream.with("b", |fake| {
            fake.failure = Some(silent());
            fake.is_silent = true;
        });
    })
    .await;
}

async fn large_blobs_leave_room(with_others: &dyn Fn(&World)) {
    let world = World::new();
    let length = 16 * 1024 * 1024;
    let digests: Vec<Digest> = (0..8u8)
        .map(|n| world.has("a", &vec![n; length], Sending::Well))
        .collect();
    world
        .upstream
        .with("a", |fake| fake.pace = Duration::from_secs(1));
    with_others(&world);
    let mut transfers = Vec::new();
    for digest in &digests {
        let transfer = world.join(digest, Some(length as u64), PARALLEL);
        // It has all the connections that it can get before the next one asks.
        testkit::wait::until("it arrives", || async {
            (!transfer.watch().borrow().ranges.pairs().is_empty()).then_some(())
        })
        .await;
        transfers.push(transfer);
    }
    let is_arriving =
        |transfer: &Arc<Transfer>| matches!(transfer.watch().borrow().state, State::Arriving);
    assert!(transfers.iter().all(is_arriving));
    // The first one goes over several connections all the same.
    assert!(transfers[0].watch().borrow().ranges.pairs().len() > 1);
}

#[tokio::test]
async fn one_of_several_sources_lies() {
    let world = World::new();
    let blob = content(24 * 1024 * 1024);
    let digest = world.has("a", &blob, Sending::Well);
    world.has("b", &blob, Sending::Wrongly);
    let hint = Some(blob.len() as u64);
    let transfer = world.join(&digest, hint, PARALLEL);
    assert!(transfer.finished().await);
    assert!(world.is_stored(&digest));
    assert!(world.storage.verify().unwrap().is_clean());
}

#[tokio::test]
async fn a_hint_that_is_wrong_only_costs_the_ranges() {
    for hint in [1, 100 * 1024 * 1024] {
        let world = World::new();
        let blob = content(9 * 1024 * 1024);
        let digest = world.has("a", &blob, Sending::Well);
        let transfer = world.join(&digest, Some(hint), PARALLEL);
        assert!(collect(&transfer, 0, None).await.unwrap() == blob);
        assert!(world.is_stored(&digest));
    }
}

#[tokio::test(start_paused = true)]
async fn parts_while_it_arrives_and_a_client_that_hangs_up() {
    let world = World::new();
    let blob = content(2_000_000);
    let digest = world.has("a", &blob, Sending::Well);
    world
        .upstream
        .with("a", |fake| fake.pace = Duration::from_millis(1));
    let transfer = world.join(&digest, None, SEQUENTIAL);
    let mut open_ended = read_along(Arc::clone(&transfer), 500_000, None);
    let chunk = open_ended.next().await.unwrap().unwrap();
    assert_eq!(chunk[..], blob[500_000..500_000 + chunk.len()]);
    drop(open_ended);
    let part = collect(&transfer, 1_000_000, Some(1_500_000))
        .await
        .unwrap();
    assert!(part == blob[1_000_000..1_500_000]);
    assert!(transfer.finished().await);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_stored_passes_through_verified() {
    let errno = [rustix::io::Errno::IO, rustix::io::Errno::NOSPC];
    for errno in errno.map(rustix::io::Errno::raw_os_error) {
        let world = World::new();
        let blob = content(1_000_000);
        let digest = world.has("a", &blob, Sending::Well);
        world
            .upstream
            .with("a", |fake| fake.pace = Duration::from_millis(1));
        // In the middle of the transfer.
        let transfer = world.join(&digest, None, SEQUENTIAL);
        let mut early = read_along(Arc::clone(&transfer), 0, None);
        let mut got = early.next().await.unwrap().unwrap().to_vec();
        world.storage.disk().set_fault(Some(errno));
        while let Some(bytes) = early.next().await {
            got.extend_from_slice(&bytes.unwrap());
        }
        assert!(got == blob);
        // From the beginning.
        assert!(world.pull(&digest).await.unwrap() == blob);
        assert!(!world.is_stored(&digest));
        let wrong = world.has("b", &content(900_000), Sending::Wrongly);
        assert!(world.pull(&wrong).await.is_err());
        // And it stores again.
        world.storage.disk().set_fault(None);
        assert!(world.pull(&digest).await.unwrap() == blob);
        assert!(world.is_stored(&digest));
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_larger_than_the_store_passes_through() {
    let world = World::new();
    world.storage.set_limits(SizeLimits {
        max_size: 100_000,
        min_free: 0,
    });
    let blob = content(500_000);
    let digest = world.has("a", &blob, Sending::Well);
    assert!(world.pull(&digest).await.unwrap() == blob);
    assert!(!world.is_stored(&digest));
    let transfer = world.join(&digest, None, SEQUENTIAL);
    let part = collect(&transfer, 250_000, Some(300_000)).await.unwrap();
    assert!(part == blob[250_000..300_000]);
}

#[tokio::test(start_paused = true)]
async fn a_partial_download_survives_a_restart() {
    let mut world = World::new();
    let blob = content(2_000_000);
    let digest = world.has("a", &blob, Sending::CutAt(vec![1_200_000]));
    let gone = crate::upstream::Failure::Silent("gone".into());
    // Each part takes its time, which passes only while this test waits: it is gone before it is asked again.
    world
        .upstream
        .with("a", |fake| fake.pace = Duration::from_secs(1));
    let transfer = world.join(&digest, None, SEQUENTIAL);
    let mut early = read_along(Arc::clone(&transfer), 0, None);
    early.next().await.unwrap().unwrap();
    world.upstream.with("a", |fake| fake.failure = Some(gone));
    assert!(!transfer.finished().await);
    drop((early, transfer));
    let before = world.upstream.sent();
    assert_eq!(before, 1_200_000);
    // Another process.
    world.storage = {
        let path = world.dir.path().to_owned();
        world.transfers = Transfers::default();
        let old = std::mem::replace(
            &mut world.storage,
            Arc::new(Storage::open_read_only(&path).unwrap()),
        );
        testkit::wait::until("the old store is closed", || async {
            (Arc::strong_count(&old) == 1).then_some(())
        })
        .await;
        drop(old);
        Arc::new(Storage::open(&path).unwrap())
    };
    world.upstream.with("a", |fake| fake.failure = None);
    assert!(world.pull(&digest).await.unwrap() == blob);
    assert_eq!(world.upstream.sent(), blob.len() as u64);
}

impl World {
    /// As a download leaves it that was broken off.
    fn has_partial(&self, digest: &Digest, content: &[u8]) {
        let disk = self.storage.disk();
        let file = disk.open_partial(digest).unwrap();
        disk.write_partial(&file, content, 0).unwrap();
        disk.save_partial(digest, &file, &[(0, content.len() as u64)])
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_was_all_there_before_a_crash_is_finished_without_asking() {
    let world = World::new();
    let blob = content(300_000);
    let digest = world.has("a", &blob, Sending::Well);
    world.has_partial(&digest, &blob);
    assert_eq!(world.pull(&digest).await.unwrap(), blob);
    assert!(world.is_stored(&digest));
    assert_eq!(world.upstream.sent(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_as_long_as_the_blob_or_longer_and_wrong_is_thrown_away() {
    for length in [300_000, 300_001, 400_000] {
        for hint in [None, Some(300_000), Some(1_000_000)] {
            let world = World::new();
            let blob = content(300_000);
            let digest = world.has("a", &blob, Sending::Well);
            world.has_partial(&digest, &vec![7; length]);
            let transfer = world.join(&digest, hint, SEQUENTIAL);
            assert_eq!(
                collect(&transfer, 0, None).await.unwrap(),
                blob,
                "{length} {hint:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_who_says_that_a_blob_is_shorter_costs_not_what_others_can_go_on_with() {
    let world = World::new();
    let blob = content(300_000);
    let digest = world.has("a", &blob, Sending::Well);
    world.has("b", &blob[..100_000], Sending::Well);
    world.upstream.with("b", |fake| {
        fake.blobs
            .insert(digest.clone(), blob[..100_000].to_vec().into());
    });
    world.has_partial(&digest, &blob[..200_000]);
    let hint = Some(blob.len() as u64);
    let silent = crate::upstream::Failure::Silent("away".into());
    world.upstream.with("a", |fake| fake.failure = Some(silent));
    let transfer = world.join(&digest, hint, SEQUENTIAL);
    assert!(!transfer.finished().await);
    world.upstream.with("a", |fake| fake.failure = None);
    let transfer = world.join(&digest, hint, SEQUENTIAL);
    assert_eq!(collect(&transfer, 0, None).await.unwrap(), blob);
    assert_eq!(world.upstream.sent(), 100_000);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_breaks_off_after_the_last_byte_has_given_all() {
    let world = World::new();
    let blob = content(300_000);
    let digest = world.has("a", &blob, Sending::WithoutLengthCutAt(300_000));
    assert_eq!(world.pull(&digest).await.unwrap(), blob);
    assert!(world.is_stored(&digest));
    assert_eq!(world.upstream.sent(), 300_000);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_longer_than_the_blob_and_breaks_off_is_not_gone_on_with() {
    let world = World::new();
    let blob = content(300_000);
    let digest = world.has("b", &blob, Sending::Well);
    world.has("a", b"", Sending::WithoutLengthCutAt(400_000));
    world.upstream.with("a", |fake| {
        fake.blobs.insert(digest.clone(), vec![7; 500_000].into());
    });
    let transfer = world.join(&digest, None, SEQUENTIAL);
    assert!(transfer.finished().await);
    assert!(world.is_stored(&digest));
}

#[tokio::test(start_paused = true)]
async fn a_download_for_others_that_is_too_slow_is_left() {
    for (is_right, rest) in [(true, Sending::Well), (false, Sending::Wrongly)] {
        let world = World::new();
        let blob = content(1_000_000);
        let digest = world.has("a", &blob, rest);
        world
            .upstream
            .with("a", |fake| fake.pace = Duration::from_secs(5));
        let theirs = world.join(&digest, Some(blob.len() as u64), SEQUENTIAL);
        let own = {
            let world = World::new();
            world.has("b", &blob, Sending::Well);
            let transfer = world.join(&digest, None, SEQUENTIAL);
            Arc::clone(transfer.wanted())
        };
        let read = |from, to| {
            let own = Some(Arc::clone(&own));
            drained(read_along_while_it_is_quick(
                Arc::clone(&theirs),
                own,
                from,
                to,
            ))
        };
        let (whole, part) = tokio::join!(read(0, None), read(700_000, Some(800_000)));
        if is_right {
            assert!(whole.unwrap() == blob);
        } else {
            // What was handed out is not what there is.
            assert!(whole.is_err());
        }
        assert!(part.unwrap() == blob[700_000..800_000]);
        assert!(matches!(theirs.watch().borrow().state, State::Arriving));
    }
}

#[tokio::test(start_paused = true)]
async fn a_download_for_others_that_stands_still_for_a_while_is_not_left() {
    let world = World::new();
    let blob = content(1_000_000);
    let digest = world.has("a", &blob, Sending::StallAt(400_000));
    // Nothing comes for 35 s: the source is left after 20, and its next answer takes 15.
    world
        .upstream
        .with("a", |fake| fake.delay = Duration::from_secs(15));
    let theirs = world.join(&digest, None, SEQUENTIAL);
    let others = World::new();
    others.has("b", &blob, Sending::Well);
    let own = Arc::clone(others.join(&digest, None, SEQUENTIAL).wanted());
    let before = others.upstream.read("b", |fake| fake.blob_gets);
    let stream = read_along_while_it_is_quick(theirs, Some(own), 0, None);
    assert!(drained(stream).await.unwrap() == blob);
    // `join` has begun a download of its own there; nobody else has asked.
    let asked = others.upstream.read("b", |fake| fake.blob_gets) - before;
    assert!(asked <= 1, "{asked}");
    assert_eq!(world.upstream.sent(), blob.len() as u64);
    assert_eq!(world.upstream.read("a", |fake| fake.blob_gets), 2);
}

#[tokio::test(start_paused = true)]
async fn a_download_for_others_that_sends_only_what_is_there_is_left() {
    let world = World::new();
    let blob = content(1_000_000);
    let digest = world.has("a", &blob, Sending::WithoutRanges);
    world.has_partial(&digest, &blob[..900_000]);
    // Each piece comes before the source counts as silent, and is nothing new.
    world
        .upstream
        .with("a", |fake| fake.pace = Duration::from_secs(19));
    let theirs = world.join(&digest, None, SEQUENTIAL);
    let others = World::new();
    others.has("b", &blob, Sending::Well);
    let own = Arc::clone(others.join(&digest, None, SEQUENTIAL).wanted());
    let stream = read_along_while_it_is_quick(Arc::clone(&theirs), Some(own), 0, None);
    assert!(drained(stream).await.unwrap() == blob);
    // Before the other one has sent anything new.
    assert_eq!(theirs.watch().borrow().ranges.bytes(), 900_000);
}

#[tokio::test(start_paused = true)]
async fn a_download_for_others_that_fails_before_it_begins_is_no_answer() {
    let world = World::new();
    let blob = content(1_000_000);
    let digest = Digest::of(&blob);
    // In the end it has nothing.
    world
        .upstream
        .with("a", |fake| fake.delay = Duration::from_secs(12));
    let theirs = world.join(&digest, None, SEQUENTIAL);
    let others = World::new();
    others.has("b", &blob, Sending::Well);
    let own = Arc::clone(others.join(&digest, None, SEQUENTIAL).wanted());
    let stream = read_along_while_it_is_quick(Arc::clone(&theirs), Some(own), 0, None);
    assert!(drained(stream).await.unwrap() == blob);
    assert!(matches!(theirs.watch().borrow().state, State::Failed(_)));
}

#[tokio::test(start_paused = true)]
async fn a_page_in_place_of_a_blob_costs_not_what_is_there() {
    let world = World::new();
    let blob = content(300_000);
    let digest = world.has("a", &blob, Sending::WithoutRanges);
    world.has_partial(&digest, &blob[..200_000]);
    let hint = Some(blob.len() as u64);
    let page = |content: &[u8], sending| {
        world.upstream.with("a", |fake| {
            fake.sending = sending;
            fake.blobs.insert(digest.clone(), content.to_vec().into());
        });
    };
    page(b"log in first", Sending::WithoutRanges);
    let transfer = world.join(&digest, hint, SEQUENTIAL);
    assert!(!transfer.finished().await);
    page(&blob, Sending::Well);
    let transfer = world.join(&digest, hint, SEQUENTIAL);
    assert_eq!(collect(&transfer, 0, None).await.unwrap(), blob);
    assert_eq!(world.upstream.sent(), 100_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn cut_anywhere_the_pull_completes_with_no_byte_twice(
        length in 1usize..600_000,
        cuts in prop::collection::vec(0u64..600_000, 0..6),
        readers in prop::collection::vec(0u64..600_000, 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let world = World::new();
            let blob = content(length);
            let cuts: Vec<u64> = cuts.into_iter().filter(|cut| *cut < length as u64).collect();
            let digest = world.has("a", &blob, Sending::CutAt(cuts));
            world.has("b", &blob, Sending::Well);
            let transfer = world.join(&digest, None, SEQUENTIAL);
            for from in readers {
                let from = from.min(length as u64);
                let read = collect(&transfer, from, None).await.unwrap();
                prop_assert!(read == blob[from as usize..]);
            }
            prop_assert_eq!(world.upstream.sent(), length as u64);
            Ok(())
        })?;
    }
}
