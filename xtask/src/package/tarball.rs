//! Tar archives, and the one that is unpacked by hand.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

use super::Release;
use super::place::{Family, gzipped_at, placed};

/// An archive in which everything belongs to root and has one date.
pub(super) struct Archive {
    builder: Builder<Vec<u8>>,
    date: u32,
    folders: BTreeSet<String>,
}

impl Archive {
    pub(super) fn new(date: u32) -> Self {
        Self {
            builder: Builder::new(Vec::new()),
            date,
            folders: BTreeSet::new(),
        }
    }

    /// Adds a file, after the folders above it.
    pub(super) fn file(&mut self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let mut above = path;
        let mut missing = Vec::new();
        while let Some((folder, _)) = above.rsplit_once('/') {
            missing.push(folder.to_owned());
            above = folder;
        }
        for folder in missing.into_iter().rev() {
            if self.folders.insert(folder.clone()) {
                self.entry(EntryType::Directory, &format!("{folder}/"), &[], 0o755)?;
            }
        }
        self.entry(EntryType::Regular, path, bytes, mode)
    }

    fn entry(&mut self, kind: EntryType, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        header.set_mtime(u64::from(self.date));
        header.set_uid(0);
        header.set_gid(0);
        header.set_username("root")?;
        header.set_groupname("root")?;
        self.builder
            .append_data(&mut header, path, bytes)
            .with_context(|| format!("packing {path}"))
    }

    pub(super) fn bytes(self) -> Result<Vec<u8>> {
        Ok(self.builder.into_inner()?)
    }
}

/// The tarball: one folder with everything.
pub(super) fn write(release: &Release) -> Result<Vec<u8>> {
    let mut archive = Archive::new(release.date);
    let folder = release.tarball_folder();
    for (path, file) in placed(&release.contents, Family::Archive)? {
        archive.file(&format!("{folder}/{path}"), &file.bytes, file.mode)?;
    }
    gzipped_at(&archive.bytes()?, release.gzip())
}
