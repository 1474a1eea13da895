//! The tree that is worked on: a running node's `/`, or a directory that will be one.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

/// Symbolic links that one path may go through, as Linux limits them.
const MAX_LINKS: usize = 40;

/// A node's file tree. Paths are written as the node sees them (`/etc/default/kubelet`); an absolute
/// symbolic link inside the tree points into the tree, so that `--root DIR` never touches the machine
/// it runs on.
#[derive(Clone, Debug)]
pub struct Root {
    dir: PathBuf,
}

impl Root {
    /// The tree below `dir`; `/` is the running node.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Whether this is the machine itself, where services run and commands can be asked.
    pub fn is_live(&self) -> bool {
        self.dir == Path::new("/")
    }

    /// Where the node's path `path` stands on this machine, with every symbolic link followed inside the
    /// tree. The last part need not exist.
    ///
    /// # Errors
    /// When links form a circle, or a part can't be looked at.
    pub fn resolve(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        Ok(self.on_host(&self.canonical(path.as_ref())?))
    }

    /// `path` as the node sees it, without symbolic links.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        let mut rest: VecDeque<OsString> = parts(path);
        let mut done = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            if part == OsStr::new("..") {
                done.pop();
                continue;
            }
            let next = done.join(&part);
            match std::fs::read_link(self.on_host(&next)) {
                Ok(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(io::Error::other(format!(
                            "{} goes through too many symbolic links",
                            path.display()
                        )));
                    }
                    if target.is_absolute() {
                        done = PathBuf::from("/");
                    }
                    for part in parts(&target).into_iter().rev() {
                        rest.push_front(part);
                    }
                }
                // Not a link, or not there.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::InvalidInput
                            | io::ErrorKind::NotFound
                            | io::ErrorKind::NotADirectory
                    ) =>
                {
                    done = next;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Whether anything stands at `path`.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.resolve(path).is_ok_and(|path| path.exists())
    }

    /// The text of a file; `None` where there is none.
    ///
    /// # Errors
    /// When it can't be read, or is no UTF-8.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<Option<String>> {
        let place = self.resolve(&path)?;
        match std::fs::read_to_string(&place) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!("cannot read {}: {error}", path.as_ref().display()),
            )),
        }
    }

    /// Names in a directory, sorted; none where there is no such directory.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn list(&self, path: impl AsRef<Path>) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.resolve(path)?) {
            Ok(entries) => entries,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// A path of the node as a path of this machine; links are not followed.
    pub(crate) fn on_host(&self, path: &Path) -> PathBuf {
        self.dir.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// The named parts of a path, `..` included, from its beginning.
fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(part) => Some(part.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_inside_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        std::fs::create_dir_all(dir.path().join("etc/real")).unwrap();
        std::fs::write(dir.path().join("etc/real/kubelet"), "x").unwrap();
        symlink("/etc/real", dir.path().join("etc/default")).unwrap();
        symlink("../../../../etc/real/kubelet", dir.path().join("etc/up")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();

        let place = root.resolve("/etc/default/kubelet").unwrap();
        assert_eq!(place, dir.path().join("etc/real/kubelet"));
        assert_eq!(root.read("/etc/up").unwrap().as_deref(), Some("x"));
        assert_eq!(root.read("/etc/absent/file").unwrap(), None);
        assert!(root.resolve("/loop").is_err());
        assert!(!root.exists("/etc/passwd"), "the machine's own file");
    }
}
