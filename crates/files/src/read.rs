//! Reading one file.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::OnePerKey;

/// How long [`read`] waits for a file system.
pub const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// What a read came to, so that several can have it.
type Outcome = Result<Vec<u8>, (io::ErrorKind, String)>;

/// What is said of a file system that is gone.
const SILENT: &str = "its file system does not answer";

/// Files that were read: path and text of each.
pub type Texts = Vec<(PathBuf, String)>;

type FolderKey = (PathBuf, u64, &'static [&'static str]);

static FOLDER_READS: LazyLock<OnePerKey<FolderKey, Result<Texts, String>>> =
    LazyLock::new(OnePerKey::default);

static READS: LazyLock<OnePerKey<(PathBuf, u64), Outcome>> = LazyLock::new(OnePerKey::default);

/// Reads a regular file of at most `limit` bytes. Blocks the thread for as long as its file system takes:
/// see [`read`] and [`OnePerKey`]. A pipe, a device or a folder is refused without being waited for.
///
/// # Errors
/// It can't be opened or read, is no regular file, or is longer.
pub fn read_regular(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is longer than {limit} bytes"),
        ));
    }
    Ok(bytes)
}

/// The first `limit` bytes of a regular file, or as many as can be read before a failure. Blocks as [`read_regular`].
///
/// # Errors
/// It can't be opened, or is no regular file.
pub fn read_start(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // What was read before the failure counts.
    let _ = open_regular(path)?.take(limit).read_to_end(&mut bytes);
    Ok(bytes)
}

fn open_regular(path: &Path) -> io::Result<File> {
    // A pipe without a writer would make the opening wait; NOCTTY is for terminals.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    Ok(file)
}

/// The same as text.
///
/// # Errors
/// As [`read_regular`], or it is not UTF-8. The error never quotes it.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    as_text(read_regular(path, limit)?)
}

/// Reads a regular file as text on a thread of its own, within [`READ_TIMEOUT`]. A path that is still being
/// read from an earlier call is not read a second time.
///
/// # Errors
/// As [`read_text`], or the file system does not answer.
pub async fn read(path: &Path, limit: u64) -> io::Result<String> {
    as_text(read_bytes(path, limit).await?)
}

/// The same as bytes.
///
/// # Errors
/// As [`read_regular`], or the file system does not answer.
pub async fn read_bytes(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let of = path.to_owned();
    let work = move || read_regular(&of, limit).map_err(|error| (error.kind(), error.to_string()));
    let reading = READS.run((path.to_owned(), limit), work);
    let silent = || io::Error::new(io::ErrorKind::TimedOut, SILENT);
    let outcome = tokio::time::timeout(READ_TIMEOUT, reading)
        .await
        .map_err(|_| silent())?
        .map_err(io::Error::other)?;
    outcome.map_err(|(kind, text)| io::Error::new(kind, text))
}

/// Reads a regular file, or all files of a folder whose name ends as one of `ends`, sorted by name; folders
/// inside are passed over. On a thread of its own, within [`READ_TIMEOUT`]. `limit` is for all of them
/// together.
///
/// # Errors
/// As [`read`]; the text begins with the path that can't be read. One file that can't be read is an error
/// for all.
pub async fn read_file_or_folder(
    path: &Path,
    limit: u64,
    ends: &'static [&'static str],
) -> Result<Texts, String> {
    let of = path.to_owned();
    let work = move || all_of(&of, limit, ends);
    let reading = FOLDER_READS.run((path.to_owned(), limit, ends), work);
    match tokio::time::timeout(READ_TIMEOUT, reading).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Err(format!("{}: {error}", path.display())),
        Err(_) => Err(format!("{}: {SILENT}", path.display())),
    }
}

fn all_of(path: &Path, limit: u64, ends: &'static [&'static str]) -> Result<Texts, String> {
    let named = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let metadata = fs::metadata(path).map_err(|error| named(path, error))?;
    let paths = if metadata.is_dir() {
        wanted_in(path, ends).map_err(|error| named(path, error))?
    } else {
        vec![path.to_owned()]
    };
    let mut left = limit;
    let mut texts = Vec::new();
    for path in paths {
        let text = read_text(&path, left).map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => {
                let end = path.display();
                format!("{end}: up to and with this file there are more than {limit} bytes")
            }
            _ => named(&path, error),
        })?;
        left = left.saturating_sub(text.len() as u64);
        texts.push((path, text));
    }
    Ok(texts)
}

fn wanted_in(folder: &Path, ends: &[&str]) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_wanted = name
            .to_str()
            .is_some_and(|name| ends.iter().any(|end| name.ends_with(end)));
        if is_wanted && !entry.file_type()?.is_dir() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn as_text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_folder_is_read_as_its_files_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let read = async |name: &str, limit| {
            read_file_or_folder(&path(name), limit, &[".json", ".yaml"]).await
        };
        assert_eq!(read(".", 9).await, Ok(Vec::new()));
        std::fs::write(path("b.json"), "two").unwrap();
        std::fs::write(path("a.yaml"), "one").unwrap();
        std::fs::write(path("c.txt"), "no").unwrap();
        std::fs::create_dir(path("d.yaml")).unwrap();
        std::os::unix::fs::symlink(path("c.txt"), path("e.yaml")).unwrap();
        let texts = |names: &[(&str, &str)]| {
            let texts = names
                .iter()
                .map(|(name, text)| (path(name), (*text).to_owned()));
            Ok(texts.collect::<Vec<_>>())
        };
        let all = texts(&[("./a.yaml", "one"), ("./b.json", "two"), ("./e.yaml", "no")]);
        assert_eq!(read(".", 8).await, all);
        assert_eq!(read("c.txt", 2).await, texts(&[("c.txt", "no")]));
        for (name, limit, want) in [
            (".", 7, "e.yaml: up to and with this file"),
            ("missing", 9, "missing: No such file"),
        ] {
            let problem = read(name, limit).await.unwrap_err();
            assert!(problem.contains(want), "{problem}");
        }
        std::os::unix::fs::symlink(path("d.yaml"), path("f.yaml")).unwrap();
        let problem = read(".", 9).await.unwrap_err();
        assert!(
            problem.contains("f.yaml: it is not a regular file"),
            "{problem}"
        );
    }

    #[tokio::test]
    async fn only_regular_files_up_to_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("good"), "12345").unwrap();
        std::os::unix::fs::symlink(path("good"), path("link")).unwrap();
        std::fs::write(path("binary"), [0xff]).unwrap();
        let made = Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(made.success());
        for (name, limit, want) in [
            ("good", 5, Ok("12345")),
            ("link", 5, Ok("12345")),
            ("good", 4, Err("it is longer than 4 bytes")),
            ("binary", 5, Err("it is not UTF-8")),
            ("pipe", 5, Err("it is not a regular file")),
            (".", 5, Err("it is not a regular file")),
        ] {
            let found = read_text(&path(name), limit).map_err(|error| error.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), want, "{name}");
            let found = read(&path(name), limit)
                .await
                .map_err(|error| error.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), want, "{name}");
        }
        let missing = read(&path("missing"), 5).await.unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let device = read_text(Path::new("/dev/zero"), 5).unwrap_err();
        assert_eq!(device.to_string(), "it is not a regular file");
    }
}
