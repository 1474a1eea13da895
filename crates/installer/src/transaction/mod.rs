//! Making changes and undoing them, so that a crash at any step loses nothing.
//!
//! The order is: save what stands there, record what will be done, do it. Undoing goes the other way:
//! put back, then forget. Both are done again from the beginning after a crash, and each step first looks
//! whether it is done already.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

mod predecessor;
mod revert;
mod rewrite;

pub use self::predecessor::brings_back_the_predecessor;
pub use self::revert::revert;
pub use self::rewrite::note_rewrite;

use crate::Error;
use crate::file::{self, Attributes, State};
use crate::ledger::{self, Entry, Ledger, Saved};
use crate::root::Root;

/// A file as it should be.
#[derive(Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where, as the node sees it.
    pub path: PathBuf,
    /// What should stand there.
    pub content: Content,
    /// Whether kubelet dials the shim by it.
    pub wiring: bool,
    /// Whether a file that is there already is left as it is: a config that somebody wrote.
    pub keep_existing: bool,
    /// Whether others write to it too, beside us: what they have written since is put back with what stood there. An edit
    /// of a file that is ours as a whole is written over, and what stood there first stays what is put back. The unit of the
    /// Go program of the same name, which stands where ours does, is kept in either case.
    pub shared: bool,
}

/// A file's content, or a link's target.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// A regular file.
    File {
        /// Its bytes.
        bytes: Vec<u8>,
        /// Its mode where it is new; a file that is there keeps its own, and becomes executable where this
        /// is.
        mode: u32,
    },
    /// A symbolic link.
    Link(PathBuf),
}

impl Content {
    fn digest(&self) -> String {
        match self {
            Self::File { bytes, .. } => file::digest(bytes),
            Self::Link(target) => file::link_digest(target),
        }
    }
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wanted")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// One file that would be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where, as the node sees it and without symbolic links.
    pub path: PathBuf,
    /// What stands there.
    pub current: State,
    /// What will. Its attributes are those that it keeps.
    pub new: State,
}

/// What `uninstall` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// Files and directories that are as they were.
    pub restored: Vec<PathBuf>,
    /// Files that somebody has edited since: left as they are.
    pub left: Vec<PathBuf>,
    /// Files by which kubelet dials the shim still: edited ones, and those that did so before. While there are any, nothing
    /// else is removed.
    pub still_wired: Vec<PathBuf>,
}

/// Removes temporary files that killed runs have left, of whichever command.
fn sweep(root: &Root, wanted: &[Wanted]) -> Result<(), Error> {
    let ledger = Ledger::load(root)?;
    let mut paths: BTreeSet<PathBuf> = ledger.files.into_keys().collect();
    for file in wanted {
        paths.insert(place_of(root, file)?);
    }
    for path in paths {
        file::sweep(&root.on_host(&path))
            .map_err(|e| Error::at("remove a temporary file beside", &path, e))?;
    }
    ledger::sweep_files(root)
}

/// What would be changed to have `wanted`, in the order in which it is done.
///
/// # Errors
/// When a file can't be read.
pub fn changes(root: &Root, wanted: &[Wanted]) -> Result<Vec<Change>, Error> {
    let ledger = Ledger::load(root)?;
    let mut changes = Vec::new();
    for file in wanted {
        let path = place_of(root, file)?;
        let current = read(root, &path)?;
        if !is_done(file, ledger.files.get(&path), &current) {
            let new = resulting(file, &current);
            changes.push(Change { path, current, new });
        }
    }
    for (path, entry) in obsolete(root, &ledger, wanted)? {
        changes.extend(undoing(root, path, entry)?);
    }
    Ok(changes)
}

/// Where the files of `wanted` really stand: without symbolic links.
///
/// # Errors
/// When links can't be followed.
pub fn places(root: &Root, wanted: &[Wanted]) -> Result<Vec<PathBuf>, Error> {
    wanted.iter().map(|file| place_of(root, file)).collect()
}

/// Makes the tree hold `wanted`. Files of an earlier run that are not wanted any more are put back. A
/// run that has nothing to do writes nothing.
///
/// # Errors
/// When a step fails; what was done until then is recorded, and the next run goes on or undoes it.
pub fn install(root: &Root, wanted: &[Wanted]) -> Result<Vec<Change>, Error> {
    install_by_steps(root, wanted, &mut |_| Ok(()))
}

/// [`install`], with something that is asked before each step; its error ends the run there, as a
/// crash would.
pub(crate) fn install_by_steps(
    root: &Root,
    wanted: &[Wanted],
    step: &mut dyn FnMut(&str) -> Result<(), Error>,
) -> Result<Vec<Change>, Error> {
    sweep(root, wanted)?;
    let planned = changes(root, wanted)?;
    if planned.is_empty() {
        return Ok(planned);
    }
    step("make the record's directory")?;
    ledger::make_folder(root)?;
    let mut ledger = Ledger::load(root)?;
    let mut directories: Vec<PathBuf> = Vec::new();
    // Save, then record: from here on everything can be undone.
    for file in wanted {
        let path = place_of(root, file)?;
        let current = read(root, &path)?;
        let known = ledger.files.get(&path);
        if is_done(file, known, &current) {
            continue;
        }
        let is_ours = known.is_some_and(|entry| entry.is_ours(&current));
        let is_theirs = file.shared || predecessor::is_its_unit(root, &path, &current)?;
        let before = match known {
            // What stood there first is what counts. An edit of a file that is ours would lead to what is removed.
            Some(entry) if is_ours || is_before(entry, &current) || !is_theirs => {
                entry.before.clone()
            }
            // What others have added to theirs is theirs, and so is the unit that another program has put over ours.
            _ => {
                step("save an old file")?;
                Saved::of(root, &current)?
            }
        };
        let folder = path.parent().unwrap_or(Path::new("/"));
        directories.extend(ledger::missing(root, folder));
        ledger.files.insert(
            path,
            Entry {
                before,
                after: file.content.digest(),
                replaced: current.digest().filter(|_| is_ours),
                wiring: file.wiring,
                rewritten: known.and_then(|entry| entry.rewritten.clone()),
            },
        );
    }
    let known: BTreeSet<PathBuf> = ledger.directories.iter().cloned().collect();
    let mut seen = known;
    ledger
        .directories
        .extend(directories.into_iter().filter(|d| seen.insert(d.clone())));
    step("record")?;
    ledger.save(root)?;

    for file in wanted {
        let path = place_of(root, file)?;
        let current = read(root, &path)?;
        let Some(entry) = ledger.files.get(&path) else {
            continue;
        };
        if is_done(file, Some(entry), &current) {
            continue;
        }
        for directory in ledger::missing(root, path.parent().unwrap_or(Path::new("/"))) {
            step("make a directory")?;
            ledger::make_directory(root, &directory, 0o755)?;
        }
        step("write a file")?;
        put(root, &path, &resulting(file, &current))?;
    }
    let dropped: Vec<PathBuf> = obsolete(root, &ledger, wanted)?
        .into_iter()
        .map(|(path, _)| path.clone())
        .collect();
    for path in dropped {
        step("put an old file back")?;
        if let Some(entry) = ledger.files.get(&path) {
            put_back(root, &path, entry)?;
        }
        ledger.files.remove(&path);
        step("record what was put back")?;
        ledger.save(root)?;
    }
    Ok(planned)
}

/// What [`uninstall`] would do, without doing it.
///
/// # Errors
/// When a file can't be read, or the record is damaged.
pub fn undo_changes(root: &Root) -> Result<Vec<Change>, Error> {
    let ledger = Ledger::load(root)?;
    let mut changes = Vec::new();
    for (path, entry) in in_order(&ledger) {
        changes.extend(undoing(root, path, entry)?);
    }
    Ok(changes)
}

/// How a file gets back to what stood there before; `None` where somebody has edited it since.
fn undoing(root: &Root, path: &Path, entry: &Entry) -> Result<Option<Change>, Error> {
    let current = read(root, path)?;
    if !entry.is_ours(&current) {
        return Ok(None);
    }
    Ok(Some(Change {
        path: path.to_owned(),
        current,
        new: before(root, entry)?,
    }))
}

/// Puts back what stood there before [`install`]: content, mode, owner, extended attributes. A file that
/// somebody edited since is left and named. While one of those still leads kubelet to the shim, nothing
/// else is removed: a kubelet must never dial a socket that nobody serves.
///
/// # Errors
/// When a step fails; the next run goes on.
pub fn uninstall(root: &Root) -> Result<Undone, Error> {
    uninstall_by_steps(root, &mut |_| Ok(()))
}

/// [`uninstall`], with something that is asked before each step, as in [`install_by_steps`].
pub(crate) fn uninstall_by_steps(
    root: &Root,
    step: &mut dyn FnMut(&str) -> Result<(), Error>,
) -> Result<Undone, Error> {
    ledger::sweep(root)?;
    let ledger = Ledger::load(root)?;
    if ledger.is_empty() {
        return Ok(Undone::default());
    }
    let undone = put_all_back(root, &ledger, step)?;
    if !undone.still_wired.is_empty() {
        return Ok(undone);
    }
    step("clear the record")?;
    let folder = ledger::folder(root)?;
    // The directories outside of the ledger's own first: the record must outlive them.
    for directory in ledger.directories.iter().rev() {
        if !folder.starts_with(directory) {
            step("remove a directory")?;
            remove_directory(root, directory)?;
        }
    }
    step("remove the record")?;
    ledger::remove_folder(root, &ledger.directories)?;
    Ok(undone)
}

/// Puts every file back as [`uninstall`] does, and keeps the record: where something else has to be done before it is
/// forgotten, a run that is killed meanwhile is finished by the next.
///
/// # Errors
/// As [`uninstall`].
pub fn restore(root: &Root) -> Result<Undone, Error> {
    put_all_back(root, &Ledger::load(root)?, &mut |_| Ok(()))
}

fn put_all_back(
    root: &Root,
    ledger: &Ledger,
    step: &mut dyn FnMut(&str) -> Result<(), Error>,
) -> Result<Undone, Error> {
    let mut undone = Undone::default();
    for (path, entry) in in_order(ledger) {
        if !entry.wiring && !undone.still_wired.is_empty() {
            break;
        }
        step("put an old file back")?;
        undo(root, path, entry, &mut undone)?;
    }
    Ok(undone)
}

/// Puts back only the files that lead kubelet to the shim. The shim and its sockets stay, for the kubelet
/// that still runs with the old settings.
///
/// # Errors
/// As [`uninstall`].
pub fn unwire(root: &Root) -> Result<Undone, Error> {
    let ledger = Ledger::load(root)?;
    let mut undone = Undone::default();
    for (path, entry) in in_order(&ledger).filter(|(_, entry)| entry.wiring) {
        undo(root, path, entry, &mut undone)?;
    }
    Ok(undone)
}

/// Puts one file back, and notes what came of it.
fn undo(root: &Root, path: &Path, entry: &Entry, undone: &mut Undone) -> Result<(), Error> {
    let back = put_back(root, path, entry)?;
    // What stood there before may lead to the shim as well: an edit, or what the Go program's kubelet dialled. That one
    // serves it then.
    if entry.wiring
        && leads_to_the_shim(root, path)?
        && (matches!(back, Back::Edited) || !brings_back_the_predecessor(root)?)
    {
        undone.still_wired.push(path.to_owned());
    }
    match back {
        Back::Restored => undone.restored.push(path.to_owned()),
        Back::Already => {}
        Back::Edited => undone.left.push(path.to_owned()),
    }
    Ok(())
}

/// Whether anything was installed here, and not undone.
///
/// # Errors
/// When the record can't be read.
pub fn is_installed(root: &Root) -> Result<bool, Error> {
    Ok(!Ledger::load(root)?.is_empty())
}

/// Whether a file names the shim's socket.
fn leads_to_the_shim(root: &Root, path: &Path) -> Result<bool, Error> {
    Ok(names_the_shim(&read(root, path)?))
}

fn names_the_shim(state: &State) -> bool {
    match state {
        State::File { content, .. } => content
            .windows(crate::LINK.len())
            .any(|window| window == crate::LINK.as_bytes()),
        State::Absent | State::Link { .. } => false,
    }
}

/// What came of putting one file back.
enum Back {
    Restored,
    Already,
    Edited,
}

fn put_back(root: &Root, path: &Path, entry: &Entry) -> Result<Back, Error> {
    let place = root.on_host(path);
    file::sweep(&place).map_err(|e| Error::at("remove a temporary file beside", path, e))?;
    let current = read(root, path)?;
    if !entry.is_ours(&current) {
        return Ok(if is_before(entry, &current) {
            Back::Already
        } else {
            Back::Edited
        });
    }
    put(root, path, &before(root, entry)?)?;
    Ok(Back::Restored)
}

fn is_before(entry: &Entry, current: &State) -> bool {
    match (&entry.before, current) {
        (None, State::Absent) => true,
        (Some(saved), current) => saved.matches(current),
        (None, _) => false,
    }
}

/// What stood there before the first run.
fn before(root: &Root, entry: &Entry) -> Result<State, Error> {
    match &entry.before {
        Some(saved) => saved.restore(root),
        None => Ok(State::Absent),
    }
}

/// What `file` makes of `current`.
fn resulting(file: &Wanted, current: &State) -> State {
    match &file.content {
        Content::Link(target) => State::Link {
            target: target.clone(),
        },
        Content::File { bytes, mode } => State::File {
            content: bytes.clone(),
            attributes: match current {
                State::File { attributes, .. } => Attributes {
                    // A program of ours must stay one.
                    mode: attributes.mode | (mode & 0o111),
                    ..attributes.clone()
                },
                State::Absent | State::Link { .. } => Attributes {
                    mode: *mode,
                    uid: rustix::process::geteuid().as_raw(),
                    gid: rustix::process::getegid().as_raw(),
                    ..Attributes::default()
                },
            },
        },
    }
}

/// Makes `path` what `state` says, in one step.
fn put(root: &Root, path: &Path, state: &State) -> Result<(), Error> {
    let place = root.on_host(path);
    match state {
        State::Absent => file::remove(&place).map_err(|e| Error::at("remove", path, e)),
        State::Link { target } => {
            file::put_link(&place, target).map_err(|e| Error::at("make the symbolic link", path, e))
        }
        State::File {
            content,
            attributes,
        } => file::put(&place, content, attributes).map_err(|e| Error::at("write", path, e)),
    }
}

/// Whether nothing is to be done for `file`.
fn is_done(file: &Wanted, known: Option<&Entry>, current: &State) -> bool {
    if *current == State::Absent {
        return false;
    }
    // Somebody's own is left alone, unless it is ours from an earlier run and was not edited.
    let somebodys = known.is_none_or(|entry| !entry.is_ours(current));
    let wanted = file.content.digest();
    (file.keep_existing && somebodys)
        || current.digest().as_ref() == Some(&wanted)
        || known.is_some_and(|entry| entry.is_made_of(&wanted, current))
}

/// Recorded files that are not wanted any more.
fn obsolete<'l>(
    root: &Root,
    ledger: &'l Ledger,
    wanted: &[Wanted],
) -> Result<Vec<(&'l PathBuf, &'l Entry)>, Error> {
    let mut kept = BTreeSet::new();
    for file in wanted {
        kept.insert(place_of(root, file)?);
    }
    Ok(ledger
        .files
        .iter()
        .filter(|(path, _)| !kept.contains(*path))
        .collect())
}

/// Wiring first, so that no kubelet is led to what is about to go.
fn in_order(ledger: &Ledger) -> impl Iterator<Item = (&PathBuf, &Entry)> {
    let wiring = ledger.files.iter().filter(|(_, entry)| entry.wiring);
    let rest = ledger.files.iter().filter(|(_, entry)| !entry.wiring);
    wiring.chain(rest)
}

fn remove_directory(root: &Root, directory: &Path) -> Result<(), Error> {
    match fs::remove_dir(root.on_host(directory)) {
        Ok(()) => Ok(()),
        // In use by others now, or gone.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(Error::at("remove the directory", directory, error)),
    }
}

/// Where a file really stands. A link of ours is itself, whatever stands there now; a file that is reached
/// by somebody's link is changed where it is.
fn place_of(root: &Root, file: &Wanted) -> Result<PathBuf, Error> {
    let resolved = match (&file.content, file.path.parent(), file.path.file_name()) {
        (Content::Link(_), Some(folder), Some(name)) => {
            root.canonical(folder).map(|folder| folder.join(name))
        }
        _ => root.canonical(&file.path),
    };
    resolved.map_err(|e| Error::at("follow the links of", &file.path, e))
}

fn read(root: &Root, path: &Path) -> Result<State, Error> {
    State::read(&root.on_host(path)).map_err(|e| Error::at("read", path, e))
}

#[cfg(test)]
mod tests;
