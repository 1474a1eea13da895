//! The map and its file, and everything that can be wrong with a file.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::*;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn open(dir: &Path) -> Aliases {
    Aliases::open(dir).0
}

const NAME: &str = "docker.io/library/nginx:1";
const IMAGE: &str = "sealos.hub:5000/library/nginx:1";

#[test]
fn aliases_survive_a_restart() {
    let dir = dir();
    let aliases = open(dir.path());
    assert!(aliases.set(NAME, IMAGE));
    assert!(!aliases.set(NAME, IMAGE), "no news, nothing to write");
    assert!(aliases.set("a.io/b:1", "c.io/b:1"));
    assert!(aliases.remove("a.io/b:1"));
    aliases.save().unwrap();
    let (aliases, opened) = Aliases::open(dir.path());
    assert!(matches!(opened, Opened::Read(1)), "{opened:?}");
    assert_eq!(aliases.get(NAME).as_deref(), Some(IMAGE));
    assert_eq!(aliases.get("a.io/b:1"), None);
}

#[test]
fn names_are_found_by_what_the_runtime_keeps() {
    let dir = dir();
    let digest = format!("sha256:{}", "a".repeat(64));
    let aliases = open(dir.path());
    aliases.set(NAME, IMAGE);
    aliases.set("quay.io/nginx:1", IMAGE);
    let pinned = format!("{NAME}@{digest}");
    aliases.set(&pinned, &format!("{IMAGE}@{digest}"));
    aliases.save().unwrap();
    let stored = format!("sealos.hub:5000/library/nginx@{digest}");
    for aliases in [&aliases, &open(dir.path())] {
        assert_eq!(aliases.names_of(IMAGE), [NAME, "quay.io/nginx:1"]);
        assert_eq!(aliases.names_of(&stored), [pinned.as_str()]);
    }
    // Pulled from elsewhere, and forgotten.
    aliases.set(NAME, "other.io/library/nginx:1");
    aliases.remove("quay.io/nginx:1");
    assert!(aliases.names_of(IMAGE).is_empty());
    assert_eq!(aliases.names_of("other.io/library/nginx:1"), [NAME]);
}

#[test]
fn a_file_cut_anywhere_loses_its_last_line_at_most() {
    let whole = {
        let dir = dir();
        let aliases = open(dir.path());
        for n in 0..5 {
            aliases.set(&format!("a.io/x:{n}"), &format!("b.io/x:{n}"));
        }
        aliases.save().unwrap();
        fs::read(dir.path().join("aliases")).unwrap()
    };
    let mut read = Vec::new();
    for cut in 0..=whole.len() {
        let dir = dir();
        fs::write(dir.path().join("aliases"), &whole[..cut]).unwrap();
        let aliases = open(dir.path());
        let known = (0..5)
            .filter(|n| aliases.get(&format!("a.io/x:{n}")).is_some())
            .count();
        let lines = whole[..cut].iter().filter(|b| **b == b'\n').count();
        assert!(known >= lines.saturating_sub(1), "cut at {cut}");
        read.push(known);
        // What is written next must not join a torn line.
        aliases.set("z.io/z:1", "y.io/z:1");
        aliases.save().unwrap();
        assert!(open(dir.path()).get("z.io/z:1").is_some(), "cut at {cut}");
    }
    assert_eq!(read.last(), Some(&5));
}

#[test]
fn garbage_costs_a_warning() {
    let dir = dir();
    let aliases = open(dir.path());
    aliases.set(NAME, IMAGE);
    aliases.save().unwrap();
    let path = dir.path().join("aliases");
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"\xff\xfe\0garbage\nname\timage\t0000000000000000\n\t\t\n");
    fs::write(&path, bytes).unwrap();
    let (aliases, opened) = Aliases::open(dir.path());
    assert!(
        matches!(opened, Opened::Damaged { read: 1, lost: 3 }),
        "{opened:?}"
    );
    assert_eq!(aliases.get(NAME).as_deref(), Some(IMAGE));
    let (_, opened) = Aliases::open(dir.path());
    assert!(
        matches!(opened, Opened::Read(1)),
        "cleaned by the first: {opened:?}"
    );
}

#[test]
fn a_place_that_cant_be_written_costs_a_warning() {
    let dir = dir();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let (aliases, opened) = Aliases::open(&file.join("below"));
    assert!(matches!(opened, Opened::Unusable { .. }), "{opened:?}");
    assert!(aliases.set(NAME, IMAGE));
    aliases.save().unwrap();
    assert_eq!(aliases.get(NAME).as_deref(), Some(IMAGE));
}

#[test]
fn the_file_is_bounded_and_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = dir();
    let aliases = open(dir.path());
    for round in 0..50 {
        for n in 0..100 {
            aliases.set(&format!("a.io/x:{n}"), &format!("b.io/x:{round}"));
        }
        aliases.save().unwrap();
    }
    let path = dir.path().join("aliases");
    let lines = fs::read_to_string(&path).unwrap().lines().count();
    assert!(lines <= 1 + 2 * 100 + 1000 + 100, "{lines}");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        open(dir.path()).get("a.io/x:7").as_deref(),
        Some("b.io/x:49")
    );
}

#[test]
fn the_file_does_not_grow_from_start_to_start() {
    let dir = dir();
    let path = dir.path().join("aliases");
    let lines = || fs::read_to_string(&path).unwrap().lines().count();
    for start in 0..20 {
        let aliases = open(dir.path());
        // A header, and one line for each alias that there is.
        assert_eq!(
            lines(),
            if start == 0 { 1 } else { 1 + 10 },
            "start {start}"
        );
        for n in 0..10 {
            aliases.set(&format!("a.io/x:{n}"), &format!("b.io/x:{start}"));
        }
        aliases.set("gone.io/x:1", "b.io/x:1");
        aliases.save().unwrap();
        aliases.remove("gone.io/x:1");
        aliases.save().unwrap();
    }
    assert_eq!(
        open(dir.path()).get("a.io/x:7").as_deref(),
        Some("b.io/x:19")
    );
    // Nothing to do: nothing is written.
    let before = fs::metadata(&path).unwrap().ino();
    open(dir.path());
    assert_eq!(fs::metadata(&path).unwrap().ino(), before);
}

#[test]
fn a_hundred_thousand_and_no_more() {
    let dir = dir();
    let aliases = open(dir.path());
    for n in 0..MAX_ALIASES {
        aliases.set(&format!("a.io/x:{n}"), "b.io/x:1");
    }
    aliases.save().unwrap();
    let aliases = open(dir.path());
    assert!(aliases.get("a.io/x:0").is_some());
    aliases.set("one.io/more:1", "b.io/x:1");
    assert!(aliases.get("a.io/x:0").is_none(), "the oldest went");
    assert!(aliases.get("one.io/more:1").is_some());
    assert!(aliases.get("a.io/x:99999").is_some());
}

#[test]
fn a_successor_has_the_file_and_hears_what_is_learnt_late() {
    let dir = dir();
    let old = open(dir.path());
    old.set(NAME, IMAGE);
    let mut late = old.give_up();
    let new = Aliases::default();
    assert!(matches!(new.open_later(dir.path()), Opened::Read(1)));
    assert!(old.set("a.io/b:1", "c.io/b:1"));
    assert!(old.remove(NAME));
    old.save().unwrap();
    while let Ok(learned) = late.try_recv() {
        assert!(new.learn(&learned));
        assert!(!new.learn(&learned), "no news");
    }
    new.save().unwrap();
    let kept = open(dir.path());
    assert_eq!(kept.get("a.io/b:1").as_deref(), Some("c.io/b:1"));
    assert_eq!(kept.live().len(), 1);
}

#[test]
fn a_file_that_nobody_took_over_is_taken_back_with_all_that_was_learnt() {
    let dir = dir();
    let aliases = open(dir.path());
    aliases.set(NAME, IMAGE);
    let late = aliases.give_up();
    aliases.set("a.io/b:1", "c.io/b:1");
    aliases.take_back(dir.path()).unwrap();
    drop(late);
    aliases.set("x.io/b:1", "y.io/b:1");
    aliases.save().unwrap();
    assert_eq!(open(dir.path()).live().len(), 3);
}
