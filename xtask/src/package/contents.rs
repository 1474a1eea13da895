//! What stands in every package.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::NAME;
use super::licences;
use super::program::Program;
use crate::step::root;

/// What a file is, which says where each kind of package has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Program,
    /// What units run beside the program.
    Script,
    Unit,
    Tmpfiles,
    Sysusers,
    Bash,
    Fish,
    Zsh,
    /// A man page of section 1.
    Page,
    /// What can be read, by its path in the repository.
    Doc,
    Licence,
}

/// One file.
#[derive(Clone)]
pub(super) struct File {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

impl File {
    pub(super) fn mode(&self) -> u32 {
        match self.kind {
            Kind::Program | Kind::Script => 0o755,
            _ => 0o644,
        }
    }
}

/// All files, in the order of their kinds and names.
pub(super) struct Contents {
    pub(super) files: Vec<File>,
}

impl Contents {
    /// Collects them from the repository, and from the program itself.
    pub(super) fn collect(program: &Program) -> Result<Self> {
        let mut contents = Self { files: Vec::new() };
        contents.add(Kind::Program, NAME, program.bytes.clone());
        for (kind, folder) in [
            (Kind::Script, "packaging/lib"),
            (Kind::Unit, "packaging/systemd"),
            (Kind::Tmpfiles, "packaging/tmpfiles.d"),
            (Kind::Sysusers, "packaging/sysusers.d"),
        ] {
            for (name, bytes) in folder_of(&root().join(folder))? {
                contents.add(kind, &name, bytes);
            }
        }
        for (kind, shell) in [
            (Kind::Bash, "bash"),
            (Kind::Fish, "fish"),
            (Kind::Zsh, "zsh"),
        ] {
            contents.add(kind, NAME, program.run(&["completions", shell])?);
        }
        let pages = tempfile::tempdir().context("a folder for man pages")?;
        program.run(&["man", &pages.path().display().to_string()])?;
        for (name, bytes) in folder_of(pages.path())? {
            contents.add(Kind::Page, &name, bytes);
        }
        // With everything that they link to: a node may have nothing but the package.
        for name in [
            "README.md",
            "ARCHITECTURE.md",
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "RELEASING.md",
            "SECURITY.md",
        ] {
            contents.add(Kind::Doc, name, read(&root().join(name))?);
        }
        for folder in ["docs", "examples", "deploy"] {
            for (name, bytes) in tree_of(&root().join(folder))? {
                contents.add(Kind::Doc, &format!("{folder}/{name}"), bytes);
            }
        }
        contents.add(Kind::Licence, "LICENSE", read(&root().join("LICENSE"))?);
        contents.add(
            Kind::Licence,
            "THIRD-PARTY-LICENSES",
            licences::of_others()?.into_bytes(),
        );
        contents
            .files
            .sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        Ok(contents)
    }

    fn add(&mut self, kind: Kind, name: &str, bytes: Vec<u8>) {
        self.files.push(File {
            kind,
            name: name.to_owned(),
            bytes,
        });
    }
}

/// The files of a folder, by name.
fn folder_of(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("looking into {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        files.push((name.to_string_lossy().into_owned(), read(&path)?));
    }
    ensure!(!files.is_empty(), "{} is empty", folder.display());
    files.sort();
    Ok(files)
}

/// The files of a folder and of the folders in it, by their paths below it.
fn tree_of(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        let entries =
            fs::read_dir(&inner).with_context(|| format!("looking into {}", inner.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap_or(&path);
            files.push((name.display().to_string(), read(&path)?));
        }
    }
    ensure!(!files.is_empty(), "{} is empty", folder.display());
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
