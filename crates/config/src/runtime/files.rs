//! Reading the runtime's files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// More than any real config of a runtime.
const MAX_FILE: u64 = 1024 * 1024;

/// A path and the text of that file.
pub(super) type Text = (String, String);

/// Reads files below a root, and notes which can't be read.
pub(super) struct Texts<'a> {
    root: &'a Path,
    problems: Vec<String>,
}

impl<'a> Texts<'a> {
    pub(super) fn new(root: &'a Path) -> Self {
        Self {
            root,
            problems: Vec::new(),
        }
    }

    pub(super) fn into_problems(self) -> Vec<String> {
        self.problems
    }

    /// A file; None where there is none.
    pub(super) fn one(&mut self, path: &str) -> Option<Text> {
        self.read(self.root.join(path))
    }

    /// A file, and what ends in `end` in the folder of the same name with `.d`, sorted by name.
    pub(super) fn with_drop_ins(&mut self, path: &str, end: &str) -> Vec<Text> {
        let mut texts: Vec<Text> = self.one(path).into_iter().collect();
        for name in self.names(&format!("{path}.d")) {
            if name.ends_with(end) {
                texts.extend(self.one(&format!("{path}.d/{name}")));
            }
        }
        texts
    }

    /// The names of the folders in a folder.
    pub(super) fn folders(&mut self, path: &str) -> Vec<String> {
        let folder = self.root.join(path);
        let mut names = self.names(path);
        names.retain(|name| folder.join(name).is_dir());
        names
    }

    /// What is in a folder, sorted; nothing where there is none.
    fn names(&mut self, path: &str) -> Vec<String> {
        let folder = self.root.join(path);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                self.note(&folder, &error);
                return Vec::new();
            }
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    fn read(&mut self, path: PathBuf) -> Option<Text> {
        match text(&path) {
            Ok(text) => Some((path.display().to_string(), text?)),
            Err(error) => {
                self.note(&path, &error);
                None
            }
        }
    }

    fn note(&mut self, path: &Path, error: &io::Error) {
        if error.kind() != io::ErrorKind::NotFound {
            let line = format!(
                "{} can't be read, so it is passed over: {error}",
                path.display()
            );
            self.problems.push(line);
        }
    }
}

/// The text of a regular file; None for a folder, or for what would make a reader wait.
fn text(path: &Path) -> io::Result<Option<String>> {
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let mut text = String::new();
    File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "longer than 1 MiB",
        ));
    }
    Ok(Some(text))
}

pub(super) fn borrowed(texts: &[Text]) -> Vec<(&str, &str)> {
    texts.iter().map(borrowed_one).collect()
}

pub(super) fn borrowed_one((path, text): &Text) -> (&str, &str) {
    (path, text)
}
