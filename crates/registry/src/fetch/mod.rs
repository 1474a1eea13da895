//! Reading a repository: manifests with their bodies, blobs as they arrive, lists of tags and of
//! referrers. What it means that an answer is not good is the same as for a probe.

mod blob;
mod opened;
mod page;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, RANGE, VIA, WARNING};
use http::{HeaderMap, HeaderValue, Method};

pub use self::blob::{Blob, BlobSize};
use self::opened::Opened;
pub use self::page::{Page, PageRequest};
use crate::auth::Scope;
use crate::exchange::{Call, Exchange, Shared};
use crate::http::encoding::{IDENTITY, is_not_encoded};
use crate::http::status::{Answerer, refusal};
use crate::http::transport::drain;
use crate::manifest::{
    MANIFEST_TYPES, MAX_MANIFEST, as_digest, content_digest, digest_of, is_json_object,
    is_manifest_type, media_type, refuses_head, same_digest,
};
use crate::outcome::{Cause, ExchangeError};
use crate::progress::Progress;
use crate::registry::{ApiPath, Registry};

/// Warnings that are handed on of one answer, and their longest text.
const MAX_WARNINGS: usize = 4;
const MAX_WARNING: usize = 512;

/// How a repository is read.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// From the call until the headers of the answer: queue, token, redirects, both schemes. Default
    /// 30 s, as containerd has it.
    pub answer_timeout: Duration,
    /// How long a body may send nothing. Default 20 s.
    pub idle_timeout: Duration,
    /// `Via` of every request: whoever asked us, and we. Registries that ask each other find their
    /// circles by it. Default: none.
    pub via: Option<HeaderValue>,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            answer_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(20),
            via: None,
        }
    }
}

/// A repository of one registry, to be read. Made by [`crate::Client::repository`]; cheap to clone.
#[derive(Clone)]
pub struct Repository {
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    name: Arc<str>,
    options: FetchOptions,
}

/// A manifest that is what was asked for: its bytes have its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// As it was sent.
    pub body: Bytes,
    /// Of these bytes, by the algorithm that was asked for; sha256 for a tag.
    pub digest: String,
    /// Without parameters; empty where the registry names none.
    pub media_type: String,
    /// `Warning` headers, as those of a cache that answers with something stale. Bounded.
    pub warnings: Vec<HeaderValue>,
}

/// What a registry says about a manifest that it does not send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// As the registry names it. `None` where it names none, or none that is one.
    pub digest: Option<String>,
    /// Without parameters; empty where the registry names none.
    pub media_type: String,
    /// Its length, where the registry names it.
    pub size: Option<u64>,
    /// As [`Manifest::warnings`].
    pub warnings: Vec<HeaderValue>,
}

impl Repository {
    pub(crate) fn new(
        shared: Arc<Shared>,
        registry: Registry,
        name: &str,
        options: FetchOptions,
    ) -> Self {
        Self {
            shared,
            registry: Arc::new(registry),
            name: name.into(),
            options,
        }
    }

    /// Asks by HEAD what a tag or digest stands for. A registry that refuses HEAD is asked by GET.
    ///
    /// # Errors
    /// [`ExchangeError`], as for a probe; another digest than was asked for is
    /// [`crate::Failure::ImageFailed`].
    pub async fn head_manifest(&self, reference: &str) -> Result<ManifestHead, ExchangeError> {
        let head = self.call(Method::HEAD, ["manifests", reference], MANIFEST_TYPES);
        let opened = match self.open(head).await {
            Err(error) if error.status.is_some_and(refuses_head) => {
                let manifest = self.manifest(reference).await?;
                return Ok(ManifestHead {
                    digest: Some(manifest.digest),
                    media_type: manifest.media_type,
                    size: Some(manifest.body.len() as u64),
                    warnings: manifest.warnings,
                });
            }
            opened => opened?,
        };
        let headers = &opened.headers;
        let named = content_digest(headers);
        same_digest(as_digest(reference), named.as_deref())?;
        let media_type = media_type(headers);
        is_manifest_type(&media_type)?;
        Ok(ManifestHead {
            digest: named,
            media_type,
            size: length(headers),
            warnings: warnings(headers),
        })
    }

    /// Fetches a manifest by tag or digest, at most [`MAX_MANIFEST`] bytes of it.
    ///
    /// # Errors
    /// [`ExchangeError`], as for a probe; bytes that have not the digest that was asked for, or that the
    /// registry names beside them, are [`crate::Failure::ImageFailed`].
    pub async fn manifest(&self, reference: &str) -> Result<Manifest, ExchangeError> {
        let get = self.call(Method::GET, ["manifests", reference], MANIFEST_TYPES);
        let opened = self.open(get).await?;
        let headers = opened.headers.clone();
        let media_type = media_type(&headers);
        is_manifest_type(&media_type)?;
        let body = self.whole_body(opened).await?;
        is_json_object(&body)?;
        let named = content_digest(&headers);
        let algorithm = as_digest(reference).or(named.as_deref());
        let digest = digest_of(&body, algorithm);
        same_digest(as_digest(reference), Some(&digest))?;
        same_digest(named.as_deref(), Some(&digest_of(&body, named.as_deref())))?;
        Ok(Manifest {
            digest: match as_digest(reference) {
                Some(_) => digest,
                None => digest_of(&body, None),
            },
            body,
            media_type,
            warnings: warnings(&headers),
        })
    }

    /// Whether the repository has a blob, and how long it is. A registry that refuses HEAD, or hides
    /// from it what it gives to GET, is asked for one byte.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn head_blob(&self, digest: &str) -> Result<BlobSize, ExchangeError> {
        let head = self.call(Method::HEAD, ["blobs", digest], "*/*");
        match self.open(head).await {
            Ok(opened) => Ok(BlobSize {
                size: length(&opened.headers),
            }),
            // 403: a storage host's URL that is signed for GET only. 404: Harbor's proxy projects.
            Err(error)
                if error
                    .status
                    .is_some_and(|s| refuses_head(s) || s == 403 || s == 404) =>
            {
                let blob = self.blob(digest, 0, Some(0)).await?;
                Ok(BlobSize { size: blob.size })
            }
            Err(error) => Err(error),
        }
    }

    /// Begins to fetch a blob from byte `first` on, up to and with byte `last` where one is given. The
    /// bytes are handed out as they come and are not verified: no part of a blob has its digest.
    ///
    /// A source without ranges sends the blob from its beginning: see [`Blob::start`].
    ///
    /// # Errors
    /// [`ExchangeError`]; an answer with another range than was asked for is
    /// [`crate::Failure::ImageFailed`].
    pub async fn blob(
        &self,
        digest: &str,
        first: u64,
        last: Option<u64>,
    ) -> Result<Blob, ExchangeError> {
        let mut get = self.call(Method::GET, ["blobs", digest], "*/*");
        let range = match last {
            Some(last) => Some(format!("bytes={first}-{last}")),
            None if first > 0 => Some(format!("bytes={first}-")),
            None => None,
        };
        if let Some(range) = range.and_then(|range| HeaderValue::try_from(range).ok()) {
            get.headers.insert(RANGE, range);
        }
        let opened = self.open(get).await?;
        Blob::new(opened, first, last, self.options.idle_timeout)
    }

    /// One page of the list of tags.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn tags(&self, request: &PageRequest) -> Result<Page, ExchangeError> {
        let mut get = self.call(Method::GET, ["tags", "list"], "application/json");
        get.path = get.path.with_query(request.pairs());
        self.page(get).await
    }

    /// One page of the index of what refers to a manifest. A registry that knows no referrers answers
    /// 404, and may keep an index under the tag that [`referrers_tag`] names.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn referrers(
        &self,
        digest: &str,
        request: &PageRequest,
    ) -> Result<Page, ExchangeError> {
        let accept = "application/vnd.oci.image.index.v1+json, application/json";
        let mut get = self.call(Method::GET, ["referrers", digest], accept);
        get.path = get.path.with_query(request.pairs());
        self.page(get).await
    }

    async fn page(&self, get: Call) -> Result<Page, ExchangeError> {
        let opened = self.open(get).await?;
        let headers = opened.headers.clone();
        let body = self.whole_body(opened).await?;
        is_json_object(&body)?;
        Ok(Page::new(&headers, body, warnings(&headers)))
    }

    fn call<'r>(
        &self,
        method: Method,
        rest: impl IntoIterator<Item = &'r str>,
        accept: &'static str,
    ) -> Call {
        let accept = HeaderValue::from_static(accept);
        let mut headers = HeaderMap::from_iter([(ACCEPT, accept), (ACCEPT_ENCODING, IDENTITY)]);
        if let Some(via) = &self.options.via {
            headers.insert(VIA, via.clone());
        }
        let rest: Vec<&str> = rest.into_iter().collect();
        Call {
            method,
            path: ApiPath::of_repository(&self.name, rest),
            headers,
            body: None,
            scope: Some(Scope::pull(&self.name)),
            follow: true,
        }
    }

    /// Sends a call and waits for a 2xx.
    async fn open(&self, call: Call) -> Result<Opened, ExchangeError> {
        let progress = Progress::new();
        let deadline = self.options.answer_timeout;
        let asked = async {
            let mut exchange =
                Exchange::begin(&self.shared, &self.registry, &progress, deadline).await?;
            let received = Box::pin(exchange.send(&call)).await?;
            let status = received.response.status().as_u16();
            let headers = received.response.headers().clone();
            if matches!(status, 200 | 206) {
                is_not_encoded(status, &headers)?;
                return Ok(Opened {
                    received,
                    status,
                    headers,
                });
            }
            let answerer = Answerer::of(received.left_origin);
            drain(received.response).await;
            Err(refusal(status, &headers, answerer, SystemTime::now()))
        };
        let opened = tokio::time::timeout(deadline, asked).await;
        opened
            .unwrap_or_else(|_| Err(progress.cut_short(deadline, self.shared.slots_each)))
            .map_err(|error| ExchangeError {
                detail: progress.with_notes(error.detail),
                ..error
            })
    }

    /// Reads a body that is bounded to [`MAX_MANIFEST`].
    async fn whole_body(&self, opened: Opened) -> Result<Bytes, ExchangeError> {
        let mut body = Blob::new(opened, 0, None, self.options.idle_timeout)?;
        let mut whole = Vec::new();
        let too_long = || {
            ExchangeError::image_failed(
                Cause::Protocol,
                Some(200),
                format!(
                    "answered with more than {MAX_MANIFEST} bytes, which no manifest or list has"
                ),
            )
        };
        if body
            .length
            .is_some_and(|length| length > MAX_MANIFEST as u64)
        {
            return Err(too_long());
        }
        while let Some(chunk) = body.chunk().await? {
            if whole.len() + chunk.len() > MAX_MANIFEST {
                return Err(too_long());
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.into())
    }
}

/// The tag under which registries without the referrers API keep the index of what refers to `digest`
/// (OCI distribution spec, "referrers tag schema"): the algorithm and the digits, each cut to a length.
pub fn referrers_tag(digest: &str) -> String {
    let (algorithm, encoded) = digest.split_once(':').unwrap_or((digest, ""));
    let cut = |text: &str, length: usize| -> String {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let all = text.chars().take(length);
        all.map(|c| if is_allowed(c) { c } else { '-' }).collect()
    };
    format!("{}-{}", cut(algorithm, 32), cut(encoded, 64))
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn warnings(headers: &HeaderMap) -> Vec<HeaderValue> {
    let all = headers.get_all(WARNING).into_iter();
    all.filter(|value| value.len() <= MAX_WARNING)
        .take(MAX_WARNINGS)
        .cloned()
        .collect()
}
