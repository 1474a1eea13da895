//! The client: options in, probes out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use policy::ProxySettings;

use crate::auth::token::Tokens;
use crate::examine::{self, Examination};
use crate::exchange::Shared;
use crate::fetch::{FetchOptions, Repository};
use crate::http::guard::AddressGuard;
use crate::http::network::Network;
use crate::http::tls::CertsDirs;
use crate::http::transport::Transport;
use crate::knowledge::{ClientStats, Registries};
use crate::outcome::{Ping, Probe};
use crate::probe;
use crate::registry::{ManifestName, Registry};
use crate::ttl::Ttl;

/// How a [`Client`] behaves towards every registry.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `User-Agent` of every request. Characters that no header can carry make it the default.
    pub user_agent: String,
    /// Where the runtimes keep what they are told about hosts' certificates.
    pub certs_dirs: CertsDirs,
    /// Proxies. Default: those of this process's environment.
    pub proxies: ProxySettings,
    /// Which addresses may be connected to. Default: any, as a container runtime has it.
    pub guard: Option<AddressGuard>,
    /// What requests go out on in place of this machine's network; for simulations. Default: none.
    pub network: Option<Arc<dyn Network>>,
    /// How long what was learnt about a registry is used, and how often its certificate files are
    /// read again. Default 10 minutes (`cache.domainCacheTTL`).
    pub domain_cache_ttl: Duration,
    /// Questions to one registry that are under way at once; more wait their turn. Default 32;
    /// taken as the nearest of 1 to 1024.
    pub concurrency_per_registry: usize,
}

const USER_AGENT: &str = concat!("image-cri-shim/", env!("CARGO_PKG_VERSION"));

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            user_agent: USER_AGENT.to_owned(),
            certs_dirs: CertsDirs::default(),
            proxies: ProxySettings::from_lookup(|name| std::env::var(name).ok()),
            guard: None,
            network: None,
            domain_cache_ttl: Duration::from_secs(10 * 60),
            concurrency_per_registry: 32,
        }
    }
}

/// Asks registries. Cheap to clone: all clones share connections, tokens and what is known about
/// each registry. Made without any I/O; certificates are read at the first TLS connection.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    ttl: Ttl,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client that knows nothing yet.
    pub fn new(options: ClientOptions) -> Self {
        let user_agent = HeaderValue::from_str(&options.user_agent)
            .unwrap_or_else(|_| HeaderValue::from_static(USER_AGENT));
        let ttl = Ttl::new(options.domain_cache_ttl);
        let slots_each = options.concurrency_per_registry.clamp(1, 1024);
        Self {
            shared: Arc::new(Shared {
                transport: Transport::new(
                    user_agent,
                    options.certs_dirs,
                    options.proxies,
                    options.guard,
                    options.network,
                    ttl.clone(),
                ),
                tokens: Tokens::new(),
                registries: Registries::new(ttl.clone(), slots_each),
                slots_each,
            }),
            ttl,
        }
    }

    /// Asks one registry whether it has one manifest. Every failure is an outcome. Takes no longer
    /// than `deadline`, which bounds all of it: queue, token, redirects, both schemes. Dropping the
    /// future cancels what is under way.
    ///
    /// Must be called inside a tokio runtime with time and I/O enabled.
    pub async fn probe(
        &self,
        registry: &Registry,
        name: &ManifestName,
        deadline: Duration,
    ) -> Probe {
        probe::probe(&self.shared, registry, name, deadline).await
    }

    /// Asks whether a registry lives: `GET /v2/`, without credentials and without waiting for a free
    /// slot. It says nothing about any image. Bounded and cancelled as [`Self::probe`].
    pub async fn ping(&self, registry: &Registry, deadline: Duration) -> Ping {
        probe::ping(&self.shared, registry, deadline).await
    }

    /// Looks at a registry as a whole: whether it lives, its certificate, its clock, and whether it takes the
    /// credentials. It says nothing about any image. Bounded and cancelled as [`Self::probe`].
    pub async fn examine(&self, registry: &Registry, deadline: Duration) -> Examination {
        examine::examine(&self.shared, registry, deadline).await
    }

    /// A repository of a registry, to be read: manifests, blobs, lists. `name` is as the registry knows
    /// it, the endpoint's path included. Nothing is asked yet.
    pub fn repository(&self, registry: Registry, name: &str, options: FetchOptions) -> Repository {
        Repository::new(self.shared.clone(), registry, name, options)
    }

    /// Changes [`ClientOptions::domain_cache_ttl`]. What is known stays, and is judged by the new time.
    pub fn set_domain_cache_ttl(&self, ttl: Duration) {
        self.ttl.set(ttl);
    }

    /// Counters of what is known about registries, since the client was made.
    pub fn stats(&self) -> ClientStats {
        self.shared.registries.stats()
    }
}
