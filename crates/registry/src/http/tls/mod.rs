//! TLS per host: whom to trust, what to present, and one HTTP client per distinct answer to that.

mod certs_d;
mod explain;
pub(crate) mod hosts_toml;
mod material;
mod verify;

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use files::OnePerKey;
use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::Instant;

pub use certs_d::{CaPlace, CertsDirs};
pub(crate) use explain::explain;
pub(crate) use material::Wanted;
use material::{Fingerprint, Material};
use verify::{AcceptAny, VerifyOrPinned};

use crate::http::guard::Reach;
use crate::ttl::Ttl;

/// Hosts whose setup is remembered: the registries of a config and where they redirect to.
const MAX_HOSTS: usize = 512;
/// How long files that were read before are waited for when they are read again.
const READ_AGAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Warnings that are remembered as given.
const MAX_WARNINGS: usize = 1024;

/// Why there is no HTTP client for a host.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// rustls or reqwest refused the configuration.
    #[error("can't set up TLS: {0}")]
    Setup(String),
    /// The thread that reads the files gave no result.
    #[error("can't read its certificate files: {0}")]
    Read(files::RunError),
}

/// An HTTP client that trusts what one host needs.
#[derive(Clone)]
pub(crate) struct Secured {
    pub(crate) http: Arc<reqwest::Client>,
    /// Files for this host that could not be used, to explain a failed handshake.
    pub(crate) problems: Arc<[String]>,
    /// A handshake has failed with it.
    has_failed: Arc<AtomicBool>,
}

impl Secured {
    fn new(http: Arc<reqwest::Client>, problems: Vec<String>) -> Self {
        Self {
            http,
            problems: problems.into(),
            has_failed: Arc::default(),
        }
    }

    /// A client that reads no files.
    pub(crate) fn plain(http: Arc<reqwest::Client>) -> Self {
        Self::new(http, Vec::new())
    }

    /// Notes that a handshake has failed: the host's files are read again for the next one, since an
    /// operator may mend them meanwhile.
    pub(crate) fn note_failed_handshake(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
    }
}

/// Makes an HTTP client that uses a TLS configuration and connects to some addresses only.
pub(crate) type MakeClient =
    Box<dyn Fn(ClientConfig, &Reach) -> Result<reqwest::Client, reqwest::Error> + Send + Sync>;

/// The setups of all hosts. Nothing is read until the first TLS connection. Everything is read again after
/// the time to live, and for the next connection where a handshake has failed: a CA that an operator
/// installs, as that failure advises, is seen by the next trial.
pub(crate) struct TlsStore {
    shared: Arc<Shared>,
    ttl: Ttl,
    hosts: Mutex<HashMap<Wanted, Host>>,
    /// Files may be on a file system that does not answer.
    reads: OnePerKey<Wanted, Result<Secured, TlsError>>,
    plain: Mutex<HashMap<Reach, Arc<reqwest::Client>>>,
}

struct Host {
    used_at: Instant,
    setup: Setup,
}

/// What was read for a host the last time, and when. Written by the thread that has read it, so that it is
/// there for whoever comes next, also when nobody has waited for it.
type Setup = Arc<Mutex<Option<(Instant, Secured)>>>;

/// What reading needs; it happens on another thread.
struct Shared {
    dirs: CertsDirs,
    provider: Arc<CryptoProvider>,
    make_client: MakeClient,
    roots: OnceLock<RootCertStore>,
    /// Clients in use by what they trust and reach: registries with the same setup share one.
    clients: Mutex<HashMap<(Fingerprint, Reach), Weak<reqwest::Client>>>,
    warned: Mutex<HashSet<String>>,
}

impl TlsStore {
    pub(crate) fn new(dirs: CertsDirs, ttl: Ttl, make_client: MakeClient) -> Self {
        Self {
            shared: Arc::new(Shared {
                dirs,
                provider: Arc::new(rustls::crypto::ring::default_provider()),
                make_client,
                roots: OnceLock::new(),
                clients: Mutex::new(HashMap::new()),
                warned: Mutex::new(HashSet::new()),
            }),
            ttl,
            hosts: Mutex::new(HashMap::new()),
            reads: OnePerKey::default(),
            plain: Mutex::new(HashMap::new()),
        }
    }

    pub(crate) fn dirs(&self) -> &CertsDirs {
        &self.shared.dirs
    }

    /// The client for a host; read and built at its first use and again after the time to live. While
    /// files are being read again and take their time, what was read before is used.
    ///
    /// # Errors
    /// [`TlsError`]; never for files that can't be read: those are warned about and left out.
    pub(crate) async fn client(&self, wanted: Wanted) -> Result<Secured, TlsError> {
        let now = Instant::now();
        let setup = self.slot(&wanted, now);
        let old = setup.lock().clone();
        if let Some((read_at, secured)) = &old
            && now.saturating_duration_since(*read_at) < self.ttl.get()
            && !secured.has_failed.load(Ordering::Relaxed)
        {
            return Ok(secured.clone());
        }
        if let Some((_, secured)) = &old
            && self.reads.is_running(&wanted)
        {
            return Ok(secured.clone());
        }
        let shared = self.shared.clone();
        let key = wanted.clone();
        let read = move || {
            let secured = shared.build(&wanted, shared.roots())?;
            // The old client lives in `setup` until here: one with the same trust was found through it
            // and keeps its connections.
            *setup.lock() = Some((now, secured.clone()));
            Ok(secured)
        };
        let reading = self.reads.run(key, read);
        let result = match old {
            None => reading.await,
            Some((_, secured)) => match tokio::time::timeout(READ_AGAIN_TIMEOUT, reading).await {
                Ok(result) => result,
                Err(_) => return Ok(secured),
            },
        };
        result.map_err(TlsError::Read)?
    }

    /// A client for plain HTTP. It trusts nobody and reads nothing.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub(crate) fn plain_client(&self, reach: &Reach) -> Result<Arc<reqwest::Client>, TlsError> {
        let mut clients = self.plain.lock();
        if let Some(client) = clients.get(reach) {
            return Ok(client.clone());
        }
        let config = self
            .shared
            .configure(&Material::default(), &RootCertStore::empty())?;
        let client = Arc::new(self.shared.make(config, reach)?);
        // One for everything, and one per registry that is at a local address itself.
        if clients.len() >= MAX_HOSTS {
            clients.clear();
        }
        clients.insert(reach.clone(), client.clone());
        Ok(client)
    }

    fn slot(&self, wanted: &Wanted, now: Instant) -> Setup {
        let mut hosts = self.hosts.lock();
        if !hosts.contains_key(wanted) && hosts.len() >= MAX_HOSTS {
            let oldest = hosts.iter().min_by_key(|(_, host)| host.used_at);
            if let Some(oldest) = oldest.map(|(wanted, _)| wanted.clone()) {
                hosts.remove(&oldest);
            }
        }
        let host = hosts.entry(wanted.clone()).or_insert_with(|| Host {
            used_at: now,
            setup: Arc::default(),
        });
        host.used_at = now;
        host.setup.clone()
    }
}

impl Shared {
    /// The system's roots, read once: reading them takes some milliseconds and 200 KiB. Blocking.
    fn roots(&self) -> &RootCertStore {
        self.roots.get_or_init(system_roots)
    }

    fn build(&self, wanted: &Wanted, roots: &RootCertStore) -> Result<Secured, TlsError> {
        let material = Material::load(wanted, &self.dirs);
        for problem in &material.problems {
            if first_time(&self.warned, problem) {
                tracing::warn!(host = %wanted.domain, "tls: {problem}");
            }
        }
        let http = self.shared_client(&material, &wanted.reach, roots)?;
        Ok(Secured::new(http, material.problems))
    }

    fn shared_client(
        &self,
        material: &Material,
        reach: &Reach,
        roots: &RootCertStore,
    ) -> Result<Arc<reqwest::Client>, TlsError> {
        let fingerprint = (material.fingerprint(), reach.clone());
        if let Some(client) = self
            .clients
            .lock()
            .get(&fingerprint)
            .and_then(Weak::upgrade)
        {
            return Ok(client);
        }
        let client = Arc::new(self.make(self.configure(material, roots)?, reach)?);
        let mut clients = self.clients.lock();
        clients.retain(|_, client| client.strong_count() > 0);
        // Another host may have built the same meanwhile.
        if let Some(client) = clients.get(&fingerprint).and_then(Weak::upgrade) {
            return Ok(client);
        }
        clients.insert(fingerprint, Arc::downgrade(&client));
        Ok(client)
    }

    fn make(&self, config: ClientConfig, reach: &Reach) -> Result<reqwest::Client, TlsError> {
        (self.make_client)(config, reach).map_err(|error| TlsError::Setup(error.to_string()))
    }

    fn configure(
        &self,
        material: &Material,
        roots: &RootCertStore,
    ) -> Result<ClientConfig, TlsError> {
        let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(setup)?;
        let builder = if material.skip_verify {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AcceptAny(self.provider.clone())))
        } else {
            let mut roots = roots.clone();
            roots.add_parsable_certificates(material.cas.iter().cloned());
            if roots.is_empty() {
                // The usual verifier wants at least one; this one trusts nobody.
                builder.with_root_certificates(roots)
            } else {
                let usual = WebPkiServerVerifier::builder_with_provider(
                    Arc::new(roots),
                    self.provider.clone(),
                )
                .build()
                .map_err(|error| TlsError::Setup(error.to_string()))?;
                let given = material.cas.clone();
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(VerifyOrPinned::new(usual, given)))
            }
        };
        let mut config = match &material.identity {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .map_err(setup)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Blocking. Errors are told once, here, and what could be read is used.
fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!("tls: can't read some of the system's root certificates: {error}");
    }
    let mut roots = RootCertStore::empty();
    let (_, unusable) = roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::warn!(
            "tls: the system has no root certificates; install ca-certificates, or set caFile per registry"
        );
    } else if unusable > 0 {
        tracing::debug!("tls: {unusable} of the system's root certificates can't be used");
    }
    roots
}

fn first_time<T: Eq + Hash + Clone>(seen: &Mutex<HashSet<T>>, what: &T) -> bool {
    let mut seen = seen.lock();
    if seen.len() >= MAX_WARNINGS {
        seen.clear();
    }
    seen.insert(what.clone())
}
