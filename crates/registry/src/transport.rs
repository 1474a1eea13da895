//! One request and its redirects, with the TLS that each host needs and credentials that stay
//! where they belong.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderValue, Method};
use tokio::sync::OnceCell;
use url::Url;

use crate::dns::SystemResolver;
use crate::failure::{Context, Failure, classify};
use crate::outcome::Cause;
use crate::progress::{Phase, Progress};
use crate::proxy::{ProxySettings, masked};
use crate::redirect::{Trail, host_of, is_redirect};
use crate::target::Target;
use crate::tls::{CertsDirs, Secured, TlsStore, Wanted};
use crate::ttl::Ttl;

/// Idle connections that are kept per host, for the next probe.
const MAX_IDLE_PER_HOST: usize = 8;
/// How long they are kept; load balancers close idle ones after 60 to 120 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Bound on connection attempts that nobody waits for any more.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An HTTP/2 connection that died silently would fail every request on it until TCP notices.
const HTTP2_PING_AFTER: Duration = Duration::from_secs(10);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Bodies up to this length are read and thrown away, so that their connection can be used again.
const MAX_DRAIN: u64 = 64 * 1024;
/// How long that may take: a short body is there with its headers, or it is not worth the wait.
const DRAIN_PATIENCE: Duration = Duration::from_millis(50);

/// The registry that a request belongs to: its TLS options are for it alone.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    wanted: Wanted,
    /// Host that answers the API.
    host: String,
    port: u16,
}

impl Home {
    pub(crate) fn of(target: &Target) -> Self {
        Self {
            wanted: Wanted::of_target(target),
            host: target.endpoint.api_host().to_owned(),
            port: target.endpoint.effective_port(),
        }
    }

    fn is_at(&self, url: &Url) -> bool {
        url.host_str() == Some(self.host.as_str()) && url.port_or_known_default() == Some(self.port)
    }
}

/// Whether a request is for the registry or for the token service it named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Registry,
    /// Trusts the registry's CAs too, as containerd does; and skips verification where the registry
    /// does, if it is the same host.
    TokenService,
}

/// A request to be sent.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) accept: &'static str,
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) home: &'a Home,
    pub(crate) role: Role,
}

/// What came back after all redirects.
pub(crate) struct Answer {
    pub(crate) response: reqwest::Response,
    /// Where the answer came from.
    pub(crate) url: Url,
    /// It came from another scheme, host or port than was asked.
    pub(crate) left_origin: bool,
}

/// Sends requests. Cheap until used.
pub(crate) struct Transport {
    tls: TlsStore,
    proxies: ProxySettings,
    plain: OnceCell<Arc<reqwest::Client>>,
}

impl Transport {
    pub(crate) fn new(
        user_agent: HeaderValue,
        dirs: CertsDirs,
        proxies: ProxySettings,
        ttl: Ttl,
    ) -> Self {
        let for_clients = proxies.clone();
        let make_client = Box::new(move |config: rustls::ClientConfig| {
            let proxies = for_clients.clone();
            reqwest::Client::builder()
                .tls_backend_preconfigured(config)
                .user_agent(user_agent.clone())
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .no_proxy()
                .proxy(reqwest::Proxy::custom(move |url| {
                    proxies.for_url(url).cloned()
                }))
                .dns_resolver(SystemResolver)
                .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(HTTP2_PING_AFTER)
                .http2_keep_alive_timeout(HTTP2_PING_TIMEOUT)
                .build()
        });
        Self {
            tls: TlsStore::new(dirs, ttl, make_client),
            proxies,
            plain: OnceCell::new(),
        }
    }

    /// Sends a request and follows its redirects. Dropping the future cancels it.
    ///
    /// # Errors
    /// [`Failure`] where there is no answer: connection, TLS, redirects that lead nowhere.
    pub(crate) async fn send(&self, ask: Ask<'_>, progress: &Progress) -> Result<Answer, Failure> {
        let mut trail = Trail::new(ask.url.clone());
        let mut url = ask.url.clone();
        loop {
            let host = host_of(&url);
            progress.enter(match ask.role {
                Role::Registry => Phase::Asking(host.clone()),
                Role::TokenService => Phase::Token(host.clone()),
            });
            let authorization = ask.authorization.as_ref().filter(|_| !trail.left_origin());
            let response = self.one_hop(&ask, &url, authorization, progress).await?;
            let status = response.status().as_u16();
            if !is_redirect(status) {
                return Ok(Answer {
                    response,
                    url,
                    left_origin: trail.left_origin(),
                });
            }
            let next = trail
                .next(status, response.headers())
                .map_err(|error| Failure::new(Cause::Redirect, error.to_string()))?;
            drain(response).await;
            if next.origin() != url.origin() {
                progress.note(format!("redirected to {}", host_of(&next)));
            }
            url = next;
        }
    }

    /// One request, asked again once if it went out on a connection that the other side was just
    /// closing: after a registry's restart every kept connection is such a one.
    async fn one_hop(
        &self,
        ask: &Ask<'_>,
        url: &Url,
        authorization: Option<&HeaderValue>,
        progress: &Progress,
    ) -> Result<reqwest::Response, Failure> {
        let secured = self.client_for(url, ask).await?;
        let mut asked_again = false;
        loop {
            let mut request = secured
                .http
                .request(ask.method.clone(), url.clone())
                .header(ACCEPT, ask.accept);
            if let Some(value) = authorization {
                request = request.header(AUTHORIZATION, value.clone());
            }
            progress.count_request();
            let error = match request.send().await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let failure = self.explain(&error, url, ask, &secured);
            if !failure.stale_connection || asked_again {
                return Err(failure);
            }
            asked_again = true;
        }
    }

    fn explain(
        &self,
        error: &reqwest::Error,
        url: &Url,
        ask: &Ask<'_>,
        secured: &Secured,
    ) -> Failure {
        let domain = Self::wanted(url, ask).domain;
        let certs_dir: Option<PathBuf> = self.tls.dirs().advice(&domain);
        classify(
            error,
            &Context {
                domain: &domain,
                proxy: self.proxies.for_url(url).map(masked),
                certs_dir: certs_dir.as_deref(),
                tls_problems: &secured.problems,
            },
        )
    }

    async fn client_for(&self, url: &Url, ask: &Ask<'_>) -> Result<Secured, Failure> {
        let client = if url.scheme() == "http" && !self.proxies.speaks_tls() {
            self.plain
                .get_or_try_init(|| async { self.tls.plain_client().map(Arc::new) })
                .await
                .map(|http| Secured {
                    http: http.clone(),
                    problems: Arc::default(),
                })
        } else {
            self.tls.client(Self::wanted(url, ask)).await
        };
        client.map_err(|error| Failure::new(Cause::Tls, error.to_string()))
    }

    /// The entry's options are for the entry's host. Every other host is checked as the system and
    /// the runtime have it.
    fn wanted(url: &Url, ask: &Ask<'_>) -> Wanted {
        let home = ask.home;
        if home.is_at(url) {
            return home.wanted.clone();
        }
        match ask.role {
            Role::Registry => Wanted::of_url(url),
            Role::TokenService => {
                let mut wanted = Wanted::of_token_service(url, &home.wanted);
                if url.host_str() == Some(home.host.as_str()) {
                    wanted.options = home.wanted.options.clone();
                    wanted.lenient = home.wanted.lenient;
                }
                wanted
            }
        }
    }
}

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// `Ok(None)` where it is longer; [`Failure`] where it ends early.
pub(crate) async fn read_body(
    mut response: reqwest::Response,
    limit: usize,
) -> Result<Option<Bytes>, Failure> {
    if response
        .content_length()
        .is_some_and(|length| length > limit as u64)
    {
        return Ok(None);
    }
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => return Ok(None),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(Some(body.freeze())),
            Err(_) => {
                return Err(Failure::new(
                    Cause::Protocol,
                    "the answer ended in the middle of its body",
                ));
            }
        }
    }
}

/// Empties a short body of known length; anything else costs the connection instead.
pub(crate) async fn drain(response: reqwest::Response) {
    if response
        .content_length()
        .is_some_and(|length| length > 0 && length <= MAX_DRAIN)
    {
        // The verdict does not wait for it: past the limit the connection is given up.
        let _ = tokio::time::timeout(DRAIN_PATIENCE, response.bytes()).await;
    }
}
