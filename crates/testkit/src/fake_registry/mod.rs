//! An in-process registry that can be told to misbehave, one repository or tag at a time, while it runs.
//!
//! It serves the pull side of the OCI distribution specification from memory, so that containerd can
//! pull from it. What it does in the place of a good answer is a [`Behaviour`].

mod behaviour;
mod lists;
mod token;

use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

pub use self::behaviour::Behaviour;
use self::behaviour::{error, misbehave};
pub use self::lists::Listing;
pub use self::token::{TokenOptions, TokenService};
use crate::certs::ServerCert;
use crate::images::Image;
use crate::recording::{Recorded, Recording};
use crate::server::{Body, HangUp, Server, full};

/// A running fake registry. Dropping it ends it.
pub struct FakeRegistry {
    server: Server,
    tls: bool,
    shared: Arc<Shared>,
}

/// Whom the registry lets in.
#[derive(Clone, Default)]
enum Access {
    #[default]
    Everybody,
    Basic {
        username: String,
        password: String,
    },
    Bearer(TokenService),
}

#[derive(Default)]
struct Shared {
    recording: Recording,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    access: Access,
    /// Instead of `access`, below a repository's first segment.
    access_below: HashMap<String, Access>,
    /// Instead of 401, for a token that opens nothing.
    refusal: Option<StatusCode>,
    delay: Duration,
    /// By repository and tag or digest.
    manifests: HashMap<(String, String), Image>,
    /// By digest.
    blobs: HashMap<String, Bytes>,
    everywhere: Option<Behaviour>,
    repositories: HashMap<String, Behaviour>,
    references: HashMap<(String, String), Behaviour>,
    repository_blobs: HashMap<String, Behaviour>,
    listing: Listing,
}

impl FakeRegistry {
    /// Starts an empty registry on plain HTTP, on a free port of 127.0.0.1. It has nothing (404).
    pub fn start() -> Result<Self> {
        Self::start_on(None)
    }

    /// Starts an empty registry that speaks TLS with this certificate.
    pub fn start_tls(cert: &ServerCert) -> Result<Self> {
        Self::start_on(Some(cert))
    }

    fn start_on(cert: Option<&ServerCert>) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let handler = Arc::clone(&shared);
        let server = Server::start(
            Arc::new(move |request| {
                let shared = Arc::clone(&handler);
                Box::pin(async move { shared.answer(request).await })
            }),
            cert,
        )?;
        Ok(Self {
            server,
            tls: cert.is_some(),
            shared,
        })
    }

    /// Where it listens, as a host in an image reference: `127.0.0.1:41234`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address().to_string()
    }

    /// Where it listens. The same for its whole life.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Where it listens, with the scheme that it speaks.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    /// Has an image, by tag and by digest.
    pub fn add(&self, image: &Image, repository: &str, tag: &str) {
        let mut state = self.state();
        let mut add = |image: &Image, reference: &str| {
            let key = (repository.to_owned(), reference.to_owned());
            state.manifests.insert(key, image.clone());
            for blob in &image.blobs {
                let (digest, content) = (blob.digest.clone(), blob.content.clone());
                state.blobs.insert(digest, content);
            }
        };
        for image in std::iter::once(image).chain(&image.children) {
            add(image, &image.manifest_digest);
        }
        add(image, tag);
    }

    /// No longer has a tag.
    pub fn remove(&self, repository: &str, tag: &str) {
        let key = (repository.to_owned(), tag.to_owned());
        self.state().manifests.remove(&key);
    }

    /// What it does with any request that has no more specific behaviour.
    pub fn behave(&self, behaviour: Behaviour) {
        self.state().everywhere = Some(behaviour);
    }

    /// What it does with requests for the manifests of one repository.
    pub fn behave_for(&self, repository: &str, behaviour: Behaviour) {
        let mut state = self.state();
        state.repositories.insert(repository.to_owned(), behaviour);
    }

    /// What it does with requests for one tag or digest of one repository.
    pub fn behave_for_tag(&self, repository: &str, tag: &str, behaviour: Behaviour) {
        let key = (repository.to_owned(), tag.to_owned());
        self.state().references.insert(key, behaviour);
    }

    /// What it does with requests for the blobs of one repository.
    pub fn behave_for_blobs(&self, repository: &str, behaviour: Behaviour) {
        let mut state = self.state();
        state
            .repository_blobs
            .insert(repository.to_owned(), behaviour);
    }

    /// Behaves well again, whatever it was told before. Who is let in stays.
    pub fn behave_well(&self) {
        let mut state = self.state();
        state.everywhere = None;
        state.repositories.clear();
        state.references.clear();
        state.repository_blobs.clear();
    }

    /// How it lists tags and referrers.
    pub fn list_by(&self, listing: Listing) {
        self.state().listing = listing;
    }

    /// Wants these Basic credentials for everything.
    pub fn require_basic(&self, username: &str, password: &str) {
        self.state().access = Access::Basic {
            username: username.to_owned(),
            password: password.to_owned(),
        };
    }

    /// Wants a token of this service for everything.
    pub fn require_token(&self, service: &TokenService) {
        self.state().access = Access::Bearer(service.clone());
    }

    /// Wants a token of this service for the repositories whose first segment this is.
    pub fn require_token_below(&self, segment: &str, service: &TokenService) {
        let access = Access::Bearer(service.clone());
        self.state().access_below.insert(segment.to_owned(), access);
    }

    /// Answers with this status, and no challenge, to a token that opens nothing. Without a token there is a challenge.
    pub fn refuse_unknown_tokens_with(&self, status: StatusCode) {
        self.state().refusal = Some(status);
    }

    /// Lets everybody in.
    pub fn require_nothing(&self) {
        self.state().access = Access::Everybody;
    }

    /// Holds every answer back for this long: a round trip to a registry far away.
    pub fn set_delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// While on, new connections are accepted and never answered, not even by a TLS handshake, and
    /// requests on old ones neither.
    pub fn set_black_hole(&self, on: bool) {
        self.server.set_black_hole(on);
        self.state().everywhere = on.then_some(Behaviour::BlackHole);
    }

    /// Closes every connection and refuses new ones. Its port stays its own.
    pub async fn stop(&mut self) {
        self.server.stop().await;
    }

    /// Listens again after [`FakeRegistry::stop`], on the same port.
    pub fn start_again(&mut self) -> Result<()> {
        self.server.listen()
    }

    /// What it was asked.
    #[must_use]
    pub fn recording(&self) -> &Recording {
        &self.shared.recording
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.recording().all()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock()
    }
}

/// What a request asks for.
enum Target<'a> {
    /// `/v2/`: whether this is a registry, and whether one is let in.
    Api,
    Manifest(&'a str, &'a str),
    Blob(&'a str, &'a str),
    Tags(&'a str),
    Referrers(&'a str, &'a str),
    Unknown,
}

impl<'a> Target<'a> {
    fn parse(path: &'a str) -> Self {
        let Some(rest) = path.strip_prefix("/v2/") else {
            return Self::Unknown;
        };
        if rest.is_empty() {
            return Self::Api;
        }
        if let Some((repository, reference)) = rest.rsplit_once("/manifests/") {
            return Self::Manifest(repository, reference);
        }
        if let Some(repository) = rest.strip_suffix("/tags/list") {
            return Self::Tags(repository);
        }
        if let Some((repository, digest)) = rest.rsplit_once("/referrers/") {
            return Self::Referrers(repository, digest);
        }
        match rest.rsplit_once("/blobs/") {
            Some((repository, digest)) => Self::Blob(repository, digest),
            None => Self::Unknown,
        }
    }
}

impl State {
    fn behaviour(&self, target: &Target<'_>) -> Behaviour {
        let specific = match *target {
            Target::Manifest(repository, reference) => {
                let key = (repository.to_owned(), reference.to_owned());
                let by_reference = self.references.get(&key);
                by_reference.or_else(|| self.repositories.get(repository))
            }
            Target::Blob(repository, _) => self.repository_blobs.get(repository),
            Target::Api | Target::Tags(_) | Target::Referrers(..) | Target::Unknown => None,
        };
        let behaviour = specific.or(self.everywhere.as_ref());
        behaviour.cloned().unwrap_or_default()
    }

    /// The challenge for whoever is not let in.
    fn refused(&self, target: &Target<'_>, authorization: Option<&str>) -> Option<String> {
        let repository = match *target {
            Target::Manifest(repository, _)
            | Target::Blob(repository, _)
            | Target::Tags(repository)
            | Target::Referrers(repository, _) => Some(repository),
            Target::Api | Target::Unknown => None,
        };
        let below = repository.and_then(|repository| repository.split('/').next());
        let below = below.and_then(|segment| self.access_below.get(segment));
        match below.unwrap_or(&self.access) {
            Access::Everybody => None,
            Access::Basic { username, password } => {
                let wanted = token::basic(username, password);
                (authorization != Some(wanted.as_str()))
                    .then(|| r#"Basic realm="fake registry""#.to_owned())
            }
            Access::Bearer(service) => {
                let scope = repository.map(|repository| format!("repository:{repository}:pull"));
                let token = authorization.and_then(|value| value.strip_prefix("Bearer "));
                service.challenge(token, scope.as_deref())
            }
        }
    }

    fn serve(&self, target: &Target<'_>, query: &str) -> Response<Body> {
        match *target {
            Target::Api => content(Bytes::from_static(b"{}"), "application/json", None),
            Target::Manifest(repository, reference) => {
                let key = (repository.to_owned(), reference.to_owned());
                match self.manifests.get(&key) {
                    Some(image) => {
                        let digest = Some(image.manifest_digest.as_str());
                        content(image.manifest.clone(), image.media_type, digest)
                    }
                    None => error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
                }
            }
            Target::Blob(_, digest) => match self.blobs.get(digest) {
                Some(blob) => content(blob.clone(), "application/octet-stream", Some(digest)),
                None => error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            },
            Target::Tags(repository) => self.tags(repository, query),
            Target::Referrers(repository, digest) => self.referrers(repository, digest, query),
            Target::Unknown => error(StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
        }
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, HangUp> {
        let pending = self.recording.record(&request);
        let response = self.respond(&request).await?;
        pending.answered(response.status());
        Ok(response)
    }

    async fn respond(&self, request: &Request<Incoming>) -> Result<Response<Body>, HangUp> {
        let target = Target::parse(request.uri().path());
        let authorization = request.headers().get(http::header::AUTHORIZATION);
        let authorization = authorization.and_then(|value| value.to_str().ok());
        let (delay, refused, refusal, behaviour) = {
            let state = self.state.lock();
            let refused = state.refused(&target, authorization);
            let refusal = state.refusal.filter(|_| authorization.is_some());
            (state.delay, refused, refusal, state.behaviour(&target))
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if let Some(challenge) = refused {
            return Ok(match refusal {
                Some(status) => error(status, "DENIED"),
                None => unauthorized(&challenge),
            });
        }
        if let Some(instead) = misbehave(&behaviour, request).await? {
            return Ok(instead);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Ok(error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"));
        }
        let query = request.uri().query().unwrap_or_default();
        let mut response = self.state.lock().serve(&target, query);
        if matches!(behaviour, Behaviour::WithoutDigest) {
            response.headers_mut().remove(DOCKER_CONTENT_DIGEST);
        }
        Ok(response)
    }
}

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Answers a HEAD as well: the server leaves the body out and keeps its length.
fn content(body: Bytes, media_type: &'static str, digest: Option<&str>) -> Response<Body> {
    let mut response = Response::new(full(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    if let Some(digest) = digest.and_then(|digest| HeaderValue::from_str(digest).ok()) {
        headers.insert(DOCKER_CONTENT_DIGEST, digest);
    }
    response
}

fn unauthorized(challenge: &str) -> Response<Body> {
    let mut response = error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
    if let Ok(challenge) = HeaderValue::from_str(challenge) {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}
