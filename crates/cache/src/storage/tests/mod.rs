mod power;

use super::*;
use crate::manifest::Kind;

fn link() -> Link {
    Link {
        kind: Kind::Manifest,
        place: "p".into(),
        open: true,
        imported: false,
    }
}

fn store_blob(storage: &Storage, content: &[u8]) -> (Digest, bool) {
    store_blob_of(storage, "none", content)
}

/// Stores a blob of a repository.
fn store_blob_of(storage: &Storage, path: &str, content: &[u8]) -> (Digest, bool) {
    let digest = Digest::of(content);
    let repository = Repository::new("a.test", path).unwrap();
    let fits = storage.reserve_for(&repository, &digest, content.len() as u64);
    if fits {
        let file = storage.disk().open_partial(&digest).unwrap();
        storage.disk().write_partial(&file, content, 0).unwrap();
        let size = content.len() as u64;
        storage.commit(&digest, &file, size).unwrap();
        storage.release(&digest);
    }
    (digest, fits)
}

fn is_there(storage: &Storage, digest: &Digest) -> bool {
    storage.disk().open_blob(digest).unwrap().is_some()
}

#[test]
fn what_a_crash_left_between_disk_and_index_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, lost) = {
        let storage = Storage::open(dir.path()).unwrap();
        let (kept, _) = store_blob(&storage, b"kept");
        let (lost, _) = store_blob(&storage, b"lost");
        storage.disk().remove(&lost).unwrap();
        // Renamed, but not yet in the index.
        storage
            .disk()
            .write_small(&Digest::of(b"orphan"), b"orphan")
            .unwrap();
        (kept, lost)
    };
    let storage = Storage::open(dir.path()).unwrap();
    storage.tidy().unwrap();
    assert_eq!((storage.stored_objects(), storage.stored_bytes()), (2, 10));
    assert!(storage.index().object(&kept).unwrap().is_some());
    assert!(storage.index().object(&lost).unwrap().is_none());
    let orphan = Digest::of(b"orphan");
    assert!(storage.index().object(&orphan).unwrap().is_some());
    assert!(storage.verify().unwrap().is_clean());
}

#[test]
fn a_blob_of_another_length_is_neither_served_nor_taken_in() {
    let dir = tempfile::tempdir().unwrap();
    let (digest, path) = {
        let storage = Storage::open(dir.path()).unwrap();
        let (digest, _) = store_blob(&storage, b"content");
        let path = storage.disk().path(&digest);
        (digest, path)
    };
    std::fs::write(&path, b"cont").unwrap();
    {
        // It can't be deleted.
        let storage = Storage::open_read_only(dir.path()).unwrap();
        assert!(path.exists());
        assert!(storage.open_blob(&digest).unwrap().is_none());
    }
    let storage = Storage::open(dir.path()).unwrap();
    assert!(storage.open_blob(&digest).unwrap().is_none());
    storage.tidy().unwrap();
    assert_eq!((storage.stored_objects(), storage.stored_bytes()), (0, 0));
    let (digest, _) = store_blob(&storage, b"content");
    assert_eq!(storage.open_blob(&digest).unwrap().unwrap().1, 7);
}

#[test]
fn damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path()).unwrap();
    let (digest, _) = store_blob(&storage, b"content");
    std::fs::write(storage.disk().path(&digest), b"CONTENT").unwrap();
    let found = storage.verify().unwrap();
    assert_eq!(found.damaged, std::slice::from_ref(&digest));
    storage.forget(&digest).unwrap();
    assert!(storage.verify().unwrap().is_clean());
    assert_eq!((storage.stored_objects(), storage.stored_bytes()), (0, 0));
}

#[test]
fn room_is_made_by_what_was_used_longest_ago_and_never_by_what_cannot_fit() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path()).unwrap();
    storage.set_limits(SizeLimits {
        max_size: 1000,
        min_free: 0,
    });
    let (old, _) = store_blob(&storage, &[1; 400]);
    let (young, _) = store_blob(&storage, &[2; 400]);
    storage.index().used([(&old, 5), (&young, 6)]).unwrap();
    let (huge, fits) = store_blob(&storage, &[3; 1001]);
    assert!(!fits && !is_there(&storage, &huge));
    assert!(is_there(&storage, &old));
    let (new, fits) = store_blob(&storage, &[4; 300]);
    assert!(fits && is_there(&storage, &new));
    assert!(!is_there(&storage, &old));
    assert!(is_there(&storage, &young));
    assert_eq!(storage.stored_bytes(), 700);
    assert_eq!(storage.evictions(), 1);
}

/// Stores a manifest of a repository that says how long its layers are.
fn store_manifest(storage: &Storage, path: &str, layers: &[(Digest, u64)]) {
    let entries: Vec<String> = layers
        .iter()
        .map(|(digest, size)| format!(r#"{{"digest":"{digest}","size":{size}}}"#))
        .collect();
    let content = format!(r#"{{"layers":[{}]}}"#, entries.join(","));
    let parsed = crate::manifest::parse(content.as_bytes(), None).unwrap();
    let repository = Repository::new("a.test", path).unwrap();
    let digest = Digest::of(content.as_bytes());
    storage
        .store_manifest(&digest, content.as_bytes(), &parsed, &repository, &link())
        .unwrap();
}

#[test]
fn layers_of_an_image_that_is_too_large_are_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let layers = [(Digest::of(&[1; 600]), 600), (Digest::of(&[2; 600]), 600)];
    for is_restarted in [false, true] {
        let storage = Storage::open(dir.path()).unwrap();
        storage.set_limits(SizeLimits {
            max_size: 1000,
            min_free: 0,
        });
        if !is_restarted {
            store_manifest(&storage, "x", &layers);
        }
        let (_, fits) = store_blob_of(&storage, "x", &[1; 600]);
        assert!(!fits);
        let (_, fits) = store_blob_of(&storage, "x", &[3; 600]);
        assert!(fits);
    }
}

#[test]
fn nobody_says_how_long_the_layers_of_others_are() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path()).unwrap();
    storage.set_limits(SizeLimits {
        max_size: 1000,
        min_free: 0,
    });
    let layer = Digest::of(&[1; 300]);
    store_manifest(&storage, "good", &[(layer.clone(), 300)]);
    store_manifest(&storage, "evil", &[(layer.clone(), 1 << 62)]);
    let expected = |path: &str| {
        let repository = Repository::new("a.test", path).unwrap();
        storage.index().expected_size(&repository, &layer).unwrap()
    };
    assert_eq!((expected("good"), expected("other")), (Some(300), None));
    let (_, fits) = store_blob_of(&storage, "evil", &[1; 300]);
    assert!(!fits);
    let (_, fits) = store_blob_of(&storage, "good", &[1; 300]);
    assert!(fits);
}

#[test]
fn a_disk_that_fails_is_reported_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path()).unwrap();
    let repository = Repository::new("a.test", "x").unwrap();
    let content = b"{}";
    let parsed = crate::manifest::parse(content, None).unwrap();
    let digest = Digest::of(content);
    let store = || storage.store_manifest(&digest, content, &parsed, &repository, &link());
    storage
        .disk()
        .set_fault(Some(rustix::io::Errno::NOSPC.raw_os_error()));
    assert!(store().is_err());
    assert!(storage.manifest(&digest).unwrap().is_none());
    storage.disk().set_fault(None);
    store().unwrap();
    assert!(storage.manifest(&digest).unwrap().is_some());
    assert!(
        storage
            .index()
            .linked(&repository, &digest)
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_directory_that_cannot_be_written_is_served_from() {
    let dir = tempfile::tempdir().unwrap();
    let digest = {
        let storage = Storage::open(dir.path()).unwrap();
        store_blob(&storage, b"there").0
    };
    let storage = Storage::open_read_only(dir.path()).unwrap();
    assert!(storage.open_blob(&digest).unwrap().is_some());
    assert!(storage.index().object(&digest).unwrap().is_some());
}

#[test]
fn downloads_that_nobody_goes_on_with_fill_no_disk() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path()).unwrap();
    let begin = |content: &[u8]| {
        let digest = Digest::of(content);
        let file = storage.disk().open_partial(&digest).unwrap();
        storage.disk().write_partial(&file, content, 0).unwrap();
        (digest, file)
    };
    let partials = || storage.disk().partials().len();
    let (_, old) = begin(b"old");
    begin(b"young");
    let day = std::time::Duration::from_secs(25 * 60 * 60);
    old.set_modified(SystemTime::now() - day).unwrap();
    storage.tidy().unwrap();
    assert_eq!(partials(), 1);
    // Before any image has to go, they do; what is being fetched stays.
    let (kept, _) = store_blob(&storage, &[1; 400]);
    let (running, _) = begin(b"running");
    assert!(storage.reserve(&running, 10));
    storage.set_limits(SizeLimits {
        max_size: 900,
        min_free: 0,
    });
    assert!(storage.reserve(&Digest::of(b"next"), 600));
    assert_eq!(partials(), 1);
    let partial = storage.disk().partial_path(&running);
    assert!(partial.exists());
    assert!(!is_there(&storage, &kept));
}

#[test]
fn what_is_still_to_be_written_is_not_free() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path()).unwrap();
    let (free, _) = storage.disk().space().unwrap();
    storage.set_limits(SizeLimits {
        max_size: u64::MAX,
        min_free: free - (512 << 20),
    });
    assert!(storage.reserve(&Digest::of(b"one"), 300 << 20));
    assert!(!storage.reserve(&Digest::of(b"two"), 300 << 20));
}

#[test]
fn a_download_that_goes_on_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path()).unwrap();
    store_blob(&storage, &[1; 400]);
    let digest = Digest::of(&[2; 400]);
    let file = storage.disk().open_partial(&digest).unwrap();
    storage.disk().write_partial(&file, &[2; 300], 0).unwrap();
    storage.set_limits(SizeLimits {
        max_size: 700,
        min_free: 0,
    });
    assert!(storage.reserve(&digest, 400));
    assert!(storage.disk().partial_path(&digest).exists());
}
