//! What was changed on this node, and what stood there before: the record that `uninstall` works by.
//!
//! The ledger and the old files are written, and are safe on the disk, before the first change is made.
//! So a run that was killed anywhere can be finished or undone.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::file::{self, Attributes, State};
use crate::root::Root;

/// Where the record and the old files are kept; for root alone, since old files may hold credentials.
pub const FOLDER: &str = "/var/lib/image-cri-shim/install";
const RECORD: &str = "ledger.json";
/// What the shim has made of a file of the record; in a file of its own, since it is another process that writes it.
const REWRITTEN: &str = "rewritten.json";

/// [`FOLDER`] without symbolic links: where its way is a link, as `/var/lib` may be, that leads inside the tree.
pub(crate) fn folder(root: &Root) -> Result<PathBuf, Error> {
    let folder = Path::new(FOLDER);
    root.canonical(folder)
        .map_err(|e| Error::at("follow the links of", folder, e))
}

/// Everything that `install` did.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ledger {
    /// Directories that were made, outermost first, to be removed again where they are empty.
    pub(crate) directories: Vec<PathBuf>,
    /// Files that were written or changed, by the node's path without symbolic links.
    pub(crate) files: BTreeMap<PathBuf, Entry>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// What stood there; `None` is nothing.
    pub(crate) before: Option<Saved>,
    /// SHA-256 of what was put there. Something else by now is somebody's edit.
    pub(crate) after: String,
    /// SHA-256 of what an earlier run had put there, which [`Self::after`] takes the place of: a run that was killed may
    /// have left it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replaced: Option<String>,
    /// Whether kubelet would dial the shim by this file: undone first, and nothing else is removed
    /// while it can't be.
    pub(crate) wiring: bool,
    /// What the shim itself has made of it since.
    #[serde(skip)]
    pub(crate) rewritten: Option<Rewritten>,
}

/// What the shim has made of a file that a run of ours has put there: a config with the ConfigMap merged into it. It is ours
/// like the file that it was made of, and no edit of anybody. All but the path are SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rewritten {
    /// Where it stands.
    pub(crate) path: PathBuf,
    /// What the run had put there.
    pub(crate) made_of: String,
    /// What stands there now, or before it is written.
    pub(crate) before: String,
    /// What stands there when it is written.
    pub(crate) after: String,
}

impl Entry {
    /// Whether what stands there is what a run of ours has put there.
    pub(crate) fn is_ours(&self, current: &State) -> bool {
        current.digest().is_some_and(|digest| {
            let by_the_shim = self.rewritten.as_ref();
            self.has_put(&digest) || by_the_shim.is_some_and(|rewritten| rewritten.is(&digest))
        })
    }

    /// Whether a run of ours has put there what has this digest.
    pub(crate) fn has_put(&self, digest: &str) -> bool {
        digest == self.after || Some(digest) == self.replaced.as_deref()
    }

    /// Whether what stands there is what the shim has made of `wanted`.
    pub(crate) fn is_made_of(&self, wanted: &str, current: &State) -> bool {
        self.rewritten.as_ref().is_some_and(|rewritten| {
            rewritten.made_of == wanted
                && current.digest().is_some_and(|digest| rewritten.is(&digest))
        })
    }
}

/// What stood somewhere before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Saved {
    /// A file.
    File(SavedFile),
    /// A symbolic link to this.
    Link(PathBuf),
}

/// An old file: its attributes here, its content in a file of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SavedFile {
    /// SHA-256 of the content; also the name of the file that keeps it.
    pub(crate) digest: String,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Base64 of names to Base64 of values.
    xattrs: BTreeMap<String, String>,
}

impl Ledger {
    /// Reads the record of `root`; empty where nothing was installed.
    pub(crate) fn load(root: &Root) -> Result<Self, Error> {
        let path = Path::new(FOLDER).join(RECORD);
        let Some(text) = root.read(&path).map_err(|e| Error::at("read", &path, e))? else {
            return Ok(Self::default());
        };
        let mut ledger: Self = serde_json::from_str(&text).map_err(|error| Error::Damaged {
            path,
            reason: error.to_string(),
        })?;
        if let Some(rewritten) = Rewritten::load(root)?
            && let Some(entry) = ledger.files.get_mut(&rewritten.path)
        {
            entry.rewritten = Some(rewritten);
        }
        Ok(ledger)
    }

    /// Writes the record, durably.
    pub(crate) fn save(&self, root: &Root) -> Result<(), Error> {
        self.write(root, &folder(root)?.join(RECORD))
    }

    fn write(&self, root: &Root, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(io::Error::other)
            .map_err(|e| Error::at("write", path, e))?;
        keep(root, path, &text)
    }

    /// Whether nothing is recorded.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.directories.is_empty()
    }
}

impl Rewritten {
    /// What was noted last. A note that can't be understood is none: the file then counts as edited, and is left.
    fn load(root: &Root) -> Result<Option<Self>, Error> {
        let path = folder(root)?.join(REWRITTEN);
        let text = root.read(&path).map_err(|e| Error::at("read", &path, e))?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Notes it, durably.
    pub(crate) fn save(&self, root: &Root) -> Result<(), Error> {
        let path = folder(root)?.join(REWRITTEN);
        let text = serde_json::to_vec_pretty(self)
            .map_err(io::Error::other)
            .map_err(|e| Error::at("write", &path, e))?;
        keep(root, &path, &text)
    }

    /// Whether that is what stands there, as far as is known.
    pub(crate) fn is(&self, digest: &str) -> bool {
        digest == self.after || digest == self.before
    }
}

impl Saved {
    /// Keeps a copy of what stands somewhere, durably. `None` for nothing.
    pub(crate) fn of(root: &Root, state: &State) -> Result<Option<Self>, Error> {
        let (content, attributes) = match state {
            State::Absent => return Ok(None),
            State::Link { target } => return Ok(Some(Self::Link(target.clone()))),
            State::File {
                content,
                attributes,
            } => (content, attributes),
        };
        let digest = file::digest(content);
        keep(root, &folder(root)?.join(&digest), content)?;
        Ok(Some(Self::File(SavedFile {
            digest,
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            xattrs: attributes
                .xattrs
                .iter()
                .map(|(name, value)| {
                    (
                        BASE64_STANDARD.encode(name.as_bytes()),
                        BASE64_STANDARD.encode(value),
                    )
                })
                .collect(),
        })))
    }

    /// What stood there, read and checked.
    pub(crate) fn restore(&self, root: &Root) -> Result<State, Error> {
        match self {
            Self::File(file) => file.restore(root),
            Self::Link(target) => Ok(State::Link {
                target: target.clone(),
            }),
        }
    }

    /// Whether `state` is what stood there.
    pub(crate) fn matches(&self, state: &State) -> bool {
        let digest = match self {
            Self::File(file) => file.digest.clone(),
            Self::Link(target) => file::link_digest(target),
        };
        state.digest() == Some(digest)
    }
}

impl SavedFile {
    fn restore(&self, root: &Root) -> Result<State, Error> {
        let path = folder(root)?.join(&self.digest);
        let damaged = |reason: &str| Error::Damaged {
            path: path.clone(),
            reason: reason.to_owned(),
        };
        let content = fs::read(root.on_host(&path)).map_err(|e| Error::at("read", &path, e))?;
        if file::digest(&content) != self.digest {
            return Err(damaged("its content is not what was saved"));
        }
        let mut xattrs = BTreeMap::new();
        for (name, value) in &self.xattrs {
            let (Ok(name), Ok(value)) =
                (BASE64_STANDARD.decode(name), BASE64_STANDARD.decode(value))
            else {
                return Err(damaged("an extended attribute is not Base64"));
            };
            xattrs.insert(OsString::from_vec(name), value);
        }
        Ok(State::File {
            content,
            attributes: Attributes {
                mode: self.mode,
                uid: self.uid,
                gid: self.gid,
                xattrs,
            },
        })
    }
}

/// Writes a file of our own, for root alone.
fn keep(root: &Root, path: &Path, content: &[u8]) -> Result<(), Error> {
    let owner = Attributes {
        mode: 0o600,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        xattrs: BTreeMap::new(),
    };
    file::put(&root.on_host(path), content, &owner).map_err(|e| Error::at("write", path, e))
}

/// Makes [`FOLDER`], for root alone, with a record in it that names the directories which had to be made
/// for it. All appears in one step, so that a crash leaves no directory that nobody knows of.
pub(crate) fn make_folder(root: &Root) -> Result<(), Error> {
    sweep(root)?;
    let folder = folder(root)?;
    let made = missing(root, &folder);
    let Some(outermost) = made.first().cloned() else {
        return Ok(());
    };
    let new = aside(&outermost);
    let ledger = Ledger {
        directories: made.clone(),
        ..Ledger::default()
    };
    for directory in &made {
        let below = directory.strip_prefix(&outermost).unwrap_or(Path::new(""));
        // Other users' services may look for the daemon's state, not for this record.
        let mode = if *directory == folder { 0o700 } else { 0o755 };
        make_directory(root, &new.join(below), mode)?;
    }
    let below = folder.strip_prefix(&outermost).unwrap_or(Path::new(""));
    ledger.write(root, &new.join(below).join(RECORD))?;
    fs::rename(root.on_host(&new), root.on_host(&outermost))
        .and_then(|()| sync_folder_of(root, &outermost))
        .map_err(|e| Error::at("make the directory", &outermost, e))
}

/// Removes the record, everything kept with it, and the directories that were made for it and hold nothing
/// else. The record disappears in one step.
pub(crate) fn remove_folder(root: &Root, made: &[PathBuf]) -> Result<(), Error> {
    let folder = folder(root)?;
    let Some(outermost) = made
        .iter()
        .find(|directory| folder.starts_with(directory) && holds_only(root, directory, &folder))
    else {
        return clear(root);
    };
    let gone = aside(outermost);
    fs::rename(root.on_host(outermost), root.on_host(&gone))
        .and_then(|()| sync_folder_of(root, outermost))
        .map_err(|e| Error::at("remove the directory", outermost, e))?;
    sweep(root)
}

/// Removes what a killed run of [`make_folder`] or [`remove_folder`] has left.
pub(crate) fn sweep(root: &Root) -> Result<(), Error> {
    for directory in folder(root)?.ancestors() {
        if directory.parent().is_none() {
            break;
        }
        let left = aside(directory);
        match fs::remove_dir_all(root.on_host(&left)) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(Error::at("remove the directory", &left, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes unfinished files in [`FOLDER`], and old files that no record names.
pub(crate) fn sweep_files(root: &Root) -> Result<(), Error> {
    let folder = folder(root)?;
    let named: Vec<String> = Ledger::load(root)?
        .files
        .into_values()
        .filter_map(|entry| match entry.before {
            Some(Saved::File(file)) => Some(file.digest),
            _ => None,
        })
        .collect();
    let names = root
        .list(&folder)
        .map_err(|e| Error::at("read", &folder, e))?;
    for name in names {
        if name != RECORD && name != REWRITTEN && !named.contains(&name) {
            let path = folder.join(name);
            file::remove(&root.on_host(&path)).map_err(|e| Error::at("remove", &path, e))?;
        }
    }
    Ok(())
}

/// Whether nothing but the way to `folder` stands in `directory`.
fn holds_only(root: &Root, directory: &Path, folder: &Path) -> bool {
    folder
        .ancestors()
        .take_while(|ancestor| *ancestor != directory)
        .all(|ancestor| {
            let parent = ancestor.parent().unwrap_or(directory);
            root.list(parent).is_ok_and(|names| names.len() == 1)
        })
}

/// The name beside a directory under which it is made and removed.
fn aside(directory: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(directory.file_name().unwrap_or_default());
    name.push(".image-cri-shim.tmp");
    directory.with_file_name(name)
}

fn sync_folder_of(root: &Root, path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::File::open(root.on_host(folder))?.sync_all()
}

/// The directories on the way to `path`, itself included, that are not there; outermost first.
pub(crate) fn missing(root: &Root, path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> = path
        .ancestors()
        .filter(|directory| !root.on_host(directory).is_dir())
        .map(Path::to_path_buf)
        .collect();
    missing.reverse();
    missing
}

/// Makes one directory; one that is there is no error.
pub(crate) fn make_directory(root: &Root, path: &Path, mode: u32) -> Result<(), Error> {
    let place = root.on_host(path);
    match fs::create_dir(&place) {
        Ok(()) => fs::set_permissions(&place, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
    .map_err(|e| Error::at("make the directory", path, e))
}

/// Removes the record and everything kept with it, where the directory itself was there before.
fn clear(root: &Root) -> Result<(), Error> {
    // The record last: as long as it is there, the run can be repeated.
    let folder = folder(root)?;
    let names = root
        .list(&folder)
        .map_err(|e| Error::at("read", &folder, e))?;
    for name in names.iter().filter(|name| *name != RECORD) {
        let path = folder.join(name);
        file::remove(&root.on_host(&path)).map_err(|e| Error::at("remove", &path, e))?;
    }
    let record = folder.join(RECORD);
    file::remove(&root.on_host(&record)).map_err(|e| Error::at("remove", &record, e))
}
