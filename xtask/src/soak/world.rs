//! All that takes part: a real containerd, three real registries, the shim, the node cache, the webhook, and an
//! API server.

use std::cell::{Ref, RefCell, RefMut};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;
use testkit::admission::NAME;
use testkit::certs::{Ca, ServerCert};
use testkit::containerd::Containerd;
use testkit::docker_registry::DockerRegistry;
use testkit::fake_api_server::FakeApiServer;
use testkit::node_cache::NodeCache;
use testkit::shim::{Options, Shim};
use testkit::wait;
use testkit::webhook::Webhook;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::clock::Clock;
use super::health::{Health, Need, Part};
use super::ledger::{Call, Invariant, Ledger};
use super::schedule::{REGISTRIES, registry_name};
use super::site::{self, Addresses, CACHED_HOST, Held, OFFLINE, ORIGIN, TAG, Way};

/// How many clients pull, each from images of its own.
pub(crate) const PULLERS: usize = 3;
/// Images of one client and one way.
const IMAGES_EACH: usize = 8;
/// How large the file system of the cache's store is.
const DISK_BYTES: u64 = 128 << 20;

/// All parts, and what is known of them. Dropping it ends and deletes everything.
pub(crate) struct World {
    started: Instant,
    pub(crate) binary: PathBuf,
    pub(crate) addresses: Addresses,
    /// Images that only one client pulls and removes, by client.
    pub(crate) own_images: Vec<Vec<Held>>,
    /// Images that everybody pulls and nobody removes.
    pub(crate) shared_images: Vec<Held>,
    pub(crate) api: FakeApiServer,
    pub(crate) webhook_ca: String,
    /// By which the API server shows the webhook who it is.
    pub(crate) api_server_cert: ServerCert,
    health: RefCell<Health>,
    ledger: RefCell<Ledger>,
    // Processes, before the directories that they use.
    pub(crate) webhook: Mutex<Webhook>,
    pub(crate) shim: Mutex<Shim>,
    pub(crate) cache: Mutex<NodeCache>,
    pub(crate) containerd: Mutex<Containerd>,
    pub(crate) registries: [Mutex<DockerRegistry>; REGISTRIES],
    pub(crate) shim_socket: PathBuf,
    pub(crate) disk: Disk,
    pub(crate) clock: Clock,
    files: TempDir,
}

impl World {
    /// Starts everything. `logs` is where the log of the run goes.
    pub(crate) async fn start(binary: &Path, logs: &Path) -> Result<Self> {
        let registries = [
            DockerRegistry::with_password(OFFLINE.0, OFFLINE.1).await?,
            DockerRegistry::plain().await?,
            DockerRegistry::with_password(ORIGIN.0, ORIGIN.1).await?,
        ];
        let origin = registries[2].host();
        let mut own_images = Vec::new();
        for client in 0..PULLERS {
            let team = format!("team-{client}");
            let mut images = Held::images(&team, Way::Direct, IMAGES_EACH, &origin);
            images.extend(Held::images(&team, Way::Cached, IMAGES_EACH, &origin));
            own_images.push(images);
        }
        let mut shared_images = Held::images("all", Way::Direct, IMAGES_EACH, &origin);
        shared_images.extend(Held::images("all", Way::Cached, IMAGES_EACH, &origin));
        for held in own_images.iter().flatten().chain(&shared_images) {
            for registry in held.by {
                let repository = held.repository_at(*registry);
                let pushed = registries[*registry].push(&held.image, &repository, TAG);
                pushed.await.with_context(|| {
                    format!("pushing {repository} to {}", registry_name(*registry))
                })?;
            }
        }

        let files = tempfile::Builder::new().prefix("soak-").tempdir()?;
        let api = FakeApiServer::start()?;
        let kubeconfig = files.path().join("kubeconfig");
        fs::write(&kubeconfig, api.kubeconfig())?;
        let containerd = Containerd::start().await?;
        for registry in &registries {
            containerd.allow_http(&registry.host())?;
        }
        // Nobody is there. Without this, each last resort would wait for DNS.
        containerd.write_hosts(CACHED_HOST, "server = \"http://127.0.0.1:1\"\n")?;

        let clock = Clock::new(files.path())?;
        let disk = Disk::new()?;
        let cache = NodeCache::start(binary, "").await?;
        containerd.allow_http(&cache.address().to_string())?;
        let addresses = Addresses {
            registries: [0, 1, 2].map(|registry: usize| registries[registry].host()),
            cache: cache.address().to_string(),
            shim_metrics: free_address()?,
            cache_metrics: free_address()?,
        };
        let cache = on_disk(cache, &addresses, &disk, &clock).await?;
        api.apply_config_map(&site::config_map(&addresses, 0));
        let mut options = Options::new(binary, containerd.socket())
            .env("KUBECONFIG", &kubeconfig.display().to_string());
        options.env.extend(clock.variables());
        let config = site::shim_config(&addresses, 0);
        let shim = Shim::start(&config, options).await;
        let shim = shim.context("starting the shim")?;

        let ca = Ca::new()?;
        let cert = ca.issue(&[NAME])?;
        fs::write(files.path().join("tls.crt"), &cert.cert_pem)?;
        fs::write(files.path().join("tls.key"), &cert.key_pem)?;
        let client_ca = Ca::new()?;
        fs::write(files.path().join("client-ca.crt"), client_ca.pem())?;
        let webhook = start_webhook(binary, files.path(), &clock).await?;
        let pids = [Some(shim.pid()?), cache.pid(), Some(webhook.pid())];
        for pid in pids.into_iter().flatten() {
            Clock::is_used_by(pid)?;
        }
        Ok(Self {
            started: Instant::now(),
            binary: binary.to_owned(),
            addresses,
            own_images,
            shared_images,
            api,
            webhook_ca: ca.pem(),
            api_server_cert: client_ca.issue_client("kube-apiserver")?,
            health: RefCell::default(),
            ledger: RefCell::new(Ledger::new(&logs.join("run.log"))?),
            webhook: Mutex::new(webhook),
            shim_socket: shim.socket(),
            shim: Mutex::new(shim),
            cache: Mutex::new(cache),
            containerd: Mutex::new(containerd),
            registries: registries.map(Mutex::new),
            disk,
            clock,
            files,
        })
    }

    /// The time since the beginning of the run.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits until a moment of the run.
    pub(crate) async fn until(&self, at: Duration) {
        tokio::time::sleep_until(self.started + at).await;
    }

    /// The kubeconfig of the API server.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.files.path().join("kubeconfig")
    }

    /// The webhook's private key: a secret like any other.
    pub(crate) fn webhook_key(&self) -> Result<String> {
        Ok(fs::read_to_string(self.files.path().join("tls.key"))?)
    }

    /// Starts the webhook, which is not there, and returns when it is ready.
    pub(crate) async fn new_webhook(&self) -> Result<Webhook> {
        start_webhook(&self.binary, self.files.path(), &self.clock).await
    }

    /// Every image that comes through the cache.
    pub(crate) fn cached_images(&self) -> Vec<&Held> {
        let all = self.own_images.iter().flatten().chain(&self.shared_images);
        all.filter(|held| held.way == Way::Cached).collect()
    }

    /// What is known of the parts. Not to be held across an await.
    pub(crate) fn health(&self) -> Ref<'_, Health> {
        self.health.borrow()
    }

    /// What is kept of the run. Not to be held across an await.
    pub(crate) fn ledger(&self) -> RefMut<'_, Ledger> {
        self.ledger.borrow_mut()
    }

    /// A part is disturbed from now on.
    pub(crate) fn disturb(&self, part: Part) {
        self.health.borrow_mut().disturb(part, self.now());
    }

    /// A part works again.
    pub(crate) fn mend(&self, part: Part) {
        self.health.borrow_mut().mend(part, self.now());
    }

    /// Judges a call that began at `from` and has ended now.
    pub(crate) fn judge(
        &self,
        call: Call,
        subject: &str,
        need: &Need,
        from: Duration,
        outcome: Result<(), String>,
    ) {
        let to = self.now();
        let verdict = self.health.borrow().verdict(need, from, to);
        let mut ledger = self.ledger.borrow_mut();
        ledger.call(call, subject, (from, to), verdict, outcome);
    }

    /// Ends everything as it is, and gives what is known.
    pub(crate) fn abandon(self) -> Ledger {
        self.ledger.into_inner()
    }

    /// Ends all of the program's processes as a service manager would, and then everything.
    pub(crate) async fn end(mut self) -> Ledger {
        let mut wrong = Vec::new();
        let shim = self.shim.get_mut();
        match shim.terminate().await {
            Ok(status) if status.success() => {}
            Ok(status) => wrong.push(format!("the shim ended with {status} on SIGTERM")),
            Err(error) => wrong.push(format!("ending the shim: {error:#}")),
        }
        if shim.socket().exists() {
            wrong.push("the shim left its socket behind".to_owned());
        }
        if let Err(error) = self.cache.get_mut().stop().await {
            wrong.push(format!("ending the cache: {error:#}"));
        }
        let webhook = self.webhook.get_mut();
        let ended = match webhook.terminate() {
            Ok(()) => webhook.ended().await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(status) if status.success() => {}
            Ok(status) => wrong.push(format!("the webhook ended with {status} on SIGTERM")),
            Err(error) => wrong.push(format!("ending the webhook: {error:#}")),
        }
        let now = self.now();
        for text in wrong {
            self.ledger().breaks(Invariant::Alive, now, text);
        }
        self.abandon()
    }
}

/// Gives the cache a config of our own, whose store is on a file system of its own, and its clock.
async fn on_disk(
    mut cache: NodeCache,
    addresses: &Addresses,
    disk: &Disk,
    clock: &Clock,
) -> Result<NodeCache> {
    cache.stop().await?;
    for (name, value) in clock.variables() {
        cache.set_variable(&name, &value);
    }
    write_cache_config(&cache, addresses, 0, disk)?;
    cache.start_again().await.context("starting the cache")?;
    Ok(cache)
}

/// Replaces the cache's config in one step.
pub(crate) fn write_cache_config(
    cache: &NodeCache,
    addresses: &Addresses,
    variant: usize,
    disk: &Disk,
) -> Result<()> {
    let store = disk.store().display().to_string();
    let text = site::cache_config(addresses, variant, &store);
    let new = cache.config_file().with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, cache.config_file()).context("replacing the cache's config")
}

async fn start_webhook(binary: &Path, files: &Path, clock: &Clock) -> Result<Webhook> {
    let path = |name: &str| files.join(name).display().to_string();
    let args = [
        "--config-map".to_owned(),
        format!("--tls-cert={}", path("tls.crt")),
        format!("--tls-key={}", path("tls.key")),
        format!("--client-ca={}", path("client-ca.crt")),
        "--shutdown-delay=100ms".to_owned(),
    ];
    let kubeconfig = path("kubeconfig");
    let clock = clock.variables();
    let mut env = vec![("KUBECONFIG", kubeconfig.as_str())];
    env.extend(
        clock
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    );
    let webhook = Webhook::start(binary, &args, &env).await?;
    let ready = wait::within(wait::TIMEOUT, || async {
        (webhook.health("/readyz").await?.0 == 200).then_some(())
    });
    let ready = ready.await;
    ensure!(
        ready.is_some(),
        "the webhook does not get ready:\n{}",
        webhook.log()
    );
    Ok(webhook)
}

/// An address of 127.0.0.1 that nobody listens on.
fn free_address() -> Result<String> {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(free.local_addr()?.to_string())
}

/// A small file system of its own, for the cache's store. It is unmounted when this is dropped.
pub(crate) struct Disk {
    dir: TempDir,
}

impl Disk {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("soak-disk-").tempdir()?;
        let options = std::ffi::CString::new(format!("size={DISK_BYTES}"))?;
        mount(
            "tmpfs",
            dir.path(),
            "tmpfs",
            MountFlags::empty(),
            options.as_c_str(),
        )
        .context("mounting a file system for the cache's store")?;
        Ok(Self { dir })
    }

    /// The directory of the store.
    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn filler(&self) -> PathBuf {
        self.dir.path().join("filler")
    }

    /// Takes all room that is left.
    pub(crate) fn fill(&self) -> Result<()> {
        use std::io::Write;
        let mut filler = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler())?;
        // Large pieces first, and then every byte.
        for size in [1 << 20, 64 << 10, 4096, 1] {
            let piece = vec![1; size];
            while filler.write_all(&piece).is_ok() {}
        }
        Ok(())
    }

    /// Gives the room back.
    pub(crate) fn free(&self) -> Result<()> {
        match fs::remove_file(self.filler()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(self.dir.path(), UnmountFlags::DETACH);
    }
}
