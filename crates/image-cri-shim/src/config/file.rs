//! The local config file: reading it, and replacing it so that nobody ever sees half of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use policy::config::{Diagnostic, Settings};

/// More than any real config; a mistaken path (a device, an image) is refused instead of read.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// The file's text and what it means. No `Debug`: the text holds credentials.
pub(crate) struct Loaded {
    pub(crate) text: String,
    pub(crate) settings: Settings,
    /// Warnings, ready to print: `FILE:LINE:COLUMN: warning: …`.
    pub(crate) warnings: Vec<String>,
}

/// Reads the file's text.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let file = File::open(path).with_context(|| {
        format!("cannot read the config file {shown}; name another with `--file`")
    })?;
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read the config file {shown}"))?;
    if text.len() as u64 > MAX_FILE {
        bail!("the config file {shown} is larger than {MAX_FILE} bytes; is it the right file?");
    }
    Ok(text)
}

/// Understands a text read from `path`. All errors are in the one that is returned.
pub(crate) fn understand(path: &Path, text: String) -> anyhow::Result<Loaded> {
    let file = path.display().to_string();
    let (settings, findings) = Settings::read(&text, &|name| std::env::var(name).ok());
    let show = |finding: &Diagnostic| finding.in_file(&file).to_string();
    let (errors, warnings): (Vec<_>, Vec<_>) = findings.iter().partition(|f| f.is_error());
    if !errors.is_empty() {
        let lines: Vec<_> = errors.into_iter().map(show).collect();
        bail!("the config can't be used as it is\n{}", lines.join("\n"));
    }
    Ok(Loaded {
        text,
        settings,
        warnings: warnings.into_iter().map(show).collect(),
    })
}

/// Reads and understands the file.
pub(crate) fn load(path: &Path) -> anyhow::Result<Loaded> {
    understand(path, read(path)?)
}

/// The socket of the shim that runs by this file. The file need not be good otherwise: a broken one is
/// a reason to look at the shim that still runs by the last good one.
pub(crate) fn shim_socket(path: &Path) -> anyhow::Result<PathBuf> {
    let text = read(path)?;
    let (settings, _) = Settings::read(&text, &|name| std::env::var(name).ok());
    Ok(settings.shim_socket)
}

/// What became of a replacement.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Replaced {
    /// The file holds the new text.
    Done,
    /// Somebody else changed it meanwhile; what they wrote is still there.
    Overtaken,
}

/// Replaces `old` in the file by `new`, in one step that also survives a power cut, readable by the
/// owner alone. A symlink stays one: its target is replaced.
pub(crate) fn replace(path: &Path, old: &str, new: &str) -> io::Result<Replaced> {
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
