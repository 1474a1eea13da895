//! Replacing a file so that nobody ever sees half of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
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

/// A file beside the target that becomes it. Removed on drop unless it was published; one that a
/// killed process has left behind is removed by the next.
struct Draft {
    path: PathBuf,
    file: File,
}

impl Draft {
    fn create(target: &Path) -> io::Result<Self> {
        let name = target
            .file_name()
            .ok_or(io::ErrorKind::InvalidInput)?
            .to_string_lossy();
        let path = target.with_file_name(format!(".{name}.new"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self { path, file })
    }

    fn fill(&self, text: &str) -> io::Result<()> {
        (&self.file).write_all(text.as_bytes())?;
        // Before the rename: else a power cut could leave the new name on an empty file.
        self.file.sync_all()
    }

    fn publish(&self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        if let Some(dir) = target.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Gone already when it was published.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

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
                    draft.fill("new").unwrap();
                }
                if steps > 2 {
                    draft.publish(&path).unwrap();
                }
                // A killed process runs no destructors.
                std::mem::forget(draft);
            }
            let expected = if steps > 2 { "new" } else { "old" };
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
            assert_eq!(mode(&path), 0o600);
            // And the next process is not stopped by what is left.
            assert_eq!(replace(&path, expected, "next").unwrap(), Replaced::Done);
            assert_eq!(fs::read_to_string(&path).unwrap(), "next");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
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
