//! Image names, read as the `distribution/reference` grammar reads them.
//!
//! A [`Reference`] keeps the text it came from and knows its parts by position, so printing it gives
//! back exactly what was written. What is host and what is repository follows `splitDockerDomain`:
//! the part before the first `/` is a host when it holds a `.` or `:`, is `localhost`, or has an
//! upper-case letter (`Foo/bar` has the host `Foo`).

use std::fmt;

use thiserror::Error;

use crate::host::{canonical_host, is_domain};

const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_NAMESPACE: &str = "library";
const DEFAULT_TAG: &str = "latest";
/// `distribution/reference`: `RepositoryNameTotalLengthMax`.
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

/// `[host[:port]/]repository[:tag][@digest]`, as written and as understood.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    written: String,
    /// Canonical `host[:port]`: `docker.io` where none was written.
    domain: String,
    /// Canonical repository: with `library/` on Docker Hub where there was no namespace.
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
    /// Where the host ends in `written`; `None` when no host was written.
    remainder_at: Option<usize>,
}

/// Why a name is not a reference. Each says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// Nothing was given.
    #[error("the image name is empty")]
    Empty,
    /// 64 hex digits are an image ID, not a name.
    #[error("`{0}` is an image ID, not a name")]
    ImageId(String),
    /// The host is not a host.
    #[error("`{0}` is not a valid registry host; write `host[:port]`, an IPv6 address in brackets")]
    Domain(String),
    /// Upper case in the repository.
    #[error("repository name `{0}` has upper-case letters; write `{lower}`", lower = .0.to_ascii_lowercase())]
    UpperCase(String),
    /// A character or separator that a repository can't have.
    #[error(
        "`{0}` is not a valid repository name; it may hold lower-case letters, digits and, between them, `.`, `_`, `__`, `-` and `/`"
    )]
    Repository(String),
    /// The repository is longer than 255 characters.
    #[error("the repository name has {0} characters; {MAX_REPOSITORY} are allowed")]
    TooLong(usize),
    /// The tag is empty, too long, or has a character that tags can't have.
    #[error(
        "`{0}` is not a valid tag; it may hold letters, digits, `_`, `.` and `-`, starts with neither `.` nor `-`, and is at most {MAX_TAG} characters long"
    )]
    Tag(String),
    /// The digest is not `algorithm:hex` of the right length.
    #[error("`{0}` is not a valid digest; write `sha256:` and 64 lower-case hex digits")]
    Digest(String),
}

impl Reference {
    /// Parses a name.
    ///
    /// # Errors
    /// [`ReferenceError`] says which part is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if is_image_id(text) {
            return Err(ReferenceError::ImageId(text.to_owned()));
        }
        let (name_and_tag, digest) = match text.split_once('@') {
            Some((name, digest)) if is_digest(digest) => (name, Some(digest)),
            Some((_, digest)) => return Err(ReferenceError::Digest(digest.to_owned())),
            None => (text, None),
        };
        let (host, remainder) = split_domain(name_and_tag);
        if let Some(host) = host
            && !is_domain(host)
        {
            return Err(ReferenceError::Domain(host.to_owned()));
        }
        let (path, tag) = match remainder.rsplit_once(':') {
            Some((path, tag)) if is_tag(tag) => (path, Some(tag)),
            Some((_, tag)) => return Err(ReferenceError::Tag(tag.to_owned())),
            None => (remainder, None),
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) && is_repository(&path.to_ascii_lowercase())
        {
            return Err(ReferenceError::UpperCase(path.to_owned()));
        }
        if !is_repository(path) {
            return Err(ReferenceError::Repository(path.to_owned()));
        }
        let domain = canonical_host(host.unwrap_or(DEFAULT_DOMAIN)).to_owned();
        let repository = if domain == DEFAULT_DOMAIN && !path.contains('/') {
            format!("{DEFAULT_NAMESPACE}/{path}")
        } else {
            path.to_owned()
        };
        if repository.len() > MAX_REPOSITORY {
            return Err(ReferenceError::TooLong(repository.len()));
        }
        Ok(Self {
            written: text.to_owned(),
            domain,
            repository,
            tag: tag.map(ToOwned::to_owned),
            digest: digest.map(ToOwned::to_owned),
            remainder_at: host.map(|host| host.len() + 1),
        })
    }

    /// The text it was parsed from, unchanged.
    pub fn as_written(&self) -> &str {
        &self.written
    }

    /// What was written after the host, or all of it where no host was written; with tag and digest.
    pub fn written_remainder(&self) -> &str {
        self.remainder_at
            .and_then(|at| self.written.get(at..))
            .unwrap_or(&self.written)
    }

    /// Whether no host was written. What such a name means is the runtime's to say (rule 6).
    pub fn is_short(&self) -> bool {
        self.remainder_at.is_none()
    }

    /// The repository as it was written: without host, tag and digest, and without the `library/` that
    /// canonicalising adds.
    pub fn written_repository(&self) -> &str {
        let remainder = self.written_remainder();
        let name = remainder.split('@').next().unwrap_or(remainder);
        name.rsplit_once(':').map_or(name, |(path, _tag)| path)
    }

    /// Canonical `host[:port]`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Canonical repository, without host, tag and digest.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, where one was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, where one was written.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What a manifest is asked for by: the digest, else the tag, else `latest`.
    pub fn manifest(&self) -> &str {
        self.digest().or_else(|| self.tag()).unwrap_or(DEFAULT_TAG)
    }

    /// `:tag`, `@digest` or both, with `:latest` where neither was written.
    pub fn suffix(&self) -> String {
        match (&self.tag, &self.digest) {
            (Some(tag), Some(digest)) => format!(":{tag}@{digest}"),
            (Some(tag), None) => format!(":{tag}"),
            (None, Some(digest)) => format!("@{digest}"),
            (None, None) => format!(":{DEFAULT_TAG}"),
        }
    }

    /// The one name that all spellings of this image share: default host, namespace and tag filled in.
    pub fn canonical(&self) -> String {
        format!("{}/{}{}", self.domain, self.repository, self.suffix())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reference({:?})", self.written)
    }
}

/// Whether `text` is an image ID as the CRI uses it: 64 hex digits, with or without `sha256:`.
pub fn is_image_id(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// `splitDockerDomain` of `distribution/reference`.
fn split_domain(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(char::is_uppercase) =>
        {
            (Some(first), rest)
        }
        _ => (None, name),
    }
}

/// `path-component *("/" path-component)`.
pub(crate) fn is_repository(text: &str) -> bool {
    text.split('/').all(is_path_component)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_fit = bytes.first().copied().is_some_and(alphanumeric)
        && bytes.last().copied().is_some_and(alphanumeric);
    ends_fit
        && bytes
            .split(|b| alphanumeric(*b))
            .all(|separator| match separator {
                [] | b"." | b"_" | b"__" => true,
                dashes => dashes.iter().all(|b| *b == b'-'),
            })
}

/// `[\w][\w.-]{0,127}`.
fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// A digest whose algorithm is registered (OCI image-spec, descriptor, "Registered algorithms") and
/// whose hex has that algorithm's length.
fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return false;
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
