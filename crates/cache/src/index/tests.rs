use std::collections::HashSet;

use super::*;
use crate::manifest::{Child, Kind, OCI_INDEX, OCI_MANIFEST};
use crate::name::Repository;

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn repository(path: &str) -> Repository {
    Repository::new("a.test", path).unwrap()
}

fn parsed(children: &[(&str, Kind)], is_index: bool) -> Parsed {
    let media_type = if is_index { OCI_INDEX } else { OCI_MANIFEST };
    Parsed {
        media_type: media_type.to_owned(),
        is_index,
        children: children
            .iter()
            .map(|(name, kind)| Child {
                digest: digest(name),
                size: 100,
                kind: *kind,
                platform: None,
            })
            .collect(),
        subject: None,
        artifact_type: None,
        annotations: None,
    }
}

fn put(index: &Index, name: &str, manifest: Option<&Parsed>, now: u64) {
    let digest = digest(name);
    index
        .put(&NewObject {
            digest: &digest,
            size: 100,
            manifest,
            now,
        })
        .unwrap();
}

/// An index `i` with the manifests `m1` and `m2`, which share the layer `shared`.
fn multi_arch(index: &Index) {
    put(
        index,
        "i",
        Some(&parsed(
            &[("m1", Kind::Manifest), ("m2", Kind::Manifest)],
            true,
        )),
        10,
    );
    for (name, own) in [("m1", "l1"), ("m2", "l2")] {
        let layers = [(own, Kind::Blob), ("shared", Kind::Blob)];
        put(index, name, Some(&parsed(&layers, false)), 10);
        put(index, own, None, 10);
    }
    put(index, "shared", None, 10);
}

fn left(index: &Index) -> HashSet<Digest> {
    let mut left = HashSet::new();
    index
        .for_each_object(|digest, _, _| {
            left.insert(digest);
        })
        .unwrap();
    left
}

#[test]
fn the_least_recently_used_image_goes_first_and_shared_layers_stay() {
    let index = Index::in_memory().unwrap();
    multi_arch(&index);
    put(
        &index,
        "other",
        Some(&parsed(&[("shared", Kind::Blob)], false)),
        20,
    );
    let evicted = index.evict(1, &HashSet::new()).unwrap();
    assert_eq!(evicted.images, 1);
    // The index, both manifests and their own layers; the shared layer has another image.
    assert_eq!(evicted.bytes, 500);
    let expected: HashSet<_> = ["other", "shared"].map(digest).into();
    assert_eq!(left(&index), expected);
    assert!(index.parents(&digest("l1")).unwrap().is_empty());
    assert_eq!(index.parents(&digest("shared")).unwrap(), [digest("other")]);
}

#[test]
fn a_use_of_a_layer_is_a_use_of_its_image() {
    let index = Index::in_memory().unwrap();
    multi_arch(&index);
    put(&index, "younger", Some(&parsed(&[], false)), 20);
    index.used([(&digest("l2"), 30)]).unwrap();
    index.evict(1, &HashSet::new()).unwrap();
    assert!(!left(&index).contains(&digest("younger")));
    assert_eq!(left(&index).len(), 6);
}

#[test]
fn a_use_of_one_image_is_no_use_of_others_that_share_a_layer_with_it() {
    let image = |index: &Index, name: &str, at| {
        let own = format!("own layer of {name}");
        let layers = [("shared", Kind::Blob), (own.as_str(), Kind::Blob)];
        put(index, name, Some(&parsed(&layers, false)), at);
        put(index, &own, None, at);
    };
    // What of `c` is used is noted at once, or its layers later than its manifest; a runtime that has the
    // manifest from elsewhere asks for the layers alone.
    let batches: [&[&[&str]]; 3] = [
        &[&["shared", "own layer of c", "c"]],
        &[&["c"], &["own layer of c", "shared"]],
        &[&["own layer of c"], &["shared"]],
    ];
    for batches in batches {
        let index = Index::in_memory().unwrap();
        for (name, at) in [("c", 1), ("b", 2), ("a", 3)] {
            image(&index, name, at);
        }
        put(&index, "shared", None, 1);
        for (at, batch) in (10..).zip(batches) {
            let batch: Vec<Digest> = batch.iter().map(|name| digest(name)).collect();
            index.used(batch.iter().map(|digest| (digest, at))).unwrap();
        }
        let used = ["a", "b"].map(|name| index.used_at(&digest(name)).unwrap());
        assert_eq!(used, [3, 2], "{batches:?}");
        assert!(index.used_at(&digest("c")).unwrap() >= 10, "{batches:?}");
        for victim in ["b", "a"] {
            let evicted = index.evict(1, &HashSet::new()).unwrap();
            assert!(evicted.digests.contains(&digest(victim)), "{batches:?}");
        }
        assert!(left(&index).contains(&digest("c")));
    }
}

#[test]
fn what_is_pinned_or_busy_stays() {
    let index = Index::in_memory().unwrap();
    multi_arch(&index);
    put(&index, "other", Some(&parsed(&[], false)), 20);
    let name = TagName {
        repository: repository("x"),
        tag: "1".into(),
    };
    let tag = |of: &str| Tag {
        digest: digest(of),
        place: "p".into(),
        validated_at: 1,
        silent_since: None,
        imported: false,
    };
    let pin = Pin {
        digest: digest("i"),
    };
    assert!(index.set_pin("a.test/x:1", Some(&pin)).unwrap());
    assert!(!index.set_pin("a.test/x:1", Some(&pin)).unwrap());
    assert_eq!(index.pinned_bytes().unwrap(), 600);
    let busy = HashSet::from([digest("other")]);
    assert_eq!(index.evict(u64::MAX, &busy).unwrap(), Evicted::default());

    // The pin goes with its tag.
    index.set_tag(&name, &tag("other"), true).unwrap();
    assert_eq!(index.pinned_bytes().unwrap(), 100);
    let evicted = index.evict(u64::MAX, &HashSet::new()).unwrap();
    assert_eq!((evicted.images, evicted.bytes), (1, 600));
    assert!(index.set_pin("a.test/x:1", None).unwrap());
    let evicted = index.evict(u64::MAX, &HashSet::new()).unwrap();
    assert_eq!(evicted.digests, [digest("other")]);
}

#[test]
fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.redb");
    let name = TagName {
        repository: Repository::new("a.test:5000", "x").unwrap(),
        tag: "1".into(),
    };
    let tag = Tag {
        digest: digest("i"),
        place: "https://a.test/x".into(),
        validated_at: 7,
        silent_since: Some(8),
        imported: true,
    };
    let link = Link {
        kind: Kind::Blob,
        place: "https://a.test/x".into(),
        open: true,
        imported: false,
    };
    {
        let index = Index::open(&path).unwrap();
        multi_arch(&index);
        index.set_tag(&name, &tag, true).unwrap();
        index.link(&name.repository, &digest("l1"), &link).unwrap();
        index.link(&name.repository, &digest("m1"), &link).unwrap();
    }
    let index = Index::open(&path).unwrap();
    assert_eq!(index.tag(&name).unwrap(), Some(tag.clone()));
    assert_eq!(index.all_tags().unwrap(), [(name.clone(), tag.clone())]);
    let of = index.tags_of(&name.repository).unwrap();
    assert_eq!(of, [("1".to_owned(), tag)]);
    let linked = index.linked(&name.repository, &digest("l1")).unwrap();
    assert_eq!(linked, Some(link));
    let elsewhere = index.linked(&repository("x"), &digest("l1")).unwrap();
    assert_eq!(elsewhere, None);
    assert_eq!(index.totals().unwrap(), (6, 600));
    let expected = |of: &Repository| index.expected_size(of, &digest("l1")).unwrap();
    assert_eq!(expected(&name.repository), Some(100));
    assert_eq!(expected(&repository("x")), None);
    index.unlink(&name.repository, None).unwrap();
    let linked = index.linked(&name.repository, &digest("l1")).unwrap();
    assert_eq!(linked, None);
}

#[test]
fn a_manifest_that_comes_as_a_blob_too_stays_a_manifest() {
    let index = Index::in_memory().unwrap();
    put(&index, "m", Some(&parsed(&[("l", Kind::Blob)], false)), 1);
    put(&index, "m", None, 2);
    let object = index.object(&digest("m")).unwrap().unwrap();
    assert_eq!(object.kind, Kind::Manifest);
    assert_eq!(object.children.len(), 1);
}

#[test]
fn a_damaged_file_is_set_aside_and_the_index_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.redb");
    std::fs::write(
        &path,
        b"this was a database once, and it is long enough to look like one",
    )
    .unwrap();
    let index = Index::open(&path).unwrap();
    assert_eq!(index.totals().unwrap(), (0, 0));
    put(&index, "x", None, 1);
    assert!(dir.path().join("index.redb.damaged").exists());
}

#[test]
fn what_a_place_takes_back_is_nobodys_and_what_others_gave_stays_everybodys() {
    let index = Index::in_memory().unwrap();
    let (repository, other) = (repository("x"), repository("x/y"));
    let link = |place: &str, open, imported| Link {
        kind: Kind::Blob,
        place: place.into(),
        open,
        imported,
    };
    let note = |repository: &Repository, name: &str, link: Link| {
        index.link(repository, &digest(name), &link).unwrap();
    };
    let is_everybodys = |repository: &Repository, name: &str| {
        let link = index.linked(repository, &digest(name)).unwrap();
        link.unwrap().is_everybodys()
    };
    note(&repository, "of a", link("a", true, false));
    note(&repository, "of b", link("b", true, false));
    note(&repository, "a caller's", link("a", false, false));
    note(&repository, "from a file", link("a", true, false));
    note(&repository, "from a file", link(IMPORTED, false, true));
    note(&other, "of a", link("a", true, false));
    // Whoever has a right of his own leaves everybody's as it is.
    note(&repository, "of b", link("a", false, false));
    assert!(index.is_open_at(&repository, "a").unwrap());
    index.close(&repository, "a").unwrap();
    assert!(!index.is_open_at(&repository, "a").unwrap());
    assert!(index.is_open_at(&repository, "b").unwrap());
    let left =
        ["of a", "of b", "a caller's", "from a file"].map(|of| is_everybodys(&repository, of));
    assert_eq!(left, [false, true, false, true]);
    assert!(is_everybodys(&other, "of a"));
    // Whichever place gives it to everybody again opens it again.
    note(&repository, "of a", link("c", true, false));
    assert!(is_everybodys(&repository, "of a"));
}

#[test]
fn what_was_linked_by_an_older_version_is_nobodys_until_a_place_is_asked_again() {
    let link: Link = serde_json::from_str(r#"{"kind":"blob","place":"https://a.test/x"}"#).unwrap();
    assert!(!link.is_everybodys());
    let imported = r#"{"kind":"blob","place":"an image layout","imported":true}"#;
    let imported: Link = serde_json::from_str(imported).unwrap();
    assert!(imported.is_everybodys());
}
