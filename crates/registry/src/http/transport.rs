//! One request and its redirects, with the TLS that each host needs and credentials that stay
//! where they belong.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use policy::ProxySettings;
use policy::text::host_of;
use url::{Host, Url};

use super::dns::{self, ForbiddenAddress, SystemResolver};
use super::failure::{Context, SendError, classify};
use super::guard::{AddressGuard, Reach, is_local};
use super::network::{self, Network};
use super::redirect::{Trail, is_redirect};
use super::tls::{CertsDirs, Secured, TlsStore, Wanted};
use crate::outcome::Cause;
use crate::progress::{Phase, Progress};
use crate::registry::{Registry, Site};
use crate::ttl::Ttl;

/// Idle connections that are kept per host, for the next request.
const MAX_IDLE_PER_HOST: usize = 8;
/// How long they are kept; load balancers close idle ones after 60 to 120 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Bound on connection attempts that nobody waits for any more.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An HTTP/2 connection that died silently would fail every request on it until TCP notices.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(10);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Bodies up to this length are read and thrown away, so that their connection can be used again.
const MAX_DRAIN: u64 = 64 * 1024;
/// How long that may take: a short body is there with its headers, or it is not worth the wait.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(50);

/// The registry that a request belongs to: its TLS options are for it alone.
#[derive(Clone, Debug)]
pub(crate) struct RegistryContext {
    wanted: Wanted,
    /// Host that answers the API.
    host: String,
    port: u16,
}

impl RegistryContext {
    pub(crate) fn of(registry: &Registry) -> Self {
        Self {
            wanted: Wanted::of_registry(registry),
            host: registry.endpoint.api_host().to_owned(),
            port: registry.endpoint.effective_port(),
        }
    }

    fn is_at(&self, url: &Url) -> bool {
        url.host_str() == Some(self.host.as_str()) && url.port_or_known_default() == Some(self.port)
    }
}

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The registry, and where it redirects to.
    Registry,
    /// The token service that the registry named. It trusts the registry's CAs too, as containerd
    /// does, and skips verification where the registry does, if it is the same host.
    TokenService,
    /// The token service that was named by a host which the registry redirected to. It has nothing
    /// to do with the registry's TLS options.
    ForeignTokenService,
}

/// A token for the one site, other than the registry, that asked for one.
#[derive(Clone, Debug)]
pub(crate) struct ForeignToken {
    pub(crate) site: Site,
    pub(crate) header: HeaderValue,
}

/// A request to be sent.
pub(crate) struct HttpRequest<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// Sent to the registry and to where it redirects; `Authorization` is not among them.
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: Option<Bytes>,
    /// For the first site only.
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) foreign: Option<&'a ForeignToken>,
    /// Whether redirects are followed. Never where there is a body: another host would choose where
    /// it goes.
    pub(crate) follow: bool,
    pub(crate) context: &'a RegistryContext,
    pub(crate) peer: Peer,
}

/// What came back after all redirects.
pub(crate) struct Received {
    pub(crate) response: reqwest::Response,
    /// Where the answer came from.
    pub(crate) url: Url,
    /// It came from another scheme, host or port than was asked, or by way of one.
    pub(crate) left_origin: bool,
}

/// Sends requests. Cheap until used.
pub(crate) struct Transport {
    tls: TlsStore,
    proxies: ProxySettings,
    guard: Option<AddressGuard>,
    /// In place of the machine's own.
    network: Option<Arc<dyn Network>>,
}

impl Transport {
    pub(crate) fn new(
        user_agent: HeaderValue,
        dirs: CertsDirs,
        proxies: ProxySettings,
        guard: Option<AddressGuard>,
        network: Option<Arc<dyn Network>>,
        ttl: Ttl,
    ) -> Self {
        let for_clients = proxies.clone();
        let make_client = Box::new(move |config: rustls::ClientConfig, reach: &Reach| {
            let proxies = for_clients.clone();
            reqwest::Client::builder()
                .tls_backend_preconfigured(config)
                .user_agent(user_agent.clone())
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .no_proxy()
                // An examination tells until when the certificate is good.
                .tls_info(true)
                .proxy(reqwest::Proxy::custom(move |url| {
                    proxies.for_url(url).cloned()
                }))
                .dns_resolver(SystemResolver {
                    reach: reach.clone(),
                })
                .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(HTTP2_PING_INTERVAL)
                .http2_keep_alive_timeout(HTTP2_PING_TIMEOUT)
                .build()
        });
        Self {
            tls: TlsStore::new(dirs, ttl, make_client),
            proxies,
            guard,
            network,
        }
    }

    /// Sends a request and follows its redirects. Dropping the future cancels it.
    ///
    /// # Errors
    /// [`SendError`] where there is no answer: connection, TLS, redirects that lead nowhere.
    pub(crate) async fn send(
        &self,
        request: HttpRequest<'_>,
        progress: &Progress,
    ) -> Result<Received, SendError> {
        let follow = request.follow && request.body.is_none();
        let mut trail = Trail::new(request.url.clone());
        let mut url = request.url.clone();
        loop {
            let left_origin = trail.left_origin();
            let authorization = if left_origin {
                let site = Site::of_url(&url);
                let foreign = request.foreign.filter(|token| token.site == site);
                foreign.map(|token| &token.header)
            } else {
                request.authorization.as_ref()
            };
            let response = self
                .one_hop(&request, &url, authorization, progress)
                .await
                .map_err(|error| error.with_left_origin(left_origin))?;
            let status = response.status().as_u16();
            if !follow || !is_redirect(status) {
                return Ok(Received {
                    response,
                    url,
                    left_origin,
                });
            }
            let next = trail
                .next(status, response.headers())
                .map_err(|error| SendError::new(Cause::Redirect, error.to_string()))?;
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
        request: &HttpRequest<'_>,
        url: &Url,
        authorization: Option<&HeaderValue>,
        progress: &Progress,
    ) -> Result<reqwest::Response, SendError> {
        let host = host_of(url);
        if let Some(network) = &self.network {
            progress.enter(Phase::Asking(host));
            progress.count_request();
            let mut sent = http::Request::new(request.body.clone().unwrap_or_default());
            *sent.method_mut() = request.method.clone();
            *sent.headers_mut() = request.headers.clone();
            if let Some(value) = authorization {
                sent.headers_mut().insert(AUTHORIZATION, value.clone());
            }
            return network::send(network, sent, url).await;
        }
        progress.enter(Phase::Files(host.clone()));
        let secured = self.client_for(url, request).await?;
        progress.enter(match request.peer {
            Peer::Registry => Phase::Asking(host),
            Peer::TokenService | Peer::ForeignTokenService => Phase::Token(host),
        });
        let mut asked_again = false;
        loop {
            let mut builder = secured
                .http
                .request(request.method.clone(), url.clone())
                .headers(request.headers.clone());
            if let Some(value) = authorization {
                builder = builder.header(AUTHORIZATION, value.clone());
            }
            if let Some(body) = &request.body {
                builder = builder.body(body.clone());
            }
            progress.count_request();
            let error = match builder.send().await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let failure = self.explain(&error, url, request, &secured);
            if failure.cause == Cause::Tls {
                secured.note_failed_handshake();
            }
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
        request: &HttpRequest<'_>,
        secured: &Secured,
    ) -> SendError {
        let domain = Self::wanted(url, request).domain;
        let ca_place = self.tls.dirs().ca_place(&domain);
        classify(
            error,
            &Context {
                domain: &domain,
                proxy: self.proxies.for_url(url).map(host_of),
                ca_place: ca_place.as_ref(),
                tls_problems: &secured.problems,
            },
        )
    }

    async fn client_for(&self, url: &Url, request: &HttpRequest<'_>) -> Result<Secured, SendError> {
        let reach = self.reach(url, request.context).await?;
        let client = if url.scheme() == "http" && !self.proxies.speaks_tls() {
            self.tls.plain_client(&reach).map(Secured::plain)
        } else {
            let wanted = Self::wanted(url, request);
            self.tls.client(Wanted { reach, ..wanted }).await
        };
        client.map_err(|error| SendError::new(Cause::Tls, error.to_string()))
    }

    /// Where a request for `url` may be sent. Names are checked when they are resolved; an address in
    /// the URL never is, so it is checked here.
    async fn reach(&self, url: &Url, context: &RegistryContext) -> Result<Reach, SendError> {
        let Some(guard) = &self.guard else {
            return Ok(Reach::Anywhere);
        };
        let host = url.host_str().unwrap_or_default();
        if guard.is_named(host) {
            return Ok(Reach::Anywhere);
        }
        let mut also = Vec::new();
        // What is on the registry's own address is where the config has sent us already.
        if guard.is_named(&context.host) && url.host_str() != Some(&context.host) {
            also = local_addresses(&context.host).await;
        }
        let reach = Reach::Outside(also);
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) | None => None,
        };
        if let Some(address) = address.filter(|address| !reach.allows(*address)) {
            let host = host.to_owned();
            let error = ForbiddenAddress { host, address };
            return Err(SendError::new(Cause::Address, error.to_string()));
        }
        // A proxy resolves names itself, and may be on this machine.
        if self.proxies.for_url(url).is_some() {
            return Ok(Reach::Anywhere);
        }
        Ok(reach)
    }

    /// The entry's options are for the entry's host. Every other host is checked as the system and
    /// the runtime have it.
    fn wanted(url: &Url, request: &HttpRequest<'_>) -> Wanted {
        let context = request.context;
        if context.is_at(url) {
            return context.wanted.clone();
        }
        match request.peer {
            Peer::Registry | Peer::ForeignTokenService => Wanted::of_url(url),
            Peer::TokenService => {
                let mut wanted = Wanted::of_token_service(url, &context.wanted);
                if url.host_str() == Some(context.host.as_str()) {
                    wanted.options = context.wanted.options.clone();
                    wanted.lenient = context.wanted.lenient;
                }
                wanted
            }
        }
    }
}

/// Those addresses of a host that are local, in a fixed order.
async fn local_addresses(host: &str) -> Vec<IpAddr> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let mut found = match bare.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => match dns::look_up(bare).await {
            Ok(found) => found.iter().map(|address| address.ip()).collect(),
            Err(_) => Vec::new(),
        },
    };
    found = found.iter().map(IpAddr::to_canonical).collect();
    found.retain(|address| is_local(*address));
    found.sort();
    found.dedup();
    found
}

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// `Ok(None)` where it is longer; [`SendError`] where it ends early.
pub(crate) async fn read_body(
    mut response: reqwest::Response,
    limit: usize,
) -> Result<Option<Bytes>, SendError> {
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
                return Err(SendError::new(
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
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, response.bytes()).await;
    }
}
