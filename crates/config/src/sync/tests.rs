use std::fs;

use super::*;
use crate::last_good::LastGood;

struct World {
    dir: tempfile::TempDir,
    merging: Merging,
}

fn writing() -> Writing {
    Writing {
        before_writing: |_, _, _| (),
        is_allowed: Arc::new(true.into()),
    }
}

impl World {
    fn new(local: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        fs::write(&path, local).unwrap();
        Self {
            merging: Merging::new(
                path.clone(),
                file::load(&path).unwrap(),
                None,
                Some(writing()),
            ),
            dir,
        }
    }

    fn file(&self) -> String {
        fs::read_to_string(&self.merging.path).unwrap()
    }

    fn write(&self, text: &str) {
        fs::write(&self.merging.path, text).unwrap();
    }

    fn step(&mut self, configmap: Option<&str>) -> Option<Loaded> {
        let last_sync = match configmap {
            Some(_) => LastSync::Present,
            None => LastSync::Absent,
        };
        let file = file::read(&self.merging.path).map_err(|error| error.to_string());
        self.step_with(Some(file), configmap, last_sync)
    }

    fn step_with(
        &mut self,
        file: Option<Result<String, String>>,
        configmap: Option<&str>,
        last_sync: LastSync,
    ) -> Option<Loaded> {
        let text = configmap.map(|text| Some(text.to_owned()));
        self.step_of(file, text, last_sync)
    }

    /// `configmap` may be one without the key.
    fn step_of(
        &mut self,
        file: Option<Result<String, String>>,
        configmap: Option<Option<String>>,
        last_sync: LastSync,
    ) -> Option<Loaded> {
        let snapshot = Snapshot {
            value: configmap.map(|text| ConfigMapText { text }),
            last_sync,
        };
        self.merging.step(file, &snapshot)
    }
}

#[test]
fn merged_written_and_in_force_once() {
    let mut world = World::new("# ours\ndebug: false\n");
    let loaded = world.step(Some("debug: true")).unwrap();
    assert!(loaded.settings.debug);
    assert_eq!(world.file(), "# ours\ndebug: true\n");
    assert!(world.step(Some("debug: true")).is_none());
    // Deleted: what was merged stays.
    assert!(world.step(None).is_none());
    assert_eq!(world.file(), "# ours\ndebug: true\n");
    // And the file is the operator's again.
    world.write("debug: false\n");
    assert!(!world.step(None).unwrap().settings.debug);
}

#[test]
fn a_local_edit_is_merged_again() {
    let mut world = World::new("");
    world.step(Some("timeout: 1m"));
    world.write("timeout: 2m\nforce: true\n");
    let loaded = world.step(Some("timeout: 1m")).unwrap();
    assert!(loaded.settings.force);
    assert_eq!(loaded.settings.timeout.as_secs(), 60);
    assert_eq!(world.file(), "timeout: 1m0s\nforce: true\n");
}

#[test]
fn a_broken_file_is_never_overwritten() {
    let mut world = World::new("debug: true\n");
    world.write("debug: [\n");
    // The ConfigMap is merged into the last good file, in memory.
    let loaded = world.step(Some("timeout: 1m")).unwrap();
    assert!(loaded.settings.debug && loaded.settings.timeout.as_secs() == 60);
    assert_eq!(world.file(), "debug: [\n");
    assert!(world.merging.problem().is_some());
    // Deleted meanwhile: what was merged is in no file, so it stays.
    assert!(world.step(None).is_none());
    assert!(world.step(Some("timeout: 1m")).is_none());
    // Mended: the same config, now in the file.
    world.write("debug: true\n");
    assert!(world.step(Some("timeout: 1m")).is_none());
    assert_eq!(world.file(), "debug: true\ntimeout: 1m0s\n");
    assert_eq!(world.merging.problem(), None);
}

#[test]
fn a_configmap_that_does_not_parse_changes_nothing() {
    let mut world = World::new("");
    world.step(Some("timeout: 1m"));
    assert!(world.step(Some("timeout: [")).is_none());
    assert_eq!(world.file(), "timeout: 1m0s\n");
}

#[test]
fn a_configmap_without_the_key_changes_nothing_and_is_a_problem_until_it_has_one() {
    let mut world = World::new("");
    world.step(Some("timeout: 1m"));
    let without_key = |world: &mut World| world.step_of(None, Some(None), LastSync::Present);
    assert!(without_key(&mut world).is_none());
    let problem = world.merging.problem().unwrap();
    assert!(problem.contains("has no key registries.yaml"), "{problem}");
    assert_eq!(world.file(), "timeout: 1m0s\n");
    // The same as before is news, too: it was gone.
    world.step(Some("timeout: 1m"));
    assert_eq!(world.merging.problem(), None);
    without_key(&mut world);
    assert!(world.step(None).is_none());
    assert_eq!(world.merging.problem(), None);
}

#[test]
fn a_file_that_can_not_be_written_is_merged_in_memory() {
    let mut world = World::new("debug: true\n");
    // A directory in the draft's place stops root too.
    let draft = world.dir.path().join(".config.yaml.new");
    fs::create_dir(&draft).unwrap();
    fs::write(draft.join("x"), "").unwrap();
    let loaded = world.step(Some("timeout: 1m")).unwrap();
    assert_eq!(loaded.settings.timeout.as_secs(), 60);
    assert_eq!(world.file(), "debug: true\n");
    assert!(world.step(Some("timeout: 1m")).is_none());
    // Deleted: the last merged state stays, and a local edit is merged with it.
    assert!(world.step(None).is_none());
    world.write("debug: false\n");
    let loaded = world.step(None).unwrap();
    assert!(!loaded.settings.debug);
    assert_eq!(loaded.settings.timeout.as_secs(), 60);
    // Writable again: written.
    fs::remove_dir_all(&draft).unwrap();
    assert!(world.step(Some("timeout: 1m")).is_none());
    assert_eq!(world.file(), "debug: false\ntimeout: 1m0s\n");
}

#[test]
fn a_bad_value_that_the_configmap_corrects_is_corrected_in_the_file() {
    let mut world = World::new("debug: true\n");
    world.write("debug: true\ntimeout: soon\n");
    assert!(world.step(None).is_none());
    assert!(world.merging.problem().unwrap().contains("timeout"));
    let loaded = world.step(Some("timeout: 20m")).unwrap();
    assert!(loaded.settings.debug && loaded.settings.timeout.as_secs() == 1200);
    assert_eq!(world.file(), "debug: true\ntimeout: 20m0s\n");
    assert_eq!(world.merging.problem(), None);
    // Another field's mistake is nobody's to correct, but the ConfigMap is still heard.
    world.write("debug: true\nprobeTimeout: never\ntimeout: soon\n");
    assert!(world.step(Some("timeout: 20m")).is_none());
    let loaded = world.step(Some("timeout: 30m")).unwrap();
    assert_eq!(loaded.settings.timeout.as_secs(), 1800);
    assert_eq!(
        world.file(),
        "debug: true\nprobeTimeout: never\ntimeout: soon\n"
    );
}

#[test]
fn an_emptied_file_keeps_the_last_good_config_and_hears_the_configmap() {
    let mut world = World::new("address: http://a.io\nfallbackToOrigin: false\n");
    for text in ["", "fallbackToOrigin: false\n"] {
        world.write(text);
        assert!(world.step(None).is_none(), "{text:?}");
        assert!(world.merging.problem().unwrap().contains("registries: []"));
    }
    let loaded = world.step(Some("timeout: 1m")).unwrap();
    assert!(!loaded.settings.rules.fallback_to_origin);
    assert_eq!(loaded.settings.rules.registries.len(), 1);
    assert_eq!(world.file(), "fallbackToOrigin: false\n");
    world.write("registries: []\naddress: ''\n");
    assert!(world.step(None).unwrap().settings.rules.is_empty());
    assert_eq!(world.merging.problem(), None);
}

#[test]
fn what_is_not_read_now_is_not_forgotten() {
    let mut world = World::new("debug: true\n");
    world.write("half");
    let loaded = world.step_with(None, Some("timeout: 1m"), LastSync::Present);
    assert!(loaded.unwrap().settings.debug);
    // Somebody is writing: nothing of theirs is lost.
    assert_eq!(world.file(), "half");
}

#[test]
fn begun_with_the_last_good_config_and_the_file_mended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    let broken = format!(
        "image: {}\naddress: http://b.io\ntimeout: soon\n",
        dir.path().display()
    );
    fs::write(&path, &broken).unwrap();
    let kept = LastGood {
        text: "address: http://a.io\n".to_owned(),
        relies_on_config_map: false,
    };
    file::put(&dir.path().join("last-good.yaml"), &kept.stored(&path)).unwrap();
    let start = crate::start::load(&path, true).unwrap();
    let mut world = World {
        merging: Merging::new(path, start.loaded, start.broken_file, Some(writing())),
        dir,
    };
    assert!(world.step(None).is_none());
    assert!(world.merging.problem().unwrap().contains("timeout"));
    // The ConfigMap is merged into the last good config, and the broken file is left as it is.
    let loaded = world.step(Some("debug: true")).unwrap();
    assert!(loaded.settings.debug);
    assert_eq!(loaded.settings.configured[0].address, "http://a.io");
    assert_eq!(world.file(), broken);
    world.write("address: http://b.io\n");
    let loaded = world.step(Some("debug: true")).unwrap();
    assert_eq!(loaded.settings.configured[0].address, "http://b.io");
    assert_eq!(world.file(), "address: http://b.io\ndebug: true\n");
    assert_eq!(world.merging.problem(), None);
}

#[test]
fn rules_that_only_the_config_map_has_are_noted() {
    let mut world = World::new("debug: false\n");
    // In a file that can be written they stand in the file.
    world.step(Some("registries: [{address: a.io}]")).unwrap();
    assert!(world.file().contains("a.io"));
    assert!(!world.merging.relies_on_config_map());
    // Broken, so it is left as it is; what is in force was in the file.
    world.write("timeout: soon\n");
    world.step(Some("registries: [{address: b.io}]")).unwrap();
    assert!(!world.merging.relies_on_config_map());

    let mut world = World::new("debug: false\n");
    world.write("timeout: soon\n");
    world.step(Some("registries: [{address: a.io}]")).unwrap();
    assert!(world.merging.relies_on_config_map());
    world.write("debug: false\n");
    assert!(world.step(Some("registries: [{address: a.io}]")).is_none());
    assert!(world.file().contains("a.io"));
    assert!(!world.merging.relies_on_config_map());
}

#[test]
fn who_does_not_write_merges_in_memory_and_follows_who_does() {
    let local = "# ours\ndebug: false\n";
    let mut world = World::new(local);
    world.merging.writes = None;
    let map = "nodeCache: {maxSize: 1Gi}\nregistries: [{address: a.io}]";
    let loaded = world.step(Some(map)).unwrap();
    assert_eq!(loaded.settings.configured[0].address, "a.io");
    assert_eq!(world.file(), local);
    assert_eq!(world.merging.problem(), None);
    // The shim writes the same into it: nothing new.
    world.write(&loaded.text);
    assert!(world.step(Some(map)).is_none());
    // Its ConfigMap is gone: what was merged stays, in the file or in memory.
    assert!(world.step(None).is_none());
    let mut world = World::new(local);
    world.merging.writes = None;
    world.step(Some(map)).unwrap();
    assert!(world.step(None).is_none());
    // The file is edited: it is merged into what it says now.
    world.write("debug: true\n");
    let loaded = world.step(Some(map)).unwrap();
    assert!(loaded.settings.debug);
    assert_eq!(loaded.settings.configured[0].address, "a.io");
    assert_eq!(world.file(), "debug: true\n");
}

#[test]
fn a_config_map_whose_entries_are_all_bad_takes_no_routing_away() {
    // Where the file can be written, it has the rules of before.
    let mut world = World::new("debug: false\n");
    world.step(Some("registries: [{address: a.io}]")).unwrap();
    let before = world.file();
    for bad in [
        "registries: [{address: 'h ttp://b.io'}]",
        "registries: [{priority: 3}]",
        "registries: [{}]",
        "imageRedirMapping: [{src: ' ', to: b.io}]",
        "debug: false",
    ] {
        assert!(world.step(Some(bad)).is_none(), "{bad}");
        assert_eq!(world.file(), before, "{bad}");
    }
    // Where it can't, what is in force stays, and it is a problem that people see.
    let mut world = World::new("debug: false\n");
    world.merging.writes = None;
    world.step(Some("registries: [{address: a.io}]")).unwrap();
    for bad in [
        "registries: [{address: 'h ttp://b.io'}]",
        "registries: [{address: 'h ttp://b.io'}, {address: '::'}]\nimageRedirMapping: [{to: b.io}]",
    ] {
        assert!(world.step(Some(bad)).is_none(), "{bad}");
        let problem = world.merging.problem().unwrap();
        assert!(problem.contains("registries: []"), "{problem}");
    }
    // A good entry beside a bad one is used, and an empty list is meant.
    let mended = "registries: [{address: 'h ttp://b.io'}, {address: c.io}]";
    let loaded = world.step(Some(mended)).unwrap();
    assert_eq!(loaded.settings.configured.len(), 1);
    assert_eq!(world.merging.problem(), None);
    let loaded = world.step(Some("registries: []")).unwrap();
    assert!(loaded.settings.rules.is_empty());
}

/// Whoever keeps account of the file is told before anything is written, and only then.
#[test]
fn what_is_written_is_told_before() {
    thread_local! {
        static TOLD: std::cell::RefCell<Vec<(String, String, String)>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    let mut world = World::new("timeout: 5m\n");
    world.merging.writes = Some(Writing {
        before_writing: |path, old, new| {
            let there = fs::read_to_string(path).unwrap();
            TOLD.with_borrow_mut(|told| told.push((there, old.to_owned(), new.to_owned())));
        },
        ..writing()
    });
    world.step(None);
    assert!(TOLD.with_borrow(Vec::is_empty));
    let before = world.file();
    world.step(Some("timeout: 7m\n"));
    let after = world.file();
    assert_ne!(before, after);
    world.step(Some("timeout: 7m\n"));
    TOLD.with_borrow(|told| assert_eq!(*told, [(before.clone(), before, after)]));
    TOLD.take();
    // Somebody else writes all the while: it is tried again, and told once.
    world.write("debug: true\n");
    world.step_with(None, Some("timeout: 8m\n"), LastSync::Present);
    world.step_with(None, Some("timeout: 8m\n"), LastSync::Present);
    assert_eq!(TOLD.take().len(), 1);
}

/// A shim that takes over from another goes by the ConfigMap before it is the one that writes.
#[test]
fn what_may_not_be_written_yet_is_in_force_and_written_later() {
    let mut world = World::new("timeout: 5m\n");
    let is_allowed = Arc::new(AtomicBool::new(false));
    world.merging.writes = Some(Writing {
        is_allowed: Arc::clone(&is_allowed),
        ..writing()
    });
    let before = world.file();
    let loaded = world.step(Some("timeout: 7m\n")).unwrap();
    assert_eq!(loaded.settings.timeout.as_secs(), 7 * 60);
    assert_eq!(world.file(), before);
    is_allowed.store(true, Ordering::Release);
    assert!(world.step(Some("timeout: 7m\n")).is_none());
    assert_eq!(world.file(), loaded.text);
}
