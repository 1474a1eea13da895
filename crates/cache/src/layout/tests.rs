use serde_json::json;

use super::*;
use crate::manifest::{OCI_INDEX, OCI_MANIFEST};
use crate::name::Repository;
use crate::storage::SizeLimits;
use crate::store::disk::Step;
use crate::{index::TagName, storage::Storage};

/// A layout in the making.
#[derive(Default)]
struct Files(Vec<(String, Vec<u8>)>);

impl Files {
    fn blob(&mut self, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        self.0
            .push((format!("blobs/sha256/{}", digest.hex()), content.to_vec()));
        digest
    }

    fn manifest(&mut self, layers: &[&[u8]]) -> (Digest, usize) {
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| json!({"digest": self.blob(layer), "size": layer.len()}))
            .collect();
        let config = self.blob(b"{}");
        let text = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"digest": config, "size": 2},
            "layers": layers,
        })
        .to_string();
        (self.blob(text.as_bytes()), text.len())
    }

    fn list(&mut self, children: &[(&Digest, usize, &str)]) -> (Digest, usize) {
        let children = children.iter().map(|(digest, size, platform)| {
            let (os, architecture) = platform.split_once('/').unwrap();
            json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": size,
                "platform": {"os": os, "architecture": architecture}})
        });
        let text = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children.collect::<Vec<_>>()})
            .to_string();
        (self.blob(text.as_bytes()), text.len())
    }

    fn named(mut self, name: &str, (digest, size): (&Digest, usize)) -> Self {
        let index = json!({"schemaVersion": 2, "manifests": [
            {"digest": digest, "size": size, "annotations": {IMAGE_NAME: name}}]});
        self.0.push((
            "oci-layout".into(),
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        ));
        self.0
            .push(("index.json".into(), index.to_string().into_bytes()));
        self
    }

    fn tar(&self) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in &self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            archive
                .append_data(&mut header, name, content.as_slice())
                .unwrap();
        }
        archive.into_inner().unwrap()
    }
}

/// A layout of one image for two platforms.
fn two_platforms() -> (Files, Digest) {
    let mut files = Files::default();
    let (amd, amd_size) = files.manifest(&[b"amd64's layer", b"layer of both"]);
    let (arm, arm_size) = files.manifest(&[b"arm64's layer", b"layer of both"]);
    let (list, size) = files.list(&[
        (&amd, amd_size, "linux/amd64"),
        (&arm, arm_size, "linux/arm64"),
    ]);
    (files.named("quay.io/team/app:1", (&list, size)), list)
}

fn open() -> (tempfile::TempDir, Storage) {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path()).unwrap();
    (dir, storage)
}

fn take(storage: &Storage, tar: &[u8]) -> Result<Vec<Imported>, LayoutError> {
    import(storage, tar, None, &mut |_, _| true)
}

fn tag(storage: &Storage, name: &str) -> Option<crate::index::Tag> {
    let (repository, tag) = name.rsplit_once(':').unwrap();
    let (host, path) = repository.split_once('/').unwrap();
    let repository = Repository::new(host, path).unwrap();
    let name = TagName {
        repository,
        tag: tag.to_owned(),
    };
    storage.index().tag(&name).unwrap()
}

fn wanted(name: &str, digest: &Digest) -> Vec<Wanted> {
    vec![Wanted {
        name: Some(name.to_owned()),
        digest: digest.clone(),
    }]
}

fn is_empty(storage: &Storage) -> bool {
    let index = storage.index();
    index.all_tags().unwrap().is_empty() && index.all_links().unwrap().is_empty()
}

#[test]
fn what_one_store_exports_another_imports() {
    let (_dir, first) = open();
    let (files, list) = two_platforms();
    let imported = take(&first, &files.tar()).unwrap();
    assert_eq!(imported[0].name, "quay.io/team/app:1");
    assert_eq!(imported[0].platforms, ["linux/amd64", "linux/arm64"]);
    let known = tag(&first, "quay.io/team/app:1").unwrap();
    assert!(known.imported && known.digest == list);
    let links = first.index().all_links().unwrap();
    // The list, two manifests, one config, three layers.
    assert_eq!(links.len(), 7);
    assert!(links.iter().all(|(_, _, link)| link.imported));

    let mut tar = Vec::new();
    let name = "quay.io/team/app:1";
    let exported = export(&first, &wanted(name, &list), &mut tar, &mut |_, _| true).unwrap();
    assert_eq!(exported[0].bytes, imported[0].bytes);
    assert_eq!(exported[0].platforms, imported[0].platforms);
    let mut again = Vec::new();
    export(&first, &wanted(name, &list), &mut again, &mut |_, _| true).unwrap();
    assert!(tar == again, "the same images make the same archive");
    let (_dir, second) = open();
    assert_eq!(take(&second, &tar).unwrap(), imported);
    assert_eq!(second.stored_bytes(), first.stored_bytes());
    assert!(second.verify().unwrap().is_clean());
}

#[test]
fn of_an_index_what_is_whole_is_exported() {
    let (_dir, storage) = open();
    let (files, list) = two_platforms();
    take(&storage, &files.tar()).unwrap();
    storage.forget(&Digest::of(b"arm64's layer")).unwrap();
    let mut tar = Vec::new();
    let name = "quay.io/team/app:1";
    let exported = export(&storage, &wanted(name, &list), &mut tar, &mut |_, _| true).unwrap();
    assert_eq!(exported[0].platforms, ["linux/amd64"]);
    let (_dir, second) = open();
    assert_eq!(take(&second, &tar).unwrap()[0].platforms, ["linux/amd64"]);

    storage.forget(&Digest::of(b"layer of both")).unwrap();
    let error = export(&storage, &wanted(name, &list), Vec::new(), &mut |_, _| true).unwrap_err();
    assert!(matches!(error, LayoutError::Missing { .. }), "{error}");
}

#[test]
fn damage_in_the_store_is_not_carried_away() {
    let (dir, storage) = open();
    let (files, list) = two_platforms();
    take(&storage, &files.tar()).unwrap();
    let layer = Digest::of(b"layer of both");
    let path = dir.path().join("blobs/sha256").join(layer.hex());
    std::fs::write(path, b"layer of none").unwrap();
    let wanted = wanted("quay.io/team/app:1", &list);
    let error = export(&storage, &wanted, Vec::new(), &mut |_, _| true).unwrap_err();
    assert!(matches!(error, LayoutError::DamagedHere(digest) if digest == layer));
}

#[test]
fn entries_may_stand_in_any_order() {
    let (mut files, list) = two_platforms();
    files.0.reverse();
    files
        .0
        .insert(0, ("./manifest.json".into(), b"[]".to_vec()));
    for (name, _) in &mut files.0 {
        *name = format!("./{}", name.trim_start_matches("./"));
    }
    let (_dir, storage) = open();
    take(&storage, &files.tar()).unwrap();
    assert_eq!(tag(&storage, "quay.io/team/app:1").unwrap().digest, list);
}

#[test]
fn what_is_wrong_leaves_no_name() {
    let (files, _) = two_platforms();
    let changed = |change: &dyn Fn(&mut Files)| {
        let mut files = Files(files.0.clone());
        change(&mut files);
        files.tar()
    };
    let layer = format!("blobs/sha256/{}", Digest::of(b"layer of both").hex());
    let manifest = files.0[3].0.clone();
    let tar = files.tar();
    for (what, tar) in [
        ("no archive", b"no archive".repeat(100)),
        ("compressed", [&[0x1f, 0x8b, 8, 0][..], &[0; 600]].concat()),
        ("cut in a blob", tar[..700].to_vec()),
        ("cut before the list", tar[..tar.len() / 2].to_vec()),
        (
            "a damaged layer",
            changed(&|files| {
                let at = files.0.iter().position(|(name, _)| *name == layer);
                files.0[at.unwrap()].1 = b"layer of none".to_vec();
            }),
        ),
        (
            "a layer is missing",
            changed(&|files| files.0.retain(|(name, _)| *name != layer)),
        ),
        (
            "no platform",
            changed(&|files| {
                let list = files.0[files.0.len() - 3].clone();
                let ends = files.0.split_off(files.0.len() - 2);
                files.0 = [vec![list], ends].concat();
            }),
        ),
        (
            "another layout version",
            changed(&|files| {
                let at = files.0.iter().position(|(name, _)| name == "oci-layout");
                files.0[at.unwrap()].1 = br#"{"imageLayoutVersion":"2.0.0"}"#.to_vec();
            }),
        ),
        (
            "no index.json",
            changed(&|files| files.0.retain(|(name, _)| name != "index.json")),
        ),
        (
            "no JSON",
            changed(&|files| {
                files.0.iter_mut().for_each(|(name, content)| {
                    if name == "index.json" {
                        *content = b"{".to_vec();
                    }
                })
            }),
        ),
    ] {
        let (_dir, storage) = open();
        let error = take(&storage, &tar).unwrap_err();
        assert!(is_empty(&storage), "{what}: {error}");
        assert!(storage.verify().unwrap().is_clean(), "{what}: {error}");
    }
    // One platform of two is fine.
    let one = changed(&|files| files.0.retain(|(name, _)| *name != manifest));
    let (_dir, storage) = open();
    assert_eq!(take(&storage, &one).unwrap()[0].platforms.len(), 1);
}

#[test]
fn what_is_no_archive_is_told_in_our_own_words() {
    let (files, _) = two_platforms();
    let tar = files.tar();
    let secret = b"auth: admin:hunter2\n".repeat(60);
    let (layer, rest) = (700, tar.len() / 2 / 512 * 512);
    for (tar, told) in [
        (secret.clone(), "it is no tar archive"),
        (secret[..20].to_vec(), "it is no tar archive"),
        (Vec::new(), "it is empty"),
        (tar[..300].to_vec(), "it is no tar archive"),
        (
            tar[..layer].to_vec(),
            "cut off after 700 bytes; copy it again",
        ),
        (tar[..rest].to_vec(), "cut off after"),
        (
            [&tar[..rest], &secret].concat(),
            "is no entry of a tar archive",
        ),
    ] {
        let (_dir, storage) = open();
        let error = take(&storage, &tar).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
        assert!(
            !error.contains("hunter2") && !error.contains("admin"),
            "{error}"
        );
    }
    // A tar without a mark of its end, as some programs write, is one.
    let content: usize = files
        .0
        .iter()
        .map(|(_, c)| 512 + c.len().div_ceil(512) * 512)
        .sum();
    let (_dir, storage) = open();
    take(&storage, &tar[..content]).unwrap();

    let mut files = files;
    files.0.retain(|(name, _)| name != INDEX);
    files.0.push((INDEX.into(), br#""admin:hunter2""#.to_vec()));
    let (_dir, storage) = open();
    let error = take(&storage, &files.tar()).unwrap_err().to_string();
    assert!(
        error.contains("index.json") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn a_digest_alone_brings_nothing() {
    // The layer is here, because somebody with a right to it has pulled it.
    let (_dir, storage) = open();
    let layer = b"layer of both";
    let taken = storage.take_in(&Digest::of(layer), 13, &mut layer.as_slice());
    assert_eq!(taken.unwrap(), crate::storage::TakenIn::Stored);
    let (mut files, _) = two_platforms();
    let name = format!("blobs/sha256/{}", Digest::of(layer).hex());
    files.0.retain(|(known, _)| *known != name);
    assert!(take(&storage, &files.tar()).is_err());
    // Wrong bytes under its name don't bring it either.
    files.0.insert(0, (name, b"layer of none".to_vec()));
    let error = take(&storage, &files.tar()).unwrap_err();
    assert!(matches!(error, LayoutError::Damaged(_)), "{error}");
    assert!(is_empty(&storage));
}

#[test]
fn what_does_not_fit_is_refused_and_what_fits_is_not_evicted_meanwhile() {
    let (files, _) = two_platforms();
    let (_dir, storage) = open();
    let old = storage.take_in(&Digest::of(b"old"), 3, &mut b"old".as_slice());
    assert_eq!(old.unwrap(), crate::storage::TakenIn::Stored);
    let total: usize = {
        let mut sizes = std::collections::BTreeMap::new();
        let blobs = files.0.iter().filter(|(name, _)| name.starts_with("blobs"));
        blobs.for_each(|(name, content)| {
            sizes.insert(name, content.len());
        });
        sizes.values().sum()
    };
    let limit = |max_size| SizeLimits {
        max_size,
        min_free: 0,
    };
    storage.set_limits(limit(total as u64 - 1));
    let error = take(&storage, &files.tar()).unwrap_err();
    assert!(matches!(error, LayoutError::NoRoom(_, _)), "{error}");
    assert!(is_empty(&storage));
    // The next try goes on with what is there; what nobody needs goes.
    storage.set_limits(limit(total as u64));
    take(&storage, &files.tar()).unwrap();
    assert_eq!(storage.stored_bytes(), total as u64);
    assert!(
        storage
            .index()
            .object(&Digest::of(b"old"))
            .unwrap()
            .is_none()
    );
}

#[test]
fn who_has_gone_is_not_waited_for() {
    let (_dir, storage) = open();
    let (files, list) = two_platforms();
    let broken = import(&storage, files.tar().as_slice(), None, &mut |_, _| false);
    assert!(matches!(broken, Err(LayoutError::BrokenOff)), "{broken:?}");
    assert!(is_empty(&storage));
    take(&storage, &files.tar()).unwrap();
    let wanted = wanted("quay.io/team/app:1", &list);
    let broken = export(&storage, &wanted, Vec::new(), &mut |_, _| false);
    assert!(matches!(broken, Err(LayoutError::BrokenOff)), "{broken:?}");
}

#[test]
fn a_crash_at_any_step_leaves_no_half_image() {
    let (files, list) = two_platforms();
    let dir = tempfile::tempdir().unwrap();
    let found = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
    {
        let storage = Storage::open(dir.path()).unwrap();
        let (all, from) = (found.clone(), dir.path().to_owned());
        storage.disk().observe(move |step: &Step| {
            let copy = tempfile::tempdir().unwrap();
            copy_all(&from, copy.path());
            all.lock().push((format!("{step:?}"), copy));
        });
        take(&storage, &files.tar()).unwrap();
    }
    let found = std::mem::take(&mut *found.lock());
    assert!(found.len() > 20, "{}", found.len());
    for (step, dir) in found {
        let storage = Storage::open(dir.path()).unwrap();
        storage.tidy().unwrap();
        assert!(storage.verify().unwrap().is_clean(), "{step}");
        assert!(is_empty(&storage), "{step}");
        take(&storage, &files.tar()).unwrap();
        assert_eq!(tag(&storage, "quay.io/team/app:1").unwrap().digest, list);
    }
}

fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_all(&entry.path(), &target),
            false => {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }
}

#[test]
fn a_directory_is_the_tar_that_it_would_be() {
    let (files, list) = two_platforms();
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in &files.0 {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let mut tar = Vec::new();
    pack(dir.path(), &mut tar).unwrap();
    let (_dir, storage) = open();
    take(&storage, &tar).unwrap();
    assert_eq!(tag(&storage, "quay.io/team/app:1").unwrap().digest, list);
    let error = pack(&dir.path().join("blobs"), Vec::new()).unwrap_err();
    assert!(error.to_string().contains("oci-layout"), "{error}");
}
