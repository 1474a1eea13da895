//! Replacing a file so that nobody ever sees half of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What became of a replacement.
#[derive(Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The file holds the new text.
    Done,
    /// Somebody else changed it meanwhile; what they wrote is still there.
    Overtaken,
}

/// Replaces `old` in the file by `new`, in one step that also survives a power cut, readable by the
/// owner alone. A symlink stays one: its target is replaced.
///
/// # Errors
/// The file or its directory can't be written.
pub fn replace(path: &Path, old: &str, new: &str) -> io::Result<Replaced> {
    let target = fs::canonicalize(path)?;
    let draft = Draft::create(&target)?;
    draft.fill(new)?;
    if fs::read_to_string(&target)? != old {
        return Ok(Replaced::Overtaken);
    }
    draft.publish(&target)?;
    Ok(Replaced::Done)
}

/// Makes the file hold `text`, in one step that also survives a power cut, readable by the owner alone. Its directory
/// is made where there is none; a file that is as it should be is left alone.
///
/// # Errors
/// The file or its directory can't be written.
pub(crate) fn put(path: &Path, text: &str) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
    }
    let is_private = fs::symlink_metadata(path)
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o077 == 0);
    if is_private && fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let draft = Draft::create(path)?;
    draft.fill(text)?;
    draft.publish(path)
}

/// A file beside the target that becomes it. Removed on drop unless it was published; one that a
/// killed process has left behind is used by the next.
///
/// It is locked while it is there. Of two processes that replace one file, as while one shim hands over to another, the
/// second waits, and then finds what the first has written.
struct Draft {
    path: PathBuf,
    file: File,
    is_published: bool,
}

impl Draft {
    fn create(target: &Path) -> io::Result<Self> {
        let name = target
            .file_name()
            .ok_or(io::ErrorKind::InvalidInput)?
            .to_string_lossy();
        let path = target.with_file_name(format!(".{name}.new"));
        loop {
            // Whoever had it before may have published it, or taken it away.
            if let Some(file) = lock(&path)? {
                return Ok(Self {
                    path,
                    file,
                    is_published: false,
                });
            }
        }
    }

    fn fill(&self, text: &str) -> io::Result<()> {
        // A killed process may have left something in it.
        self.file.set_len(0)?;
        self.file
            .set_permissions(fs::Permissions::from_mode(0o600))?;
        (&self.file).write_all(text.as_bytes())?;
        // Before the rename: else a power cut could leave the new name on an empty file.
        self.file.sync_all()
    }

    fn publish(mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.is_published = true;
        if let Some(dir) = target.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_published {
            // What stays is used by the next.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens the file and locks it, and makes it where there is none. `None` where it no longer has this name then.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let is_other = |there: fs::Metadata| !there.is_file() || there.nlink() != 1;
    if fs::symlink_metadata(path).is_ok_and(is_other) {
        fs::remove_file(path)?;
    }
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(false);
    let file = options.mode(0o600).open(path)?;
    // A file system without locks has none to wait for.
    let _ = file.lock();
    let own = file.metadata()?;
    let is_own = |there: fs::Metadata| (own.dev(), own.ino()) == (there.dev(), there.ino());
    Ok(fs::symlink_metadata(path).is_ok_and(is_own).then_some(file))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn killed_after_any_step_the_file_is_the_old_or_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        for steps in 0..=3 {
            fs::write(&path, "old").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            if steps > 0 {
                let draft = Draft::create(&path).unwrap();
                if steps > 1 {
                    draft.fill("new, and longer than the next").unwrap();
                }
                if steps > 2 {
                    draft.publish(&path).unwrap();
                } else {
                    // A killed process runs no destructors, but loses its locks.
                    draft.file.unlock().unwrap();
                    std::mem::forget(draft);
                }
            }
            let expected = if steps > 2 {
                "new, and longer than the next"
            } else {
                "old"
            };
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
            assert_eq!(mode(&path), 0o600);
            // And the next process is not stopped by what is left.
            assert_eq!(replace(&path, expected, "next").unwrap(), Replaced::Done);
            assert_eq!(fs::read_to_string(&path).unwrap(), "next");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn of_two_at_once_the_second_waits_and_finds_what_the_first_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        for round in 0..50 {
            fs::write(&path, "old").unwrap();
            let write = |new: String| {
                let path = path.clone();
                std::thread::spawn(move || (replace(&path, "old", &new).unwrap(), new))
            };
            let writers: Vec<_> = (0..4)
                .map(|n| write(format!("{n}").repeat(9_000 + n)))
                .collect();
            let ends = writers.into_iter().map(|writer| writer.join().unwrap());
            let done: Vec<_> = ends.filter(|(end, _)| *end == Replaced::Done).collect();
            assert_eq!(done.len(), 1, "{round}");
            assert_eq!(fs::read_to_string(&path).unwrap(), done[0].1);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn what_stands_where_the_draft_would_is_no_way_to_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        let draft = dir.path().join(".config.yaml.new");
        let other = dir.path().join("other");
        fs::write(&other, "theirs").unwrap();
        for step in 0..2 {
            fs::write(&path, "old").unwrap();
            match step {
                0 => symlink(&other, &draft).unwrap(),
                _ => fs::hard_link(&other, &draft).unwrap(),
            }
            assert_eq!(replace(&path, "old", "new").unwrap(), Replaced::Done);
            assert_eq!(fs::read_to_string(&other).unwrap(), "theirs");
            assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        }
    }

    #[test]
    fn readable_by_the_owner_alone_whatever_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        replace(&path, "old", "new").unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_symlink_is_replaced_at_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        fs::create_dir(&real).unwrap();
        fs::write(real.join("config.yaml"), "old").unwrap();
        let link = dir.path().join("link.yaml");
        symlink("real/config.yaml", &link).unwrap();
        replace(&link, "old", "new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(real.join("config.yaml")).unwrap(), "new");
    }

    #[test]
    fn what_somebody_else_wrote_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        fs::write(&path, "theirs").unwrap();
        assert_eq!(replace(&path, "old", "new").unwrap(), Replaced::Overtaken);
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
