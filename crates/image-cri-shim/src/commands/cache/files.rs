//! The files that images come from and go to. We open them, and the cache, which may open next to nothing,
//! gets them handed over.

use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use ::cache::layout;
use anyhow::{Context, bail};

use super::args::CacheCommand;

/// Standard input or output.
const DASH: &str = "-";

/// Links that one path may go through, as Linux limits them.
const MAX_LINKS: usize = 40;

/// The file of a command, where it has one.
#[derive(Default)]
pub(super) struct AttachedFile {
    file: Option<OwnedFd>,
    target: Option<Target>,
    /// What is read, for people.
    source: Option<String>,
    packer: Option<JoinHandle<io::Result<()>>>,
}

enum Target {
    Stdout,
    /// Gets its name when it is whole.
    File(Unfinished),
}

struct Unfinished {
    part: PathBuf,
    name: PathBuf,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Where it has its name nothing is here any more.
        let _ = fs::remove_file(&self.part);
    }
}

impl AttachedFile {
    /// Opens what the command names.
    ///
    /// # Errors
    /// It can't be opened.
    pub(super) fn of(command: &CacheCommand) -> anyhow::Result<Self> {
        match command {
            CacheCommand::Export { output, .. } => Self::to(output),
            CacheCommand::Import { layout, .. } => Self::from(layout),
            _ => Ok(Self::default()),
        }
    }

    fn to(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new(DASH) {
            let stdout = io::stdout();
            if stdout.is_terminal() {
                bail!("an archive is not for a terminal; write it to a file or into a pipe");
            }
            return Ok(Self {
                file: Some(stdout.as_fd().try_clone_to_owned()?),
                target: Some(Target::Stdout),
                ..Self::default()
            });
        }
        let name = place_of(path)?;
        let mut part = name
            .file_name()
            .with_context(|| format!("{} names no file", path.display()))?
            .to_owned();
        part.push(".part");
        let part = name.with_file_name(part);
        // One that a killed run has left is used anew. Anything else there is not ours.
        if fs::symlink_metadata(&part).is_ok_and(|there| !there.is_file()) {
            bail!(
                "cannot write {}: it is no regular file; move it, or name another file",
                part.display()
            );
        }
        let file = File::create(&part);
        let file = file.with_context(|| format!("cannot write {}", part.display()))?;
        let unfinished = Unfinished { part, name };
        if let Ok(old) = fs::metadata(&unfinished.name) {
            // Images may be private: who could not read the old file can't read the new one.
            file.set_permissions(old.permissions())
                .with_context(|| format!("cannot write {}", unfinished.part.display()))?;
        }
        Ok(Self {
            file: Some(file.into()),
            target: Some(Target::File(unfinished)),
            ..Self::default()
        })
    }

    fn from(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot read {}", path.display());
        if path == Path::new(DASH) {
            let stdin = io::stdin();
            if stdin.is_terminal() {
                bail!("name the layout, or pipe it in");
            }
            return Ok(Self {
                file: Some(stdin.as_fd().try_clone_to_owned()?),
                source: Some("standard input".to_owned()),
                ..Self::default()
            });
        }
        let source = Some(path.display().to_string());
        let file = File::open(path).with_context(cannot)?;
        if !file.metadata().with_context(cannot)?.is_dir() {
            return Ok(Self {
                file: Some(file.into()),
                source,
                ..Self::default()
            });
        }
        if !path.join("oci-layout").exists() {
            bail!(
                "{} is no OCI image layout: it has no file oci-layout",
                path.display()
            );
        }
        let (reader, writer) = io::pipe().with_context(cannot)?;
        let directory = path.to_owned();
        Ok(Self {
            file: Some(reader.into()),
            packer: Some(std::thread::spawn(move || layout::pack(&directory, writer))),
            source,
            target: None,
        })
    }

    /// What images are read from, for what is said about it.
    pub(super) fn source(&self) -> Option<String> {
        self.source.clone()
    }

    /// Whether standard output gets the result.
    pub(super) fn is_stdout(&self) -> bool {
        matches!(self.target, Some(Target::Stdout))
    }

    /// What is handed over.
    pub(super) fn take(&mut self) -> Option<OwnedFd> {
        self.file.take()
    }

    /// The command has ended; `done` where all of it could be done.
    ///
    /// # Errors
    /// A directory could not be read, or the file not be finished.
    pub(super) fn finish(self, done: bool) -> anyhow::Result<()> {
        let packed = self.packer.map(JoinHandle::join);
        if let Some(Ok(Err(error))) = packed
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(error).context("reading the layout");
        }
        if let (Some(Target::File(unfinished)), true) = (&self.target, done) {
            let Unfinished { part, name } = unfinished;
            let cannot = || format!("cannot finish {}", name.display());
            File::open(part)
                .and_then(|file| file.sync_all())
                .with_context(cannot)?;
            fs::rename(part, name).with_context(cannot)?;
        }
        Ok(())
    }
}

/// Where an archive that is to be called `path` is put: where links lead.
///
/// # Errors
/// Something else than a regular file is there. It would be gone after the file got its name.
fn place_of(path: &Path) -> anyhow::Result<PathBuf> {
    let cannot = || format!("cannot write {}", path.display());
    match fs::metadata(path) {
        Ok(there) if there.is_file() => return fs::canonicalize(path).with_context(cannot),
        Ok(there) => bail!(
            "cannot write {}: it is {}; name a file, or write to standard output with `-o -`",
            path.display(),
            kind_of(there.file_type())
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(cannot),
    }
    // A link may lead to where no file is yet.
    let mut place = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&place) {
            Ok(target) => place = place.with_file_name("").join(target),
            Err(_) => return Ok(place),
        }
    }
    bail!("{}: too many symbolic links", cannot())
}

fn kind_of(kind: fs::FileType) -> &'static str {
    match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;

    use super::*;

    fn written(path: &Path) -> anyhow::Result<()> {
        let mut attached = AttachedFile::to(path)?;
        let mut file = File::from(attached.take().unwrap());
        io::Write::write_all(&mut file, b"archive")?;
        attached.finish(true)
    }

    fn made(program: &str, args: &[&str], path: &Path) {
        let mut command = Command::new(program);
        let made = command.arg(path).args(args).status().unwrap();
        assert!(made.success(), "{program} {}", path.display());
    }

    #[test]
    fn what_is_no_regular_file_stays_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        made("mkfifo", &[], &path("pipe"));
        // What /dev/null is.
        made("mknod", &["c", "1", "3"], &path("null"));
        fs::create_dir(path("directory")).unwrap();
        symlink("null", path("link")).unwrap();
        for (name, kind) in [
            ("pipe", "a pipe"),
            ("null", "a device"),
            ("link", "a device"),
            ("directory", "a directory"),
        ] {
            let error = written(&path(name)).unwrap_err().to_string();
            assert!(error.contains(kind) && error.contains("`-o -`"), "{error}");
        }
        let is = |name: &str| fs::symlink_metadata(path(name)).unwrap().file_type();
        assert!(is("pipe").is_fifo() && is("null").is_char_device() && is("link").is_symlink());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_link_stays_one_and_its_target_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("other")).unwrap();
        symlink("other/stick.tar", path("second")).unwrap();
        symlink("second", path("first")).unwrap();
        for _ in ["a new file", "an old one"] {
            written(&path("first")).unwrap();
            assert!(path("first").is_symlink() && path("second").is_symlink());
            assert_eq!(fs::read(path("other/stick.tar")).unwrap(), b"archive");
            assert_eq!(fs::read_dir(path("other")).unwrap().count(), 1);
            fs::write(path("other/stick.tar"), "old").unwrap();
        }
        symlink("circle", path("circle")).unwrap();
        assert!(written(&path("circle")).is_err());
    }

    #[test]
    fn an_old_file_s_mode_is_kept_and_what_is_in_the_way_of_the_part_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("a.tar"), "old").unwrap();
        fs::set_permissions(path("a.tar"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(path("a.tar.part"), "left by a run that was killed").unwrap();
        written(&path("a.tar")).unwrap();
        assert_eq!(fs::read(path("a.tar")).unwrap(), b"archive");
        let mode = fs::metadata(path("a.tar")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        fs::write(path("theirs"), "theirs").unwrap();
        symlink("theirs", path("b.tar.part")).unwrap();
        assert!(written(&path("b.tar")).is_err());
        assert_eq!(fs::read(path("theirs")).unwrap(), b"theirs");
        assert!(path("b.tar.part").is_symlink());
    }
}
