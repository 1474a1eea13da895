//! What is in a folder, and what is put there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// Every file below `root`, at any depth.
pub fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    Ok(found)
}

/// All that is below `root`, to be compared with itself later: the content of files, the target of links, and
/// that there is a folder.
pub fn snapshot(root: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            let content = if metadata.is_dir() {
                folders.push(path.clone());
                b"a directory".to_vec()
            } else if metadata.is_symlink() {
                fs::read_link(&path)?.into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path)?
            };
            all.insert(path, content);
        }
    }
    Ok(all)
}

/// Puts a file with this mode into `tree`, with the folders above it. `path` is what it is called there, with a slash
/// before it or without.
///
/// # Panics
/// It can't be written.
pub fn put(tree: &Path, path: &str, text: &str, mode: u32) {
    let place = tree.join(path.trim_start_matches('/'));
    let folder = place.parent().unwrap_or(tree);
    fs::create_dir_all(folder).unwrap();
    fs::write(&place, text).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
}
