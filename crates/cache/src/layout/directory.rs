//! A layout that is a directory, as the tar that it would be.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::{INDEX, MARK};

/// Writes a layout's directory as a tar, as far as it belongs to the layout.
///
/// # Errors
/// A file can't be read, or the tar can't be written.
pub fn pack(directory: &Path, to: impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(to);
    for name in [MARK, INDEX] {
        add(&mut archive, directory, Path::new(name))?;
    }
    for algorithm in sorted(&directory.join("blobs"))? {
        let folder = Path::new("blobs").join(algorithm);
        for blob in sorted(&directory.join(&folder))? {
            add(&mut archive, directory, &folder.join(blob))?;
        }
    }
    archive.into_inner()?.flush()
}

fn add(archive: &mut tar::Builder<impl Write>, directory: &Path, name: &Path) -> io::Result<()> {
    let path = directory.join(name);
    let cannot =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut file = fs::File::open(&path).map_err(cannot)?;
    archive.append_file(name, &mut file)
}

fn sorted(directory: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let cannot = |error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", directory.display()))
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(cannot)? {
        names.push(entry.map_err(cannot)?.file_name());
    }
    names.sort();
    Ok(names)
}
