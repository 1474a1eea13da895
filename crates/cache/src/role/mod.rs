//! The role: listeners, config, and what goes on beside requests.

mod door;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use listener::certificate::files::FilesError;
use listener::tls::TlsError;
use listener::{Limits, Options, Protocols, Tls, WhenFull};
use parking_lot::Mutex;
use policy::config::{ListenAddress, NodeCache, S3Store, Settings as Config};
use registry::{AddressGuard, CertsDirs, Client, ClientOptions};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use self::door::Door;
use crate::api::Api;
use crate::freshness::Freshness;
use crate::pull_through::Parallelism;
use crate::registries::{Asking, Registries};
use crate::service::{Cache, Settings};
use crate::shared::Shared;
use crate::storage::{SizeLimits, Storage, StorageError};
use crate::store::s3::BucketError;

/// How often uses are written down.
const FLUSH_INTERVAL: Duration = Duration::from_secs(10);
/// How often a directory that could not be used is tried again.
const REOPEN_INTERVAL: Duration = Duration::from_secs(30);
/// How often images are counted, and old downloads thrown away.
const TIDY_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Connections at once: a node's runtime opens a few, a roll-out on a shared cache many.
const CONNECTIONS: usize = 1024;
/// A kept connection may be idle for so long between two requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is tried to go on listening where the system has no room for that.
const LISTEN_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long answers may take to finish after SIGTERM.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Why the cache can't start.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// Listening beyond loopback without TLS or without saying who may ask.
    #[error("the cache refuses to start: {0}")]
    Refused(String),
    /// An address that was written can't be had.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The system has no room for listeners.
    #[error("cannot listen: {0}")]
    Listeners(io::Error),
    /// None of the default addresses can be had.
    #[error("cannot listen on any of the default addresses; is another cache running?")]
    NoListener,
    /// The certificate can't be used.
    #[error("nodeCache.tls: {0}")]
    Certificate(#[from] FilesError),
    /// The CA of clients can't be used.
    #[error("nodeCache.tls.clientCA: {0}")]
    ClientCa(FilesError),
    /// TLS can't be set up.
    #[error("nodeCache.tls: {0}")]
    Tls(#[from] TlsError),
    /// The shared store's settings can't be used.
    #[error(transparent)]
    Shared(#[from] BucketError),
    /// Another process has the directory, or it is damaged.
    #[error("nodeCache.dir: {0}; stop the other cache, or choose another directory")]
    Storage(#[from] StorageError),
}

/// The cache, listening.
#[derive(Debug)]
pub struct Role {
    api: Api,
    cache: Cache,
    registries: Registries,
    listeners: Vec<std::net::TcpListener>,
    addresses: Vec<SocketAddr>,
    door: Arc<Door>,
    /// Whether the directory can be written to.
    is_writable: bool,
    dir: std::path::PathBuf,
    /// What the config in force says.
    in_force: Arc<Mutex<NodeCache>>,
    /// The shared store that is in use.
    s3: Arc<Mutex<Option<S3Store>>>,
}

/// What can be told of a new config while the role serves. Clones are for the same role.
#[derive(Clone, Debug)]
pub struct Handle {
    door: Arc<Door>,
    cache: Cache,
    registries: Registries,
    /// What the config in force says. It is locked while limits are computed and set, so that the last ones are of
    /// the last config and of the store in use.
    in_force: Arc<Mutex<NodeCache>>,
    /// The shared store that is in use.
    s3: Arc<Mutex<Option<S3Store>>>,
}

/// A cache over a directory, without listeners: for commands when none runs. `certs_dirs` as for [`Role::start`].
///
/// # Errors
/// The directory can't be used.
pub fn offline(config: &Config, certs_dirs: CertsDirs) -> Result<Cache, RoleError> {
    let storage = Storage::open(&config.node_cache.dir)?;
    if let Some(limits) = limits(&config.node_cache, &storage) {
        storage.set_limits(limits);
    }
    let registries = registries(config, certs_dirs, "image-cri-shim-command", Vec::new());
    Ok(Cache::new(
        Arc::new(storage),
        Arc::new(registries),
        shared(config.node_cache.s3.as_ref())?,
        settings(config),
    ))
}

/// Whether a cache would start with this config, as far as that can be told without its ports and its directory.
///
/// # Errors
/// [`RoleError`].
pub async fn check(config: &Config) -> Result<(), RoleError> {
    let node_cache = &config.node_cache;
    if let Some(why) = node_cache.refusal() {
        return Err(RoleError::Refused(why));
    }
    Door::new(node_cache, Vec::new()).await.map(|_| ())
}

impl Role {
    /// Binds the listeners and opens the store. `instance` is what this process is called in `Via`; `certs_dirs` is
    /// what the node's runtime is told about hosts' certificates.
    ///
    /// # Errors
    /// [`RoleError`]; nothing has been served then.
    pub async fn start(
        config: &Config,
        instance: &str,
        certs_dirs: CertsDirs,
    ) -> Result<Self, RoleError> {
        let node_cache = &config.node_cache;
        if let Some(why) = node_cache.refusal() {
            return Err(RoleError::Refused(why));
        }
        let listeners = bind(&node_cache.listen).await?;
        let addresses = listeners.iter().filter_map(|l| l.local_addr().ok());
        let addresses: Vec<SocketAddr> = addresses.collect();
        let door = Door::new(node_cache, addresses.clone()).await?;
        // Each time that TLS is switched on or off they are listened on anew.
        let listeners = listeners.into_iter().map(TcpListener::into_std);
        let listeners = listeners.collect::<io::Result<Vec<_>>>();
        let listeners = listeners.map_err(RoleError::Listeners)?;
        let (storage, is_writable) = open(&node_cache.dir)?;
        if let Some(limits) = limits(node_cache, &storage) {
            storage.set_limits(limits);
        }
        let registries = registries(config, certs_dirs, instance, addresses.clone());
        let cache = Cache::new(
            Arc::new(storage),
            Arc::new(registries.clone()),
            None,
            settings(config),
        );
        let role = Self {
            api: Api::new(cache.clone(), door.gate().await, instance),
            cache,
            registries,
            listeners,
            addresses,
            door: Arc::new(door),
            is_writable,
            dir: node_cache.dir.clone(),
            in_force: Arc::new(Mutex::new(node_cache.clone())),
            s3: Arc::default(),
        };
        role.handle().configure_shared(node_cache.s3.as_ref());
        Ok(role)
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The cache itself.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// For new configs.
    pub fn handle(&self) -> Handle {
        Handle {
            door: Arc::clone(&self.door),
            cache: self.cache.clone(),
            registries: self.registries.clone(),
            in_force: Arc::clone(&self.in_force),
            s3: Arc::clone(&self.s3),
        }
    }

    /// Serves until `shutdown` ends.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let _housekeeping = AbortOnDropHandle::new(tokio::spawn(housekeeping(
            self.cache.clone(),
            self.is_writable,
            self.dir,
            self.in_force,
        )));
        let (door, api) = (Arc::clone(&self.door), self.api.clone());
        let _door = AbortOnDropHandle::new(tokio::spawn(async move { door.follow(&api).await }));
        listen(&self.listeners, &self.api, self.door.tls(), shutdown).await;
        let storage = self.cache.storage();
        let flushed = tokio::task::spawn_blocking(move || {
            storage.flush_touched()?;
            Ok::<_, StorageError>(storage.index().flush()?)
        });
        if let Ok(Err(error)) = flushed.await {
            tracing::warn!("what was used last could not be written down: {error}");
        }
    }
}

impl Handle {
    /// Whether connections are not encrypted.
    pub fn is_plain(&self) -> bool {
        self.door.tls().borrow().is_none()
    }

    /// Takes a new config; `listen` and `dir` stay as they were.
    pub fn configure(&self, config: &Config) {
        {
            let mut in_force = self.in_force.lock();
            *in_force = config.node_cache.clone();
            let storage = self.cache.storage();
            // Where the disk can't be asked, the limits stay as they were.
            if let Some(mut limits) = limits(&in_force, &storage) {
                if in_force.max_size.is_none() {
                    // The default was made of what was free at the start.
                    limits.max_size = storage.limits().max_size;
                }
                storage.set_limits(limits);
            }
        }
        self.configure_shared(config.node_cache.s3.as_ref());
        self.registries.configure(asking(config));
        self.cache.configure(settings(config));
        self.door.want(&config.node_cache);
    }
}

impl Handle {
    fn configure_shared(&self, wanted: Option<&S3Store>) {
        let mut used = self.s3.lock();
        if used.as_ref() == wanted {
            return;
        }
        match shared(wanted) {
            Ok(shared) => {
                self.cache.set_shared(shared);
                *used = wanted.cloned();
            }
            // The cache is of use without it.
            Err(error) => {
                tracing::warn!("{error}; the shared store stays as it was, if there is one")
            }
        }
    }
}

fn shared(settings: Option<&S3Store>) -> Result<Option<Shared>, BucketError> {
    settings.map(Shared::open).transpose()
}

fn open(dir: &Path) -> Result<(Storage, bool), StorageError> {
    match Storage::open(dir) {
        Ok(storage) => Ok((storage, true)),
        Err(error) if is_disk_trouble(&error) => {
            tracing::warn!(
                "{error}; images pass through without being stored until it can be used"
            );
            Ok((Storage::open_read_only(dir)?, false))
        }
        Err(error) => Err(error),
    }
}

/// Whether an error may pass: a disk that is full, read-only or broken. Another cache in the directory,
/// or an index of a newer version, does not.
fn is_disk_trouble(error: &StorageError) -> bool {
    use crate::store::StoreError;
    let error = match error {
        StorageError::Io(error) | StorageError::Store(StoreError::Io { error, .. }) => error,
        StorageError::Index(index) => return index.is_disk_trouble(),
        StorageError::Store(StoreError::WrongDigest(_)) => return false,
    };
    error.raw_os_error().is_some()
}

fn settings(config: &Config) -> Settings {
    let node_cache = &config.node_cache;
    Settings {
        freshness: Freshness {
            tag_ttl: node_cache.tag_ttl,
            max_stale: node_cache.max_stale,
            auth_stale: node_cache.auth_stale,
            serve_deleted: node_cache.serve_deleted,
        },
        auth_ttl: node_cache.auth_ttl,
        negative_ttl: config.cache.negative_ttl,
        parallelism: Parallelism {
            connections: node_cache.parallel,
            above: node_cache.parallel_above,
        },
    }
}

fn asking(config: &Config) -> Asking {
    Asking {
        rules: config.rules.clone(),
        probe_timeout: config.probe_timeout,
    }
}

fn registries(
    config: &Config,
    certs_dirs: CertsDirs,
    instance: &str,
    own: Vec<SocketAddr>,
) -> Registries {
    let guard = AddressGuard::new();
    let client = Client::new(ClientOptions {
        certs_dirs,
        guard: Some(guard.clone()),
        domain_cache_ttl: config.cache.domain_cache_ttl,
        ..ClientOptions::default()
    });
    Registries::new(client, guard, asking(config), instance, own)
}

/// `maxSize` is, by default, half of what is free and all that the store holds. None where the disk does not say
/// how large it is: then nothing can be stored either.
fn limits(node_cache: &NodeCache, storage: &Storage) -> Option<SizeLimits> {
    let (free, total) = storage.disk().space().ok()?;
    let stored = storage.stored_bytes();
    Some(SizeLimits {
        max_size: match node_cache.max_size {
            Some(size) => size.of(total),
            None => free / 2 + stored,
        },
        min_free: node_cache.min_free.of(total),
    })
}

/// Serves until `shutdown` ends. Where TLS is switched on or off, new connections are such, and those that
/// are there are finished.
async fn listen(
    listeners: &[std::net::TcpListener],
    api: &Api,
    mut tls: watch::Receiver<Option<Arc<Tls>>>,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = std::pin::pin!(shutdown);
    let mut ending = Vec::new();
    loop {
        let used = tls.borrow_and_update().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let again = listeners.iter().map(|listener| {
            let again = listener.try_clone()?;
            TcpListener::from_std(again)
        });
        let again = match again.collect::<io::Result<Vec<_>>>() {
            Ok(again) => again,
            Err(error) => {
                tracing::error!("cannot go on listening: {error}; trying again");
                tokio::select! {
                    () = &mut shutdown => break,
                    () = tokio::time::sleep(LISTEN_RETRY_INTERVAL) => continue,
                }
            }
        };
        let serving = listener::serve(again, options(used), api.service(), async {
            // Dropped is stopped, too.
            let _ = stopped.await;
        });
        let serving = AbortOnDropHandle::new(tokio::spawn(serving));
        let goes_on = tokio::select! {
            () = &mut shutdown => false,
            changed = tls.changed() => changed.is_ok(),
        };
        drop(stop);
        ending.push(serving);
        if !goes_on {
            break;
        }
        ending.retain(|serving| !serving.is_finished());
    }
    for serving in ending {
        if let Err(error) = serving.await {
            tracing::error!("connections were not finished: {error}");
        }
    }
}

fn options(tls: Option<Arc<Tls>>) -> Options {
    Options {
        purpose: "image pulls",
        protocols: Protocols::Http1,
        tls,
        limits: Limits {
            connections: CONNECTIONS,
            // A transfer must not be cut for a newcomer.
            when_full: WhenFull::Wait,
            head_timeout: IDLE_TIMEOUT,
            lifetime: None,
            drain_timeout: DRAIN_TIMEOUT,
            ..Limits::default()
        },
    }
}

/// Listens on what can be had; an address that was written must be.
async fn bind(wanted: &[ListenAddress]) -> Result<Vec<TcpListener>, RoleError> {
    let mut listeners = Vec::new();
    let mut failed = None;
    for listen in wanted {
        let address = listen.address;
        match listener::bind(address).await {
            Ok(listener) => listeners.push(listener),
            Err(error) if listen.required => return Err(RoleError::Listen { address, error }),
            Err(error) if address.is_ipv6() => {
                tracing::debug!("not listening on {address}: {error}");
            }
            Err(error) => failed = Some(RoleError::Listen { address, error }),
        }
    }
    match failed {
        Some(error) => Err(error),
        None if listeners.is_empty() => Err(RoleError::NoListener),
        None => Ok(listeners),
    }
}

async fn housekeeping(
    cache: Cache,
    mut is_writable: bool,
    dir: std::path::PathBuf,
    in_force: Arc<Mutex<NodeCache>>,
) {
    let mut next_tidy = tokio::time::Instant::now();
    loop {
        if !is_writable && let Some(storage) = reopened(&dir).await {
            let in_force = in_force.lock();
            // Only now there is a disk that shares of it, and the default, can be computed of.
            if let Some(limits) = limits(&in_force, &storage) {
                storage.set_limits(limits);
            }
            cache.replace_storage(Arc::new(storage));
            drop(in_force);
            is_writable = true;
            tracing::info!("the cache stores in {} again", dir.display());
        }
        let storage = cache.storage();
        let tidies = is_writable && tokio::time::Instant::now() >= next_tidy;
        let kept = tokio::task::spawn_blocking(move || {
            storage.flush_touched()?;
            if tidies {
                storage.tidy()?;
            }
            Ok::<_, StorageError>(())
        });
        if let Ok(Err(error)) = kept.await {
            cache.storage().report_failure(&error);
        }
        if tidies {
            next_tidy = tokio::time::Instant::now() + TIDY_INTERVAL;
        }
        let pause = match is_writable {
            true => FLUSH_INTERVAL,
            false => REOPEN_INTERVAL,
        };
        tokio::time::sleep(pause).await;
    }
}

async fn reopened(dir: &Path) -> Option<Storage> {
    let dir = dir.to_owned();
    let opened = tokio::task::spawn_blocking(move || Storage::open(&dir).ok());
    opened.await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn limits_are_of_the_disk_that_is_there_when_the_directory_can_be_used() {
        for sizes in ["maxSize: 30%, minFree: 15%, ", ""] {
            let dir = tempfile::tempdir().unwrap();
            let in_the_way = dir.path().join("mount");
            std::fs::write(&in_the_way, "").unwrap();
            let config = format!(
                "registries: []\naddress: ''\nnodeCache: {{{sizes}dir: '{}'}}\n",
                in_the_way.join("store").display()
            );
            let (mut settings, _) = Config::read(&config, &|_| None);
            settings.node_cache.listen = vec![ListenAddress {
                address: "127.0.0.1:0".parse().unwrap(),
                required: true,
            }];
            let role = Role::start(&settings, "late", CertsDirs::none())
                .await
                .unwrap();
            let cache = role.cache().clone();
            assert_eq!(cache.storage().limits(), SizeLimits::NONE);
            // It ends with the test's runtime.
            tokio::spawn(role.serve(std::future::pending()));
            std::fs::remove_file(&in_the_way).unwrap();
            std::fs::create_dir(&in_the_way).unwrap();
            let limits = testkit::wait::until("the directory is used", || async {
                let limits = cache.storage().limits();
                (limits != SizeLimits::NONE).then_some(limits)
            })
            .await;
            let (_, total) = cache.storage().disk().space().unwrap();
            assert!((1..total).contains(&limits.max_size), "{limits:?}");
            assert!((1..total).contains(&limits.min_free), "{limits:?}");
        }
    }
}
