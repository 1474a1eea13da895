//! A real registry (distribution's docker-registry) behind a proxy that records what it is asked.
//!
//! Tests see the proxy's address. It passes requests on as they come, so that the registry's own
//! authentication answers, and lets a test count them, slow them down or cut them off. TLS ends at
//! the proxy, as it does in front of most registries.

use parking_lot::{Mutex, MutexGuard};
use std::fs;
use std::future::{pending, ready};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tempfile::TempDir;

use crate::certs::ServerCert;
use crate::images::{Image, Pusher};
use crate::process::{Process, log_to, tail};
use crate::recording::{Recorded, Recording};
use crate::server::{Body, HangUp, Server, full};
use crate::tools::Tools;
use crate::wait;

/// How a registry is to be.
#[derive(Clone, Default)]
pub struct RegistryOptions {
    /// User name and password that it asks for; anybody may do anything when absent.
    pub credentials: Option<(String, String)>,
    /// The certificate to speak TLS with; plain HTTP when absent.
    pub tls: Option<ServerCert>,
    /// The registry whose images it fetches and keeps, as a pull-through proxy; nobody can push to it then.
    pub mirror_of: Option<String>,
}

/// A running registry. Dropping it ends it and deletes what it held.
pub struct DockerRegistry {
    options: RegistryOptions,
    process: Option<Process>,
    proxy: Server,
    shared: Arc<Shared>,
    /// Straight to the registry, so that pushes are neither recorded nor delayed.
    pusher: Option<Pusher>,
    /// Last, so that the process is gone when the directory goes.
    dir: TempDir,
}

/// What the proxy's handler works with.
#[derive(Default)]
struct Shared {
    recording: Recording,
    settings: Mutex<Settings>,
}

#[derive(Default)]
struct Settings {
    backend: Option<Authority>,
    delay: Duration,
    silent: bool,
    failures: Vec<(String, StatusCode)>,
    rate_limit: Option<RateLimit>,
}

/// 429 to everything, with this `Retry-After` in seconds where there is one.
#[derive(Clone, Copy)]
struct RateLimit(Option<u16>);

impl DockerRegistry {
    /// Starts a registry on a free port of 127.0.0.1, and returns when it answers.
    pub async fn start(options: RegistryOptions) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("testkit-registry-")
            .tempdir()?;
        let shared = Arc::new(Shared::default());
        let client = Client::builder(TokioExecutor::new()).build_http();
        let handler_shared = Arc::clone(&shared);
        let proxy = Server::start(
            Arc::new(move |request| {
                let (shared, client) = (Arc::clone(&handler_shared), client.clone());
                Box::pin(async move { shared.answer(&client, request).await })
            }),
            options.tls.as_ref(),
        )?;
        let mut registry = Self {
            options,
            dir,
            process: None,
            proxy,
            shared,
            pusher: None,
        };
        registry.start_backend().await?;
        Ok(registry)
    }

    /// A registry that asks nobody for anything, on plain HTTP.
    pub async fn plain() -> Result<Self> {
        Self::start(RegistryOptions::default()).await
    }

    /// A registry on plain HTTP that wants these Basic credentials for everything.
    pub async fn with_password(username: &str, password: &str) -> Result<Self> {
        let credentials = Some((username.to_owned(), password.to_owned()));
        Self::start(RegistryOptions {
            credentials,
            ..RegistryOptions::default()
        })
        .await
    }

    /// A registry that speaks TLS with this certificate.
    pub async fn with_tls(cert: &ServerCert) -> Result<Self> {
        let tls = Some(cert.clone());
        Self::start(RegistryOptions {
            tls,
            ..RegistryOptions::default()
        })
        .await
    }

    /// Where it listens, as a host in an image reference: `127.0.0.1:41234`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address().to_string()
    }

    /// Where it listens. The same for its whole life.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// Where it listens, with the scheme that it speaks: `http://127.0.0.1:41234`.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.options.tls.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address())
    }

    /// The directory that all of it is in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the registry itself listens, without the recording in between: for who measures it.
    pub fn backend(&self) -> Result<SocketAddr> {
        let backend = self.settings().backend.clone();
        let backend = backend.filter(|_| self.process.is_some());
        let backend = backend.context("the registry is stopped")?;
        Ok(backend.as_str().parse()?)
    }

    /// The registry's process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Pushes an image. Not recorded.
    pub async fn push(&self, image: &Image, repository: &str, tag: &str) -> Result<()> {
        self.pusher()?.push(image, repository, tag).await
    }

    /// For what [`DockerRegistry::push`] does not do: deleting manifests or blobs. Not recorded.
    pub fn pusher(&self) -> Result<&Pusher> {
        self.pusher.as_ref().context("the registry is stopped")
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

    /// Holds every answer back for this long: a round trip to a registry far away.
    pub fn set_delay(&self, delay: Duration) {
        self.settings().delay = delay;
    }

    /// While on, requests and new connections are taken and never answered.
    pub fn set_black_hole(&self, on: bool) {
        self.settings().silent = on;
        self.proxy.set_black_hole(on);
    }

    /// Answers requests whose path contains `part` with `status` (such as `/blobs/` with 500),
    /// until [`DockerRegistry::fail_nothing`].
    pub fn fail(&self, part: &str, status: StatusCode) {
        self.settings().failures.push((part.to_owned(), status));
    }

    /// Answers every request with 429, and with this `Retry-After` in seconds if there is one, until
    /// [`DockerRegistry::fail_nothing`].
    pub fn limit_rate(&self, retry_after: Option<u16>) {
        self.settings().rate_limit = Some(RateLimit(retry_after));
    }

    /// Takes back every [`DockerRegistry::fail`] and [`DockerRegistry::limit_rate`].
    pub fn fail_nothing(&self) {
        let mut settings = self.settings();
        settings.failures.clear();
        settings.rate_limit = None;
    }

    /// Ends it: connections break, new ones are refused. Its content and its port stay.
    pub async fn stop(&mut self) {
        self.proxy.stop().await;
        self.pusher = None;
        // Dropping kills; there is nothing in it that wants a gentle end.
        self.process = None;
    }

    /// Starts it again after [`DockerRegistry::stop`], with the same port and content.
    pub async fn start_again(&mut self) -> Result<()> {
        if self.process.is_none() {
            self.start_backend().await?;
        }
        self.proxy.listen()
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.shared.settings.lock()
    }

    async fn start_backend(&mut self) -> Result<()> {
        let tools = Tools::ensure()?;
        let (config, log) = (
            self.dir.path().join("config.yml"),
            self.dir.path().join("log"),
        );
        fs::write(&config, self.config()?)?;
        // It tells in its log which port it got.
        fs::write(&log, "")?;
        let mut process = Process::spawn(&tools.docker_registry, |command| {
            command.arg("serve").arg(&config);
            if let Err(error) = log_to(command, &log) {
                eprintln!("testkit: {error:#}");
            }
        })?;
        let listening = wait::within(wait::TIMEOUT, || {
            ready(match (listening_on(&log), process.ended()) {
                (Some(address), _) => Some(Ok(address)),
                (None, Some(status)) => Some(Err(status)),
                (None, None) => None,
            })
        });
        let backend = match listening.await {
            Some(Ok(address)) => address,
            Some(Err(status)) => bail!("docker-registry ended with {status}:\n{}", tail(&log)),
            None => bail!("docker-registry does not listen:\n{}", tail(&log)),
        };
        let credentials = self.options.credentials.as_ref();
        let credentials = credentials.map(|(user, password)| (user.as_str(), password.as_str()));
        self.pusher = Some(Pusher::new(
            &format!("http://{backend}"),
            credentials,
            None,
        )?);
        self.settings().backend = Some(backend.parse()?);
        self.process = Some(process);
        Ok(())
    }

    /// The registry's configuration file. JSON is YAML.
    fn config(&self) -> Result<String> {
        let dir = self.dir.path();
        let mut config = serde_json::json!({
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": true}},
            "storage": {
                "filesystem": {"rootdirectory": dir.join("data")},
                "delete": {"enabled": true},
                "maintenance": {"uploadpurging": {"enabled": false}},
            },
            // Relative URLs, because it doesn't know of the proxy's TLS.
            "http": {"addr": "127.0.0.1:0", "secret": "testkit", "relativeurls": true},
        });
        if let Some(url) = &self.options.mirror_of {
            config["proxy"] = serde_json::json!({"remoteurl": url});
        }
        if let Some((username, password)) = &self.options.credentials {
            // The lowest cost: the registry checks it with every request.
            let htpasswd = dir.join("htpasswd");
            let hash =
                bcrypt::hash_with_result(password, 4)?.format_for_version(bcrypt::Version::TwoY);
            write_private(&htpasswd, &format!("{username}:{hash}\n"))?;
            config["auth"] =
                serde_json::json!({"htpasswd": {"realm": "testkit", "path": htpasswd}});
        }
        Ok(config.to_string())
    }
}

impl Shared {
    async fn answer(
        &self,
        client: &Client<HttpConnector, Incoming>,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, HangUp> {
        let pending_request = self.recording.record(&request);
        let (backend, delay, silent, rate_limit, failure) = {
            let settings = self.settings.lock();
            let path = request.uri().path();
            let failure = settings
                .failures
                .iter()
                .find(|(part, _)| path.contains(part));
            (
                settings.backend.clone().ok_or(HangUp)?,
                settings.delay,
                settings.silent,
                settings.rate_limit,
                failure.map(|(_, status)| *status),
            )
        };
        if silent {
            pending::<()>().await;
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if let Some(RateLimit(retry_after)) = rate_limit {
            let mut response = failure_response(StatusCode::TOO_MANY_REQUESTS);
            pending_request.answered(response.status());
            if let Some(seconds) = retry_after {
                let headers = response.headers_mut();
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            return Ok(response);
        }
        if let Some(status) = failure {
            pending_request.answered(status);
            return Ok(failure_response(status));
        }
        // The Host header stays the proxy's.
        *request.uri_mut() = backend_uri(backend, request.uri().path_and_query().cloned())?;
        request.headers_mut().remove(CONNECTION);
        let response = client.request(request).await.map_err(|_| HangUp)?;
        pending_request.answered(response.status());
        Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
    }
}

fn backend_uri(backend: Authority, path: Option<PathAndQuery>) -> Result<Uri, HangUp> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(backend);
    parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    Uri::from_parts(parts).map_err(|_| HangUp)
}

fn failure_response(status: StatusCode) -> Response<Body> {
    let body = r#"{"errors":[{"code":"UNKNOWN","message":"failed on purpose"}]}"#;
    let mut response = Response::new(full(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// The address in the line `… msg="listening on 127.0.0.1:41234" …`.
fn listening_on(log: &Path) -> Option<String> {
    let log = fs::read_to_string(log).ok()?;
    let (_, rest) = log.split_once("listening on ")?;
    let (address, _) = rest.split_once('"')?;
    Some(address.to_owned())
}

fn write_private(path: &Path, content: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(content.as_bytes())?)
}
