//! The last good config, kept whole for a start at which the file can't be used.
//!
//! It is kept in the state directory that it names itself (`image:`), and where systemd has made one for the service,
//! there too: a file that was emptied no longer says where to look. Its last line says of which file it is, and that it
//! is whole.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use policy::config::MAX_FILE_BYTES;
use tokio::sync::watch;

use crate::file;

/// Its name in a directory. The packages' script that leads kubelet past the shim looks for it, too.
const NAME: &str = "last-good.yaml";
/// A config, and the line at its end.
const MAX_BYTES: u64 = MAX_FILE_BYTES as u64 + 16 * 1024;

/// A config that was in force. No `Debug`: it holds credentials.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct LastGood {
    /// Its text.
    pub(crate) text: String,
    /// Whether the file alone would leave the site without its rules: they are the ConfigMap's, and the file could not
    /// be written. Such a file is no reason to believe that something was lost from it.
    pub(crate) relies_on_config_map: bool,
}

impl LastGood {
    /// As it is written, for the config file of this name.
    pub(crate) fn stored(&self, file: &Path) -> String {
        format!("{}{}", self.text, end(file, self.relies_on_config_map))
    }

    /// Understands what was written; nothing where that is not whole, or is of another config file.
    fn parse(stored: &str, file: &Path) -> Option<Self> {
        [false, true].into_iter().find_map(|relies_on_config_map| {
            let text = stored.strip_suffix(&end(file, relies_on_config_map))?;
            Some(Self {
                text: text.to_owned(),
                relies_on_config_map,
            })
        })
    }

    /// The one of the config file of this name, and where it is kept. `state_dir` is what the file says, as far as it
    /// can be read.
    pub(crate) fn find(file: &Path, state_dir: &Path) -> Option<(Self, PathBuf)> {
        let of_service = directory_of_service();
        let dirs = [of_service.as_deref(), Some(state_dir)];
        dirs.into_iter().flatten().find_map(|dir| {
            let path = dir.join(NAME);
            let stored = files::read_text(&path, MAX_BYTES).ok()?;
            Some((Self::parse(&stored, file)?, path))
        })
    }
}

/// The line at the end. A comment, with the line end before it, so that the text is what it was to the byte.
fn end(file: &Path, relies_on_config_map: bool) -> String {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let rules = match relies_on_config_map {
        true => ", with rules that only the ConfigMap has",
        false => "",
    };
    format!("\n# Kept by image-cri-shim: the last good config of {file:?}{rules}.\n")
}

/// The state directory that systemd has made for the service, in which we run.
fn directory_of_service() -> Option<PathBuf> {
    let all = std::env::var_os("STATE_DIRECTORY")?;
    let first = all.as_bytes().split(|byte| *byte == b':').next()?;
    let first = Path::new(OsStr::from_bytes(first));
    first.is_absolute().then(|| first.to_owned())
}

/// Keeps configs that are in force, readable by the owner alone: they hold credentials. Nobody waits for the disk; of
/// several configs that come meanwhile the newest is kept.
pub(crate) struct Keeper {
    newest: watch::Sender<Option<ToKeep>>,
    file: PathBuf,
    last: Option<LastGood>,
}

struct ToKeep {
    stored: String,
    dirs: Vec<PathBuf>,
}

impl Keeper {
    /// Keeps those of `file`. To be called on a runtime.
    pub(crate) fn new(file: PathBuf) -> Self {
        let (newest, texts) = watch::channel(None);
        tokio::spawn(keep_all(texts));
        Self {
            newest,
            file,
            last: None,
        }
    }

    /// Notes what needs not be kept: it is kept already, or nobody has written it.
    pub(crate) fn leave(&mut self, config: LastGood) {
        self.last = Some(config);
    }

    /// Keeps this config, where it is another than the last one.
    pub(crate) fn keep(&mut self, config: LastGood, state_dir: &Path) {
        if self.last.as_ref() == Some(&config) {
            return;
        }
        let stored = config.stored(&self.file);
        self.last = Some(config);
        let mut dirs: Vec<_> = directory_of_service().into_iter().collect();
        if !dirs.iter().any(|dir| dir == state_dir) {
            dirs.push(state_dir.to_owned());
        }
        self.newest.send_replace(Some(ToKeep { stored, dirs }));
    }
}

async fn keep_all(mut texts: watch::Receiver<Option<ToKeep>>) {
    // What was logged last, so that a full disk is logged once.
    let mut reported = None;
    while texts.changed().await.is_ok() {
        let Some(ToKeep { stored, dirs }) = take(&mut texts) else {
            continue;
        };
        let kept = tokio::task::spawn_blocking(move || keep_in(&dirs, &stored)).await;
        let problem = match kept {
            Ok(Ok(())) => None,
            Ok(Err(problem)) => Some(problem),
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = &problem
            && reported.as_ref() != Some(problem)
        {
            tracing::warn!(
                "cannot keep the last good config: {problem}; a start with a broken file would not have it (`image:` in the config names another directory)"
            );
        }
        reported = problem;
    }
}

fn take(texts: &mut watch::Receiver<Option<ToKeep>>) -> Option<ToKeep> {
    let newest = texts.borrow_and_update();
    newest.as_ref().map(|ToKeep { stored, dirs }| ToKeep {
        stored: stored.clone(),
        dirs: dirs.clone(),
    })
}

/// Writes it into each; one that fails does not keep it from the others.
fn keep_in(dirs: &[PathBuf], stored: &str) -> Result<(), String> {
    let put = |dir: &PathBuf| -> Result<(), (PathBuf, io::Error)> {
        let path = dir.join(NAME);
        file::put(&path, stored).map_err(|error| (path, error))
    };
    let failed = dirs.iter().filter_map(|dir| put(dir).err());
    let failed: Vec<_> = failed
        .map(|(path, error)| format!("{}: {error}", path.display()))
        .collect();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(failed.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn good(text: &str) -> LastGood {
        LastGood {
            text: text.to_owned(),
            relies_on_config_map: false,
        }
    }

    #[test]
    fn only_a_whole_one_of_the_same_file_is_one() {
        let file = Path::new("/etc/image-cri-shim.yaml");
        for text in ["", "a: 1", "a: 1\n", "a: |\n  b\n\n\n", "# x\r\n"] {
            for relies_on_config_map in [false, true] {
                let config = LastGood {
                    text: text.to_owned(),
                    relies_on_config_map,
                };
                let stored = config.stored(file);
                assert!(LastGood::parse(&stored, file) == Some(config), "{stored:?}");
                let other = Path::new("/etc/other.yaml");
                assert!(LastGood::parse(&stored, other).is_none(), "{stored:?}");
                for end in (0..stored.len()).filter(|end| stored.is_char_boundary(*end)) {
                    assert!(LastGood::parse(&stored[..end], file).is_none(), "{end}");
                }
            }
        }
        // A name can't end the line early.
        let odd = Path::new("/a\".\n# Kept");
        let stored = good("a: 1").stored(odd);
        assert_eq!(stored.lines().count(), 2, "{stored}");
    }

    #[test]
    fn it_is_kept_for_its_owner_alone_wherever_that_works() {
        let dir = tempfile::tempdir().unwrap();
        let (state, blocked) = (dir.path().join("state"), dir.path().join("file/x"));
        fs::write(dir.path().join("file"), "").unwrap();
        let path = state.join(NAME);
        keep_in(std::slice::from_ref(&state), "first").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        for text in ["first", "second"] {
            let problem = keep_in(&[blocked.clone(), state.clone()], text).unwrap_err();
            assert!(problem.contains("file/x"), "{problem}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let mode = state.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
    }
}
