//! Where the node's files stand, and whether its services may be asked.

use std::io;
use std::path::{Path, PathBuf};

use installer::Root;

/// Files that are looked at are small; a mistaken path is not read whole.
const MAX_FILE: u64 = 1024 * 1024;

/// The node that is looked at.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) root: Root,
    dir: PathBuf,
    /// Whether its processes, sockets, units and registries are this machine's, so that they can be asked. An image of
    /// a node has files only.
    pub(crate) is_live: bool,
}

impl Host {
    pub(crate) fn new(dir: &Path, is_live: bool) -> Self {
        Self {
            root: Root::new(dir),
            dir: dir.to_owned(),
            is_live: is_live || dir == Path::new("/"),
        }
    }

    /// Where the node's `path` stands on this machine. One that lies in the tree already is meant as it is: a process
    /// that runs beside the tree, and not in it, knows its files by such names.
    pub(crate) fn place(&self, path: &Path) -> io::Result<PathBuf> {
        if self.dir != Path::new("/") && path.starts_with(&self.dir) {
            return Ok(path.to_owned());
        }
        // The same folder, by its old name; a tree need not have the link.
        match path.strip_prefix("/var/run") {
            Ok(rest) => self.root.resolve(Path::new("/run").join(rest)),
            Err(_) => self.root.resolve(path),
        }
    }

    /// The same, without following a link that stands at `path` itself.
    pub(crate) fn place_of_link(&self, path: &Path) -> io::Result<PathBuf> {
        match (path.parent(), path.file_name()) {
            (Some(folder), Some(name)) => Ok(self.place(folder)?.join(name)),
            _ => self.place(path),
        }
    }

    /// The tree that the node's files stand in.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The text of a small regular file; `None` where it can't be had.
    pub(crate) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let place = self.place(path.as_ref()).ok()?;
        let bytes = files::read_start(&place, MAX_FILE).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_either_side_lead_into_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path(), false);
        let inside = dir.path().join("run/x.sock");
        for name in [
            Path::new("/run/x.sock"),
            Path::new("/var/run/x.sock"),
            &inside,
        ] {
            assert_eq!(host.place(name).unwrap(), inside);
        }
        assert!(!host.is_live && Host::new(Path::new("/"), false).is_live);
        std::fs::create_dir_all(dir.path().join("run")).unwrap();
        std::os::unix::fs::symlink("y.sock", &inside).unwrap();
        assert_eq!(
            host.place_of_link(Path::new("/run/x.sock")).unwrap(),
            inside
        );
        assert!(
            host.place(&PathBuf::from("/run/x.sock"))
                .unwrap()
                .ends_with("run/y.sock")
        );
    }
}
