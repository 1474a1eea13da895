//! The files that images come from and go to. We open them, and the cache, which may open next to nothing,
//! gets them handed over.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use ::cache::layout;
use anyhow::{Context, bail};

use super::args::CacheCommand;

/// Standard input or output.
const DASH: &str = "-";

/// The file of a command, where it has one.
#[derive(Default)]
pub(super) struct AttachedFile {
    file: Option<OwnedFd>,
    target: Option<Target>,
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
        let _ = std::fs::remove_file(&self.part);
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
                packer: None,
            });
        }
        let name = path.file_name();
        let mut part = name
            .with_context(|| format!("{} names no file", path.display()))?
            .to_owned();
        part.push(".part");
        let unfinished = Unfinished {
            part: path.with_file_name(part),
            name: path.to_owned(),
        };
        let file = File::create(&unfinished.part);
        let file = file.with_context(|| format!("cannot write {}", unfinished.part.display()))?;
        Ok(Self {
            file: Some(file.into()),
            target: Some(Target::File(unfinished)),
            packer: None,
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
                ..Self::default()
            });
        }
        let file = File::open(path).with_context(cannot)?;
        if !file.metadata().with_context(cannot)?.is_dir() {
            return Ok(Self {
                file: Some(file.into()),
                ..Self::default()
            });
        }
        let (reader, writer) = io::pipe().with_context(cannot)?;
        let directory = path.to_owned();
        Ok(Self {
            file: Some(reader.into()),
            packer: Some(std::thread::spawn(move || layout::pack(&directory, writer))),
            target: None,
        })
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
            std::fs::rename(part, name).with_context(cannot)?;
        }
        Ok(())
    }
}
