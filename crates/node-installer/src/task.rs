//! What every node shall have.

use std::fmt;

use sha2::{Digest, Sha256};

/// One change that is wanted on every node. Two installers with the same [`Task::id`] want the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    id: String,
    words: String,
}

impl Task {
    /// A task in `words`, such as `install 0.1.0`. Everything that it depends on is one of `parts`: program, config,
    /// options.
    pub fn new(words: &str, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        hash.update(words);
        for part in parts {
            // With the length, so that no two lists of parts look the same.
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        Self {
            // The first twelve digits.
            id: format!("{:.12x}", hash.finalize()),
            words: words.to_owned(),
        }
    }

    /// A short name of it, which may stand in the name of an annotation.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.words, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_in_anything_is_another_task() {
        let of = |parts: &[&[u8]]| Task::new("install 0.1.0", parts);
        let one = of(&[b"program", b"config"]);
        assert_eq!(one, of(&[b"program", b"config"]));
        for other in [
            of(&[b"program", b"config2"]),
            of(&[b"programc", b"onfig"]),
            of(&[b"program", b"config", b""]),
            Task::new("uninstall 0.1.0", &[b"program", b"config"]),
        ] {
            assert_ne!(one.id(), other.id());
        }
        assert_eq!(one.id().len(), 12);
        assert_eq!(one.to_string(), format!("install 0.1.0 ({})", one.id()));
    }
}
