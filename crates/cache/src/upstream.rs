//! Where content comes from that is not in the store: the places of the plan, and what they answer.
//!
//! The pull-through side asks through [`Upstream`]; the registry client is behind it in the released
//! binary, and fakes with the faults of the real world are in tests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use policy::{CredentialChoice, Credentials, Endpoint, TlsOptions};

use crate::digest::Digest;
use crate::name::Repository;

/// One place of the plan that may have a repository.
#[derive(Clone, Debug)]
pub struct Place {
    /// `host[:port]/repository` there, with the scheme: what a tag remembers it by. No secrets.
    pub name: String,
    /// Where it answers.
    pub endpoint: Endpoint,
    /// The repository's name there.
    pub repository: String,
    /// Whose credentials it gets.
    pub credentials: CredentialChoice,
    /// How its certificate is checked.
    pub tls: TlsOptions,
    /// How early it is asked; higher is earlier. The origin comes last.
    pub priority: u32,
}

impl Place {
    /// Whether it is asked with the caller's credentials, where he has some.
    pub fn is_callers(&self) -> bool {
        self.credentials == CredentialChoice::Callers
    }
}

/// On whose behalf a place is asked.
#[derive(Clone, Default)]
pub struct Asker {
    /// What the client sent; it goes only to places with [`CredentialChoice::Callers`].
    pub credentials: Option<Credentials>,
    /// The caches that the request has come through already, nearest last.
    pub via: Arc<[String]>,
}

impl Asker {
    /// Nobody in particular: the config's credentials, or none.
    pub fn nobody(via: Arc<[String]>) -> Self {
        Self {
            credentials: None,
            via,
        }
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker")
            .field("credentials", &self.credentials.is_some())
            .field("via", &self.via)
            .finish()
    }
}

/// Why a place has not given what it was asked for. The texts are one line, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// 404: it works and does not have it.
    NotFound,
    /// 401 or 403 after all that could be tried.
    Refused(String),
    /// 429.
    RateLimited(Option<Duration>),
    /// It gave no answer in time: refused, DNS, TLS, silence.
    Silent(String),
    /// It answered wrongly: 5xx, a web page, other bytes than asked for.
    Wrong(String),
    /// The blob that it has ends before the byte that was asked for.
    Shorter(String),
    /// 508: the question has come back to us, so this place is no candidate.
    Circle,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("does not have it (404)"),
            Self::Refused(detail) => write!(f, "refused: {detail}"),
            Self::RateLimited(Some(wait)) => {
                write!(
                    f,
                    "too many requests (429), asks to wait {}s",
                    wait.as_secs()
                )
            }
            Self::RateLimited(None) => f.write_str("too many requests (429)"),
            Self::Silent(detail) => write!(f, "no answer: {detail}"),
            Self::Wrong(detail) => write!(f, "answered wrongly: {detail}"),
            Self::Shorter(detail) => write!(f, "has less of it than is here already: {detail}"),
            Self::Circle => f.write_str("asks us itself (508)"),
        }
    }
}

/// Every place that was asked, and why it did not help.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures(pub Vec<(String, Failure)>);

impl Failures {
    /// Notes what a place has answered; only its last answer is kept.
    pub fn note(&mut self, place: &str, failure: Failure) {
        match self.0.iter_mut().find(|(name, _)| name == place) {
            Some((_, known)) => *known = failure,
            None => self.0.push((place.to_owned(), failure)),
        }
    }

    /// Notes what others have noted.
    pub fn note_all(&mut self, others: Self) {
        for (place, failure) in others.0 {
            self.note(&place, failure);
        }
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the config leaves no place to ask");
        }
        for (at, (place, failure)) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{place} {failure}")?;
        }
        Ok(())
    }
}

/// What a HEAD of a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The digest.
    pub digest: Digest,
    /// A `Warning` of a cache above us.
    pub warning: Option<String>,
}

/// A manifest as it came; not yet verified.
#[derive(Clone, Debug)]
pub struct ManifestBody {
    /// Its bytes.
    pub content: Bytes,
    /// Its media type, without parameters.
    pub media_type: Option<String>,
    /// The digest that the header named.
    pub digest: Option<Digest>,
    /// A `Warning` of a cache above us.
    pub warning: Option<String>,
}

/// A blob that has begun to arrive; not yet verified.
pub struct BlobBody {
    /// The offset that the body begins at: 0 where the place does not know ranges.
    pub start: u64,
    /// Whether it is the part that was asked for (206), and not the whole blob (200).
    pub is_part: bool,
    /// The length of the whole blob, where the place said it.
    pub total: Option<u64>,
    /// The digest that the header named.
    pub digest: Option<Digest>,
    /// The bytes. An error is one line.
    pub body: BoxStream<'static, Result<Bytes, String>>,
}

impl fmt::Debug for BlobBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobBody")
            .field("start", &self.start)
            .field("is_part", &self.is_part)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

/// A list as it came.
#[derive(Clone, Debug)]
pub struct ListBody {
    /// JSON.
    pub content: Bytes,
    /// Its media type, without parameters.
    pub media_type: Option<String>,
    /// The query of the next page, where there is one.
    pub next: Option<String>,
    /// `OCI-Filters-Applied`.
    pub filters: Option<String>,
}

/// A list of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum List {
    /// `tags/list`.
    Tags,
    /// `referrers/<digest>`.
    Referrers(Digest),
}

/// Answers questions about content elsewhere. Every call ends within bounded time, but for a body.
pub trait Upstream: Send + Sync + 'static {
    /// The places that may have a repository, best first. Empty where the config allows none.
    fn places(&self, repository: &Repository) -> Vec<Place>;

    /// Whether the config names a host: what `host-port` in a path is read by.
    fn is_configured(&self, host: &str) -> bool;

    /// Why a place is not worth asking now: its circuit is open.
    fn is_silent(&self, place: &Place) -> Option<String>;

    /// Whether a place has a manifest.
    fn head_manifest<'a>(
        &'a self,
        place: &'a Place,
        manifest: &'a str,
        asker: &'a Asker,
    ) -> BoxFuture<'a, Result<Described, Failure>>;

    /// A manifest.
    fn get_manifest<'a>(
        &'a self,
        place: &'a Place,
        manifest: &'a str,
        asker: &'a Asker,
    ) -> BoxFuture<'a, Result<ManifestBody, Failure>>;

    /// Whether a place has a blob, and its length where it says so.
    fn head_blob<'a>(
        &'a self,
        place: &'a Place,
        digest: &'a Digest,
        asker: &'a Asker,
    ) -> BoxFuture<'a, Result<Option<u64>, Failure>>;

    /// A blob from byte `from`, to byte `to` (not included) where that is given.
    fn get_blob<'a>(
        &'a self,
        place: &'a Place,
        digest: &'a Digest,
        from: u64,
        to: Option<u64>,
        asker: &'a Asker,
    ) -> BoxFuture<'a, Result<BlobBody, Failure>>;

    /// A list; `query` is passed on.
    fn get_list<'a>(
        &'a self,
        place: &'a Place,
        list: &'a List,
        query: Option<&'a str>,
        asker: &'a Asker,
    ) -> BoxFuture<'a, Result<ListBody, Failure>>;
}
