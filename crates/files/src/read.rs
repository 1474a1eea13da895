//! Reading one file.

use std::fs::File;
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
    let silent = || io::Error::new(io::ErrorKind::TimedOut, "its file system does not answer");
    let outcome = tokio::time::timeout(READ_TIMEOUT, reading)
        .await
        .map_err(|_| silent())?
        .map_err(io::Error::other)?;
    outcome.map_err(|(kind, text)| io::Error::new(kind, text))
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
