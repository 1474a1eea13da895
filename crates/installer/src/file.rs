//! One file as it stands: content, mode, owner and extended attributes; read whole, and put in place
//! in one step.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Bits of a mode that belong to permissions, set-user-ID and the like included.
const PERMISSIONS: u32 = 0o7777;

/// Who may do what with a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes by name, SELinux's label and ACLs included.
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// What stands at a path.
#[derive(Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Absent,
    /// A regular file.
    File {
        /// Its bytes. They may hold a password: this type has no printed form of them.
        content: Vec<u8>,
        /// Its mode, owner and extended attributes.
        attributes: Attributes,
    },
    /// A symbolic link.
    Link {
        /// What it points to, as written.
        target: PathBuf,
    },
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("Absent"),
            Self::File {
                content,
                attributes,
            } => f
                .debug_struct("File")
                .field("bytes", &content.len())
                .field("attributes", attributes)
                .finish(),
            Self::Link { target } => f.debug_tuple("Link").field(target).finish(),
        }
    }
}

impl State {
    /// Reads what stands at `place`. No link is followed.
    ///
    /// # Errors
    /// When it can't be read, or is neither a regular file nor a symbolic link.
    pub fn read(place: &Path) -> io::Result<Self> {
        let metadata = match fs::symlink_metadata(place) {
            Ok(metadata) => metadata,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(Self::Absent);
            }
            Err(error) => return Err(error),
        };
        if metadata.is_symlink() {
            return Ok(Self::Link {
                target: fs::read_link(place)?,
            });
        }
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        Ok(Self::File {
            content: fs::read(place)?,
            attributes: Attributes {
                mode: metadata.mode() & PERMISSIONS,
                uid: metadata.uid(),
                gid: metadata.gid(),
                xattrs: xattrs(place)?,
            },
        })
    }

    /// SHA-256 in hex of the content, or of the text that stands for a link's target; `None` where nothing
    /// stands.
    pub fn digest(&self) -> Option<String> {
        match self {
            Self::Absent => None,
            Self::File { content, .. } => Some(digest(content)),
            Self::Link { target } => Some(link_digest(target)),
        }
    }
}

/// SHA-256 in hex.
pub(crate) fn digest(content: &[u8]) -> String {
    format!("{:x}", Sha256::digest(content))
}

/// A digest for a link that no file's content has by accident.
pub(crate) fn link_digest(target: &Path) -> String {
    let mut text = b"symbolic link to ".to_vec();
    text.extend_from_slice(target.as_os_str().as_bytes());
    text.push(0);
    digest(&text)
}

/// Makes `place` a symbolic link to `target`, in one step.
///
/// # Errors
/// When the link can't be made or renamed. What stood there is untouched then.
pub(crate) fn put_link(place: &Path, target: &Path) -> io::Result<()> {
    let temporary = temporary(place);
    remove_if_there(&temporary)?;
    std::os::unix::fs::symlink(target, &temporary)?;
    fs::rename(&temporary, place)?;
    File::open(place.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Makes `place` hold `content` with `attributes`, in one step: who looks sees the old file or the
/// new one, whole, also after a power cut.
///
/// # Errors
/// When the file can't be written or renamed. The old file is untouched then.
pub(crate) fn put(place: &Path, content: &[u8], attributes: &Attributes) -> io::Result<()> {
    let folder = place.parent().unwrap_or(Path::new("/"));
    let temporary = temporary(place);
    // Left by a run that was killed; its name is ours.
    remove_if_there(&temporary)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        // Nobody else reads a credential before the owner and mode are right.
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    fchown(&file, Some(attributes.uid), Some(attributes.gid))?;
    file.set_permissions(fs::Permissions::from_mode(attributes.mode))?;
    for (name, value) in &attributes.xattrs {
        rustix::fs::fsetxattr(
            &file,
            name.as_bytes(),
            value,
            rustix::fs::XattrFlags::empty(),
        )?;
    }
    file.sync_all()?;
    fs::rename(&temporary, place)?;
    File::open(folder)?.sync_all()
}

/// Removes `place`, durably. Nothing there is no error.
///
/// # Errors
/// When it can't be removed.
pub(crate) fn remove(place: &Path) -> io::Result<()> {
    remove_if_there(&temporary(place))?;
    remove_if_there(place)?;
    match place.parent().map(File::open) {
        Some(Ok(folder)) => folder.sync_all(),
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what a killed [`put`] has left beside `place`.
///
/// # Errors
/// When it can't be removed.
pub(crate) fn sweep(place: &Path) -> io::Result<()> {
    remove_if_there(&temporary(place))
}

fn remove_if_there(place: &Path) -> io::Result<()> {
    match fs::remove_file(place) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

fn temporary(place: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(place.file_name().unwrap_or(OsStr::new("file")));
    name.push(".image-cri-shim.tmp");
    place.with_file_name(name)
}

/// Extended attributes; none where the file system has no such thing.
fn xattrs(place: &Path) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let mut names = vec![0; 64 * 1024];
    let length = match rustix::fs::llistxattr(place, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = BTreeMap::new();
    for name in names
        .get(..length)
        .unwrap_or_default()
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0; 64 * 1024];
        let length = match rustix::fs::lgetxattr(place, name, &mut value) {
            Ok(length) => length,
            // Gone meanwhile.
            Err(rustix::io::Errno::NODATA) => continue,
            Err(error) => return Err(error.into()),
        };
        value.truncate(length);
        found.insert(OsString::from_vec(name.to_vec()), value);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_put_back_to_mode_owner_and_attributes() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("kubelet");
        fs::write(&place, "old").unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o4751)).unwrap();
        rustix::fs::lsetxattr(
            &place,
            "user.note",
            b"kept",
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        let before = State::read(&place).unwrap();
        let State::File {
            content,
            attributes,
        } = &before
        else {
            panic!("{before:?}");
        };
        assert_eq!(attributes.mode, 0o4751);
        put(&place, b"new", &Attributes::default()).unwrap();
        assert_ne!(State::read(&place).unwrap(), before);
        put(&place, content, attributes).unwrap();
        assert_eq!(State::read(&place).unwrap(), before);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_run_left_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a");
        fs::write(temporary(&place), "half").unwrap();
        put(&place, b"whole", &Attributes::default()).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"whole");
        fs::write(temporary(&place), "half").unwrap();
        remove(&place).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(State::read(&dir.path().join("a/b")).unwrap(), State::Absent);
    }
}
