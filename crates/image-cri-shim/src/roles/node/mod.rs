//! `serve`: the node shim, wired.
//!
//! | module | what it knows |
//! |---|---|
//! | [`bypass`] | whether kubelet may be led past the shim, and was |
//! | [`detect`] | the runtime's socket |
//! | [`dry_run`] | what serving would find |
//! | [`inspection`] | what the running shim can be asked |
//! | [`runtime_files`] | the runtime's own files, beside each config |
//! | [`self_probe`] | whether it serves |
//! | [`surface`] | the same at `metricsAddress` |
//! | [`stats`] | the periodic line of counters |
//!
//! The proxy runs on one thread (two were measured to be slower); everything that waits for a
//! network or a disk runs on another, so that no call stands behind a TLS handshake.

mod bypass;
mod detect;
pub(crate) mod dry_run;
mod inspection;
pub(crate) mod runtime_files;
mod self_probe;
mod stats;
mod surface;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use cluster::{ClientProvider, KubeconfigCandidates};
use config::start::Start;
use config::{ConfigMapUse, ConfigState, Follower, Source};
use cri::Services;
use cri::alias::{Aliases, Opened};
use cri::image_calls::ImageService;
use cri::listener::Listener;
use cri::upstream::Upstream;
use policy::config::Settings;
use resolver::Resolver;
use telemetry::Telemetry;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, watch};

use self::inspection::{Inspection, Parts};
use self::runtime_files::RuntimeFiles;
use super::resolving;
use crate::process::logging::{self, LogFormat, LogLevel};
use crate::process::{limits, signals, systemd};

/// How long calls in flight may take to finish after SIGTERM. Below systemd's and Kubernetes' own
/// limits of 90 and 30 seconds.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long background work may take to end after the proxy has.
const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(2);

/// How to serve, beside the config.
pub(crate) struct Launch {
    /// The config file.
    pub(crate) file: PathBuf,
    /// The socket to listen on, in place of the config's.
    pub(crate) listen: Option<PathBuf>,
    pub(crate) log_format: LogFormat,
    /// Count nothing and keep no history.
    pub(crate) no_telemetry: bool,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The config can't be used and nothing may take its place, the runtime is not there, or the socket can't be had.
pub(crate) fn run(launch: Launch) -> anyhow::Result<()> {
    let Launch {
        file,
        listen,
        log_format,
        no_telemetry,
    } = launch;
    let Start {
        loaded,
        broken_file,
    } = config::start::load(&file, systemd::waits_for_us())?;
    let settings = loaded.settings.clone();
    let level = logging::start(log_format, settings.debug)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(broken_file) = &broken_file {
        broken_file.announce();
    }
    config::announce::config(&settings);
    limits::raise_open_files();
    let runtime_socket = detect::runtime_socket(&settings)?;
    let mut runtime_files = RuntimeFiles::new(runtime_socket.clone());
    let settings = runtime_files.applied_to(settings);
    if !detect::is_socket(&runtime_socket) {
        let shown = runtime_socket.display();
        // Distributions start their runtime after us, and kubelet needs our socket before that.
        if !settings.force && !systemd::runs_us() {
            bail!(
                "the container runtime's socket {shown} is not there; start the runtime, set `cri:`, or set `force: true` to start without it"
            );
        }
        tracing::warn!(
            "the container runtime's socket {shown} is not there yet; serving all the same, and calls fail until it is"
        );
    }
    let background = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("background")
        .enable_all()
        .build()
        .context("cannot start the background runtime")?;
    let proxy = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the proxy's runtime")?;
    let telemetry = if no_telemetry {
        Telemetry::off()
    } else {
        Telemetry::new()
    };
    let source = Source::File {
        path: file,
        loaded: Box::new(loaded),
        broken_file: broken_file.map(Box::new),
        config_map: ConfigMapUse::Written,
    };
    let config = ConfigState::new(source.name(), telemetry.clone());
    let handle = background.handle().clone();
    let marks_bypass = listen.is_some();
    let socket = listen.unwrap_or_else(|| settings.shim_socket.clone());
    let mut node = Node::new(settings, socket, runtime_socket, level, handle, telemetry);
    node.marks_bypass = marks_bypass;
    let served = proxy.block_on(node.serve(source, config, runtime_files));
    background.shutdown_timeout(BACKGROUND_TIMEOUT);
    served
}

/// Everything that lives as long as the process.
struct Node {
    /// The config in force.
    settings: Arc<ArcSwap<Settings>>,
    /// The socket we listen on; fixed at start.
    socket: PathBuf,
    /// Whether a script of the packages turns kubelet away from the socket while nobody serves it.
    marks_bypass: bool,
    /// The runtime's socket; fixed at start.
    runtime_socket: PathBuf,
    /// Follows `debug`, and SIGUSR1.
    level: LogLevel,
    /// Where probes, files and reloads run.
    background: Handle,
    resolver: Resolver,
    service: ImageService,
    upstream: Upstream,
    telemetry: Telemetry,
}

impl Node {
    fn new(
        settings: Settings,
        socket: PathBuf,
        runtime_socket: PathBuf,
        level: LogLevel,
        background: Handle,
        telemetry: Telemetry,
    ) -> Self {
        let resolver = resolving::resolver(
            &settings,
            Some(&runtime_socket),
            background.clone(),
            telemetry.clone(),
        );
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let service = ImageService::new(
            resolver.clone(),
            open_aliases(&settings.load().state_dir),
            Arc::clone(&settings),
            background.clone(),
            telemetry.clone(),
        );
        Self {
            settings,
            socket,
            marks_bypass: false,
            upstream: Upstream::new(&runtime_socket),
            runtime_socket,
            level,
            background,
            resolver,
            service,
            telemetry,
        }
    }

    fn inspection(&self, config: ConfigState) -> Inspection {
        Inspection::new(Parts {
            settings: Arc::clone(&self.settings),
            socket: self.socket.clone(),
            resolver: self.resolver.clone(),
            telemetry: self.telemetry.clone(),
            config,
            // A connection of its own: the proxy's lives on the proxy's thread.
            upstream: Upstream::new(&self.runtime_socket),
            background: self.background.clone(),
            leads_past: self.marks_bypass,
        })
    }

    /// `source` is where the config in force came from.
    async fn serve(
        self,
        source: Source,
        config: ConfigState,
        mut runtime_files: RuntimeFiles,
    ) -> anyhow::Result<()> {
        let socket = self.socket.clone();
        let listener = Listener::bind(&socket, &self.runtime_socket)?;
        let shutdown = signals::shutdown()?;
        let wake = Arc::new(Notify::new());
        let resolver = self.resolver.clone();
        let on_hangup = move || resolver.close_circuits();
        let level = self.level.clone();
        tokio::spawn(signals::follow(Arc::clone(&wake), level, on_hangup)?);
        let inspection = self.inspection(config.clone());
        let (metrics, metrics_address) = watch::channel(self.settings.load().metrics_address);
        self.background
            .spawn(surface::follow(metrics_address, inspection.clone()));
        let follower = Follower {
            source,
            link: Arc::new(ClientProvider::new(KubeconfigCandidates::from_environment())),
            wake,
            state: config,
            wants_credentials: |_| true,
            is_applied: true,
            keeps_last_good: systemd::waits_for_us(),
        };
        self.background.spawn(follower.run({
            let (settings, level) = (Arc::clone(&self.settings), self.level.clone());
            let resolver = self.resolver.clone();
            let mark = self.marks_bypass.then(|| socket.clone());
            if let Some(socket) = &mark {
                bypass::mark(socket, &settings.load());
            }
            move |new| {
                let new = runtime_files.applied_to(new);
                metrics.send_replace(new.metrics_address);
                if let Some(socket) = &mark {
                    bypass::mark(socket, &new);
                }
                apply(new, &settings, &level, &resolver);
            }
        }));
        let settings = Arc::clone(&self.settings);
        self.background
            .spawn(stats::log_periodically(self.resolver.clone(), move || {
                settings.load().cache.stats_log_interval
            }));
        tokio::spawn({
            let (own, runtime) = (socket.clone(), self.runtime_socket.clone());
            systemd::watchdog(async move |limit| self_probe::serves(&own, &runtime, limit).await)
        });
        tracing::info!(
            "serving on {} in front of {}",
            socket.display(),
            self.runtime_socket.display()
        );
        systemd::ready();
        if self.marks_bypass {
            let socket = socket.clone();
            self.background
                .spawn(async move { bypass::announce(&socket).await });
        }
        cri::serve(
            listener,
            self.upstream,
            Services {
                calls: Arc::new(self.service),
                inspection: Arc::new(inspection),
                telemetry: self.telemetry,
            },
            async {
                shutdown.await;
                systemd::stopping();
            },
            DRAIN_TIMEOUT,
        )
        .await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Puts a new config in force for everything that begins from now on. It is one value; the resolver is told
/// of it first, so that nobody asks by new rules with old time-outs.
fn apply(new: Settings, settings: &ArcSwap<Settings>, level: &LogLevel, resolver: &Resolver) {
    announce_restart(&settings.load(), &new);
    if new.debug != settings.load().debug {
        level.set_debug(new.debug);
    }
    resolving::reconfigure(resolver, &new);
    settings.store(Arc::new(new));
}

/// Says what a new config changes that only a restart brings about.
fn announce_restart(old: &Settings, new: &Settings) {
    let fields = [
        ("shim", old.shim_socket != new.shim_socket),
        ("cri", old.runtime_socket != new.runtime_socket),
        ("image", old.state_dir != new.state_dir),
    ];
    let changed: Vec<_> = fields.iter().filter(|(_, differs)| *differs).collect();
    if !changed.is_empty() {
        let names: Vec<_> = changed.iter().map(|(name, _)| *name).collect();
        tracing::warn!(
            "{} changed in the config; that takes effect with the next restart",
            names.join(", ")
        );
    }
}

fn open_aliases(dir: &Path) -> Aliases {
    let (aliases, opened) = Aliases::open(dir);
    match opened {
        Opened::Read(count) => tracing::debug!("read {count} aliases from {}", dir.display()),
        Opened::Damaged { read, lost } => tracing::warn!(
            "{lost} lines of the alias file in {} are damaged and left out; {read} aliases are kept",
            dir.display()
        ),
        Opened::Unusable { path, error } => tracing::warn!(
            "cannot use {}: {error}; what images were pulled as is forgotten at the next restart (`image:` in the config names another directory)",
            path.display()
        ),
    }
    aliases
}
