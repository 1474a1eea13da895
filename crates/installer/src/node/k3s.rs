//! Which k3s this is. It stands in its program alone, which is not run for it: a tree may be another machine's.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use super::Unit;
use crate::flags;
use crate::root::Root;

/// What follows the version of Kubernetes in k3s's own: `v1.28.3+k3s1`.
const MARK: &[u8] = b"+k3s";
/// The longest version before the mark.
const LONGEST: usize = 16;
/// How much of the program is looked at in one piece.
const PIECE: usize = 1024 * 1024;

/// A version of Kubernetes that k3s has inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    /// Whether its kubelet takes an image service from k3s's config.
    pub(crate) fn has_image_service_endpoint(self) -> bool {
        let first_patch = match (self.major, self.minor) {
            (1, 25) => 15,
            (1, 26) => 10,
            (1, 27) => 7,
            (1, 28) => 3,
            (major, minor) => return (major, minor) > (1, 28),
        };
        self.patch >= first_patch
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The version of the k3s that `unit` starts: the newest that stands in its program. `None` where none does.
///
/// # Errors
/// The program is there and can't be read.
pub(crate) fn version(root: &Root, unit: &Unit) -> io::Result<Option<Version>> {
    let starts = unit.values("ExecStart");
    let words = flags::words(starts.last().copied().unwrap_or_default());
    let Some(program) = words.first() else {
        return Ok(None);
    };
    match File::open(root.resolve(program)?) {
        Ok(file) => newest(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn newest(mut program: impl Read) -> io::Result<Option<Version>> {
    let mut newest = None;
    let mut piece = Vec::with_capacity(PIECE + LONGEST);
    loop {
        let read = program
            .by_ref()
            .take(PIECE as u64)
            .read_to_end(&mut piece)?;
        if read == 0 {
            return Ok(newest);
        }
        for at in 0..piece.len().saturating_sub(MARK.len() - 1) {
            if piece[at..].starts_with(MARK) {
                newest = newest.max(before(&piece[..at]));
            }
        }
        // A version may stand on both sides of the cut.
        piece.drain(..piece.len().saturating_sub(LONGEST + MARK.len()));
    }
}

/// `v1.28.3` at the end of `text`.
fn before(text: &[u8]) -> Option<Version> {
    let text = &text[text.len().saturating_sub(LONGEST)..];
    let start = text.iter().rposition(|byte| *byte == b'v')?;
    let text = std::str::from_utf8(&text[start + 1..]).ok()?;
    let mut parts = text.split('.').map(str::parse);
    let mut next = || parts.next()?.ok();
    let version = Version {
        major: next()?,
        minor: next()?,
        patch: next()?,
    };
    parts.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &[u8]) -> Option<String> {
        newest(text).unwrap().map(|version| version.to_string())
    }

    #[test]
    fn it_is_found_in_a_program_wherever_it_stands() {
        assert_eq!(of(b""), None);
        assert_eq!(of(b"+k3s v1.28+k3s1 v1.x.3+k3s1 1.28.3-k3s1"), None);
        assert_eq!(of(b"\0\xffv1.28.3+k3s1\0"), Some("1.28.3".to_owned()));
        let two = b"v1.9.0+k3s1 v1.30.2+k3s2 v1.28.3+k3s1";
        assert_eq!(of(two), Some("1.30.2".to_owned()));
        for shift in 0..24 {
            let mut program = vec![b'x'; PIECE - shift];
            program.extend(b"v1.27.10+k3s2");
            program.extend(vec![0; PIECE]);
            assert_eq!(of(&program), Some("1.27.10".to_owned()), "{shift}");
        }
    }

    #[test]
    fn the_first_patch_of_each_minor() {
        for (version, has) in [
            ("v1.24.17", false),
            ("v1.25.14", false),
            ("v1.25.15", true),
            ("v1.26.9", false),
            ("v1.26.10", true),
            ("v1.27.6", false),
            ("v1.27.7", true),
            ("v1.28.2", false),
            ("v1.28.3", true),
            ("v1.29.0", true),
            ("v2.0.0", true),
        ] {
            let version = before(version.as_bytes()).unwrap();
            assert_eq!(version.has_image_service_endpoint(), has, "{version}");
        }
    }
}
