//! What one entry of the index says.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::manifest::{Child, Kind, Parsed};
use crate::name::Repository;

/// A blob that is in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its length in bytes.
    pub size: u64,
    /// What it is.
    pub kind: Kind,
    /// A manifest's media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What a manifest refers to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Child>,
    /// What a manifest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
}

impl Object {
    pub(super) fn new(size: u64, manifest: Option<&Parsed>) -> Self {
        Self {
            size,
            kind: manifest.map_or(Kind::Blob, |_| Kind::Manifest),
            media_type: manifest.map(|parsed| parsed.media_type.clone()),
            children: manifest.map_or_else(Vec::new, |parsed| parsed.children.clone()),
            subject: manifest.and_then(|parsed| parsed.subject.clone()),
        }
    }
}

/// A tag of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagName {
    /// Where.
    pub repository: Repository,
    /// Which.
    pub tag: String,
}

impl TagName {
    pub(super) fn key(&self) -> String {
        self.to_string()
    }

    pub(super) fn from_key(key: &str) -> Option<Self> {
        let (name, tag) = key.rsplit_once(':')?;
        let (host, path) = name.split_once('/')?;
        Some(Self {
            repository: Repository::new(host, path).ok()?,
            tag: tag.to_owned(),
        })
    }
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

/// What a tag means. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// The manifest that it names.
    pub digest: Digest,
    /// The place that it came from, without credentials.
    pub place: String,
    /// When that place, or another one with the same digest, confirmed it last.
    pub validated_at: u64,
    /// Since when its place has been silent, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_since: Option<u64>,
    /// It was imported from a file, not pulled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imported: bool,
}

/// That an object belongs to a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// As what.
    pub kind: Kind,
    /// Where it came from, without credentials.
    pub place: String,
    /// The config's credentials, or nobody's, have opened it there: every client may have it. What was
    /// linked before this was noted is nobody's, until a place has been asked about it again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// It was imported from a file: everybody may have it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imported: bool,
}

impl Link {
    /// Whether every client may have it, without proving anything.
    pub fn is_everybodys(&self) -> bool {
        self.open || self.imported
    }

    /// What is to be noted when a place has given what is known already; None where that changes nothing.
    /// One caller's right takes nobody else's away, and what was imported stays everybody's.
    pub(super) fn and_now(&self, new: &Self) -> Option<Self> {
        let rank = |link: &Self| (link.imported, link.open);
        let is_better = rank(new) > rank(self);
        // Two places that ask each for a proof of its own: the last one that was proved to.
        let has_moved = !self.is_everybodys() && !new.is_everybodys() && new.place != self.place;
        // What is known to be a manifest stays one when its bytes come as a blob too.
        let kind = match self.kind {
            Kind::Manifest => Kind::Manifest,
            Kind::Blob => new.kind,
        };
        let after = match is_better || has_moved {
            true => new,
            false => self,
        };
        let after = Self {
            kind,
            ..after.clone()
        };
        (after != *self).then_some(after)
    }
}

/// Why an image is never evicted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The manifest that the name meant when it was pinned.
    pub digest: Digest,
}
