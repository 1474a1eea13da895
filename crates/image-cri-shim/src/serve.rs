//! `serve`: the node shim, wired.
//!
//! The proxy runs on one thread (two were measured to be slower); everything that waits for a
//! network or a disk runs on another, so that no call stands behind a TLS handshake.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use cri::Services;
use cri::alias::{Aliases, Opened};
use cri::image_calls::{ImageService, Policy};
use cri::listener::Listener;
use cri::upstream::Upstream;
use policy::config::Settings;
use registry::{Client, ClientOptions, ProxySettings};
use resolver::{Options, Resolver};
use telemetry::Telemetry;
use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::cli::Cli;
use crate::config::keeper::ConfigKeeper;
use crate::config::state::ConfigState;
use crate::inspection::{Inspection, Parts};
use crate::logging::LogLevel;
use crate::{announce, config, detect, logging, stats, surface, systemd};

/// How long calls in flight may take to finish after SIGTERM. Below systemd's and Kubernetes' own
/// patience of 90 and 30 seconds.
const DRAIN: Duration = Duration::from_secs(20);
/// How long background work may take to end after the proxy has.
const BACKGROUND_PATIENCE: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(cli: &Cli) -> anyhow::Result<()> {
    let loaded = config::file::load(&cli.file)?;
    let settings = loaded.settings;
    let level = logging::start(cli.log_format, settings.debug)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    announce::config(&settings);
    let runtime_socket = detect::runtime_socket(&settings)?;
    if !settings.force && !detect::is_socket(&runtime_socket) {
        bail!(
            "the container runtime's socket {} is not there; start the runtime, set `cri:`, or set `force: true` to start without it",
            runtime_socket.display()
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
    let telemetry = if cli.no_telemetry {
        Telemetry::off()
    } else {
        Telemetry::new()
    };
    let config = ConfigState::new(cli.file.display().to_string(), telemetry.clone());
    let handle = background.handle().clone();
    let node = Node::new(settings, runtime_socket, level, handle, telemetry);
    let served = proxy.block_on(node.serve(cli.file.clone(), loaded.text, config));
    background.shutdown_timeout(BACKGROUND_PATIENCE);
    served
}

/// Everything that lives as long as the process.
struct Node {
    /// The config in force.
    settings: Arc<ArcSwap<Settings>>,
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
        runtime_socket: PathBuf,
        level: LogLevel,
        background: Handle,
        telemetry: Telemetry,
    ) -> Self {
        let client = Client::new(ClientOptions {
            domain_cache_ttl: settings.cache.domain_cache_ttl,
            proxies: ProxySettings::from_env(),
            ..ClientOptions::default()
        });
        let options = resolver_options(&settings);
        let resolver = Resolver::new(client, background.clone(), options, telemetry.clone());
        let service = ImageService::new(
            resolver.clone(),
            open_aliases(&settings.state_dir),
            call_policy(&settings),
            background.clone(),
            telemetry.clone(),
        );
        Self {
            settings: Arc::new(ArcSwap::from_pointee(settings)),
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
            resolver: self.resolver.clone(),
            telemetry: self.telemetry.clone(),
            config,
            // A connection of its own: the proxy's lives on the proxy's thread.
            upstream: Upstream::new(&self.runtime_socket),
            background: self.background.clone(),
        })
    }

    /// `file` and `text` are where the config in force came from.
    async fn serve(self, file: PathBuf, text: String, config: ConfigState) -> anyhow::Result<()> {
        let socket = self.settings.load().shim_socket.clone();
        let listener = Listener::bind(&socket, &self.runtime_socket)?;
        let shutdown = shutdown_signal()?;
        let wake = Arc::new(Notify::new());
        tokio::spawn(follow_signals(Arc::clone(&wake), self.level.clone())?);
        let inspection = self.inspection(config.clone());
        if let Some(address) = self.settings.load().metrics_address {
            self.background
                .spawn(surface::serve(address, inspection.clone()));
        }
        let keeper = ConfigKeeper::new(file, text, Arc::clone(&self.settings), wake, config);
        self.background.spawn(keeper.run({
            let (settings, level) = (Arc::clone(&self.settings), self.level.clone());
            let (resolver, service) = (self.resolver.clone(), self.service.clone());
            move |new| apply(new, &settings, &level, &resolver, &service)
        }));
        let settings = Arc::clone(&self.settings);
        self.background
            .spawn(stats::log_periodically(self.resolver.clone(), move || {
                settings.load().cache.stats_log_interval
            }));
        tokio::spawn(systemd::watchdog());
        tracing::info!(
            "serving on {} in front of {}",
            socket.display(),
            self.runtime_socket.display()
        );
        systemd::ready();
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
                tracing::info!("stopping: calls in flight may take {DRAIN:?} to finish");
            },
            DRAIN,
        )
        .await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Puts a new config in force for everything that begins from now on.
fn apply(
    new: Settings,
    settings: &ArcSwap<Settings>,
    level: &LogLevel,
    resolver: &Resolver,
    service: &ImageService,
) {
    announce::config(&new);
    if new.debug != settings.load().debug {
        level.set_debug(new.debug);
    }
    reconfigure(resolver, &new);
    service.set_policy(call_policy(&new));
    settings.store(Arc::new(new));
}

/// Lets a resolver ask by a new config.
pub(crate) fn reconfigure(resolver: &Resolver, new: &Settings) {
    resolver
        .client()
        .set_domain_cache_ttl(new.cache.domain_cache_ttl);
    resolver.reconfigure(resolver_options(new), &new.rules);
}

pub(crate) fn resolver_options(settings: &Settings) -> Options {
    Options {
        probe_timeout: settings.probe_timeout,
        found_ttl: settings.cache.image_cache_ttl,
        absent_ttl: settings.cache.negative_ttl,
        size: settings.cache.image_cache_size,
    }
}

fn call_policy(settings: &Settings) -> Policy {
    Policy {
        rules: settings.rules.clone(),
        timeout: settings.timeout,
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

pub(crate) fn shutdown_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// SIGHUP re-reads the config; SIGUSR1 switches debug lines over.
pub(crate) fn follow_signals(
    wake: Arc<Notify>,
    level: LogLevel,
) -> anyhow::Result<impl Future<Output = ()>> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let mut user = signal(SignalKind::user_defined1()).context("cannot listen for SIGUSR1")?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = hangup.recv() => wake.notify_one(),
                _ = user.recv() => {
                    let now = if level.toggle() { "on" } else { "off" };
                    tracing::info!("debug lines are {now}");
                }
            }
        }
    })
}
