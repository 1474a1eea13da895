//! Power loss at every moment: what was not synced is gone.
//!
//! After each step of the disk's the directory is copied as it would be found after the power has failed
//! there: a file has what it had when it was last synced, and a rename is undone unless its directory was
//! synced after it (or not: file systems differ, and both are tried). The index is taken as it is: the
//! database syncs its commits itself, and nothing is written to it meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use testkit::tree;

use super::*;
use crate::manifest::parse;
use crate::store::disk::Step;

/// What is sure to be on the disk.
#[derive(Clone, Default)]
struct Durable {
    content: HashMap<PathBuf, Vec<u8>>,
    /// Renames whose directory has not been synced since, by their target.
    renamed: BTreeMap<PathBuf, PathBuf>,
}

/// The directory after the power has failed.
struct Found {
    after: String,
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// What had been acknowledged by then, and was not being deleted.
    acknowledged: Vec<Digest>,
}

struct Watch {
    dir: PathBuf,
    durable: Mutex<Durable>,
    acknowledged: Mutex<Vec<Digest>>,
    found: Mutex<Vec<Found>>,
}

impl Watch {
    fn step(&self, step: &Step) {
        {
            let mut durable = self.durable.lock();
            match step {
                Step::Synced(path) => {
                    let content = std::fs::read(path).unwrap();
                    durable.content.insert(path.clone(), content);
                }
                Step::Renamed(from, to) => {
                    if let Some(content) = durable.content.remove(from) {
                        durable.content.insert(to.clone(), content);
                    }
                    durable.renamed.insert(to.clone(), from.clone());
                }
                Step::DirectorySynced(dir) => {
                    durable.renamed.retain(|to, _| to.parent() != Some(dir));
                }
            }
        }
        self.fail(&format!("{step:?}"));
    }

    /// The power fails now.
    fn fail(&self, after: &str) {
        let durable = self.durable.lock().clone();
        for undone in [false, true] {
            let mut files = BTreeMap::new();
            for path in tree::files(&self.dir).unwrap() {
                let is_index = path.extension().is_some_and(|e| e == "redb");
                let content = match is_index {
                    true => std::fs::read(&path).unwrap(),
                    false => durable.content.get(&path).cloned().unwrap_or_default(),
                };
                let name = match durable.renamed.get(&path) {
                    Some(from) if undone => from.clone(),
                    _ => path,
                };
                files.insert(name.strip_prefix(&self.dir).unwrap().to_owned(), content);
            }
            self.found.lock().push(Found {
                after: format!("{after}, renames undone: {undone}"),
                files,
                acknowledged: self.acknowledged.lock().clone(),
            });
        }
    }
}

/// A blob that arrives in two parts, of which the first is saved on the way.
fn arrive(storage: &Storage, content: &[u8]) -> Digest {
    let digest = Digest::of(content);
    let size = content.len() as u64;
    assert!(storage.reserve(&digest, size));
    let disk = storage.disk();
    let file = disk.open_partial(&digest).unwrap();
    let (first, second) = content.split_at(content.len() / 2);
    let half = first.len() as u64;
    disk.write_partial(&file, first, 0).unwrap();
    disk.save_partial(&digest, &file, &[(0, half)]).unwrap();
    disk.write_partial(&file, second, half).unwrap();
    storage.commit(&digest, &file, size).unwrap();
    storage.release(&digest);
    digest
}

#[test]
fn at_every_step_the_store_is_clean_and_has_all_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path()).unwrap();
    let watch = Arc::new(Watch {
        dir: dir.path().to_owned(),
        durable: Mutex::default(),
        acknowledged: Mutex::default(),
        found: Mutex::default(),
    });
    // What the directory begins with is on the disk.
    for path in tree::files(dir.path()).unwrap() {
        let content = std::fs::read(&path).unwrap();
        watch.durable.lock().content.insert(path, content);
    }
    let watching = Arc::clone(&watch);
    storage.disk().observe(move |step| watching.step(step));
    let acknowledged = |digest: &Digest| {
        watch.acknowledged.lock().push(digest.clone());
        watch.fail(&format!("{} was acknowledged", digest.short()));
    };
    let gone = |digest: &Digest| watch.acknowledged.lock().retain(|known| known != digest);

    let layer = arrive(&storage, &[1; 5000]);
    acknowledged(&layer);
    let manifest = format!(r#"{{"layers":[{{"digest":"{layer}","size":5000}}]}}"#);
    let parsed = parse(manifest.as_bytes(), None).unwrap();
    let repository = Repository::new("a.test", "x").unwrap();
    let image = Digest::of(manifest.as_bytes());
    storage
        .store_manifest(&image, manifest.as_bytes(), &parsed, &repository, &link())
        .unwrap();
    acknowledged(&image);
    let other = arrive(&storage, &[2; 3000]);
    acknowledged(&other);
    // Room is made for another one: the image goes, since it was used first.
    storage.index().used([(&image, 5), (&other, 6)]).unwrap();
    storage.set_limits(SizeLimits {
        max_size: 9000,
        min_free: 0,
    });
    gone(&layer);
    gone(&image);
    let last = arrive(&storage, &[3; 4000]);
    acknowledged(&last);
    assert!(!is_there(&storage, &layer));
    gone(&other);
    storage.remove_image(&other).unwrap();
    watch.fail("an image was removed");
    drop(storage);

    let found = std::mem::take(&mut *watch.found.lock());
    assert!(found.len() > 30, "{}", found.len());
    for Found {
        after,
        files,
        acknowledged,
    } in found
    {
        let again = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = again.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let storage = Storage::open(again.path()).unwrap();
        storage.tidy().unwrap();
        let verified = storage.verify().unwrap();
        assert!(verified.is_clean(), "after {after}: {verified:?}");
        for digest in acknowledged {
            let is_known = storage.index().object(&digest).unwrap().is_some();
            assert!(
                is_known && is_there(&storage, &digest),
                "after {after}: {digest}"
            );
        }
    }
}
