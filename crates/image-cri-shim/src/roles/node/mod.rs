//! `serve`: the node shim, wired.
//!
//! | module | what it knows |
//! |---|---|
//! | [`bypass`] | whether kubelet may be led past the shim, and was |
//! | [`dry_run`] | what serving would find |
//! | [`folder`] | the folder that the shim's socket is in |
//! | [`handover`] | one shim takes over from another |
//! | [`inspection`] | what the running shim can be asked |
//! | [`self_probe`] | whether it serves |
//! | [`surface`] | the same at `metricsAddress` |
//! | [`stats`] | the periodic line of counters |
//!
//! The proxy runs on one thread (two were measured to be slower); everything that waits for a
//! network or a disk runs on another, so that no call stands behind a TLS handshake.

mod bypass;
pub(crate) mod dry_run;
mod folder;
mod handover;
mod inspection;
mod self_probe;
mod stats;
mod surface;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use cluster::{ClientProvider, KubeconfigCandidates};
use config::start::Start;
use config::{ConfigMapUse, ConfigState, Follower, Source};
use cri::alias::{Aliases, Opened};
use cri::image_calls::{ImageService, PullGate};
use cri::listener::Listener;
use cri::upstream::Upstream;
use cri::{Leave, Services};
use installer::{Root, transaction};
use policy::config::Settings;
use resolver::Resolver;
use telemetry::Telemetry;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::handover::give::{self, HandOver};
use self::handover::metrics_socket::MetricsSocket;
use self::handover::take::{Inherited, TakeOver};
use self::inspection::{Inspection, Parts};
use super::resolving;
use super::runtime::files::RuntimeFiles;
use super::runtime::socket;
use crate::process::handover::predecessor::Predecessor;
use crate::process::handover::successor::CommandLine;
use crate::process::logging::{self, LogFormat, LogLevel};
use crate::process::{limits, signals, systemd, unit};

/// How long calls in flight may take to finish after SIGTERM. Below systemd's and Kubernetes' own
/// limits of 90 and 30 seconds.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long calls in flight may take to finish after another process has taken over. A pull may take a quarter of an hour;
/// nobody waits for this process.
const HANDED_OVER_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// How long pulls wait after a start, and a hand-over for the new process, until credentials and the ConfigMap's rules are
/// known. Below the time that the old process waits for the new one.
const ANSWERS_TIMEOUT: Duration = Duration::from_secs(4);
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

/// Serves until SIGTERM or SIGINT, or until another process has taken over.
///
/// # Errors
/// The config can't be used and nothing may take its place, the runtime is not there, or the socket can't be had.
pub(crate) fn run(launch: Launch) -> anyhow::Result<()> {
    let Some((predecessor, protocol)) = Predecessor::from_environment() else {
        return serve(launch, None);
    };
    let served = predecessor.offer(&protocol).and_then(|inheritance| {
        let take_over = TakeOver {
            predecessor: &predecessor,
            inheritance,
        };
        serve(launch, Some(take_over))
    });
    if let Err(error) = &served {
        predecessor.failed(error);
    }
    served
}

/// Serves; with `take_over`, as soon as the process that serves now lets us.
fn serve(launch: Launch, take_over: Option<TakeOver<'_>>) -> anyhow::Result<()> {
    let command = CommandLine::own()?;
    let Launch {
        file,
        listen,
        log_format,
        no_telemetry,
    } = launch;
    // A shim that still serves has a config that can be used.
    let must_serve = take_over.is_none() && systemd::waits_for_us();
    let Start {
        loaded,
        broken_file,
    } = config::start::load(&file, must_serve)?;
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
    let runtime_socket = socket::of(&settings)?;
    let mut runtime_files = RuntimeFiles::new(runtime_socket.clone());
    let settings = runtime_files.applied_to(settings);
    if !socket::is_there(&runtime_socket) {
        let shown = runtime_socket.display();
        // Distributions start their runtime after us, and kubelet needs our socket before that.
        if !settings.force && !systemd::runs_us() && take_over.is_none() {
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
        config_map: ConfigMapUse::Written(stays_ours),
    };
    let config = ConfigState::new(source.name(), telemetry.clone());
    let handle = background.handle().clone();
    let marks_bypass = listen.is_some();
    let wanted = listen.unwrap_or_else(|| settings.shim_socket.clone());
    let socket = match &take_over {
        Some(take_over) => take_over.socket(),
        None => {
            if let Some(warning) = folder::warning(&wanted, &settings.state_dir) {
                tracing::warn!("{warning}");
            }
            wanted.clone()
        }
    };
    if socket != wanted {
        tracing::warn!(
            "the socket stays {} until the next restart; the config names {}",
            socket.display(),
            wanted.display()
        );
    }
    let mut node = Node::new(
        settings,
        socket,
        runtime_socket,
        level,
        handle,
        telemetry,
        &config,
    );
    if take_over.is_none() {
        open_aliases(&node.aliases, &node.state_dir);
    }
    node.marks_bypass = marks_bypass;
    let served = proxy.block_on(node.serve(source, config, runtime_files, command, take_over));
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
    aliases: Aliases,
    /// Where they are kept; fixed at start.
    state_dir: PathBuf,
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
        config: &ConfigState,
    ) -> Self {
        let aliases = Aliases::default();
        let state_dir = settings.state_dir.clone();
        let resolver = resolving::resolver(
            &settings,
            Some(&runtime_socket),
            background.clone(),
            telemetry.clone(),
        );
        let needs_credentials = !settings.credential_needs().is_empty();
        let gate = needs_credentials
            .then(|| PullGate::new(config.credentials_answered(), ANSWERS_TIMEOUT));
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let service = ImageService::new(
            resolver.clone(),
            aliases.clone(),
            Arc::clone(&settings),
            background.clone(),
            telemetry.clone(),
            gate,
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
            aliases,
            state_dir,
            service,
            telemetry,
        }
    }

    fn inspection(&self, config: ConfigState, hand_over: HandOver) -> Inspection {
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
            hand_over,
        })
    }

    /// `source` is where the config in force came from.
    async fn serve(
        self,
        source: Source,
        config: ConfigState,
        runtime_files: RuntimeFiles,
        command: CommandLine,
        take_over: Option<TakeOver<'_>>,
    ) -> anyhow::Result<()> {
        let runtime = self.runtime_socket.clone();
        let (listener, turnover, metrics, unit) = match take_over {
            None => {
                let listener = Listener::bind(&self.socket, &runtime)?;
                (listener, None, MetricsSocket::default(), unit::files())
            }
            Some(take_over) => {
                let (Inherited { listener, turnover }, kept) = take_over.inherit(runtime)?;
                (listener, Some(turnover), kept.metrics, kept.unit)
            }
        };
        let hand_over = HandOver::new(give::Parts {
            command,
            background: self.background.clone(),
            runtime: self.runtime_socket.clone(),
            aliases: self.aliases.clone(),
            state_dir: self.state_dir.clone(),
            metrics,
            unit,
        });
        let left = hand_over.serves(listener.copy()?);
        let mut shutdown = Box::pin(signals::shutdown()?);
        let wake = Arc::new(Notify::new());
        let resolver = self.resolver.clone();
        let on_hangup = move || resolver.close_circuits();
        let level = self.level.clone();
        tokio::spawn(signals::follow(Arc::clone(&wake), level, on_hangup)?);
        let inspection = self.inspection(config.clone(), hand_over.clone());
        // Two that write the same files would undo each other's work.
        let may_write = Arc::new(AtomicBool::new(turnover.is_none()));
        let follower = Follower {
            source,
            link: Arc::new(ClientProvider::new(KubeconfigCandidates::from_environment())),
            wake: Arc::clone(&wake),
            state: config.clone(),
            wants_credentials: |_| true,
            is_applied: true,
            keeps_last_good: systemd::waits_for_us(),
            may_write: Arc::clone(&may_write),
        };
        let metrics_address = self.follow(follower, runtime_files, &hand_over);
        let alone = {
            let alone = self.alone(metrics_address, inspection.clone(), &hand_over);
            move || {
                may_write.store(true, Ordering::Release);
                wake.notify_one();
                alone();
            }
        };
        let serving = self.serving(&hand_over);
        let predecessor = match turnover {
            None => {
                alone();
                serving();
                systemd::ready();
                if self.marks_bypass {
                    let socket = self.socket.clone();
                    self.background
                        .spawn(async move { bypass::announce(&socket).await });
                }
                None
            }
            Some(turnover) => {
                let (is_alone, told) = oneshot::channel();
                tokio::spawn(async move {
                    if told.await.is_ok() {
                        alone();
                    }
                });
                let dir = self.state_dir.clone();
                let open = move |aliases: &Aliases| open_aliases(aliases, &dir);
                let (aliases, background) = (self.aliases.clone(), self.background.clone());
                Some(tokio::spawn(async move {
                    all_answered(&config).await;
                    let followed = turnover.follow(aliases, open, background, serving, is_alone);
                    followed.await;
                }))
            }
        };
        let time_is_up = CancellationToken::new();
        let leave = {
            let (hand_over, time_is_up) = (hand_over.clone(), time_is_up.clone());
            async move {
                tokio::select! {
                    () = shutdown.as_mut() => {
                        hand_over.stop();
                        systemd::stopping();
                        Leave::Stop
                    }
                    () = handed_over(left) => {
                        let until = Box::pin(time_is_up.clone().cancelled_owned());
                        tokio::spawn(async move {
                            let told_to_stop = async {
                                shutdown.await;
                                tokio::time::sleep(DRAIN_TIMEOUT).await;
                            };
                            // Either is the end.
                            let _ = tokio::time::timeout(HANDED_OVER_TIMEOUT, told_to_stop).await;
                            time_is_up.cancel();
                        });
                        Leave::HandedOver { until }
                    }
                }
            }
        };
        let services = Services {
            calls: Arc::new(self.service),
            inspection: Arc::new(inspection),
            telemetry: self.telemetry,
        };
        cri::serve(listener, self.upstream, services, leave, DRAIN_TIMEOUT).await;
        if hand_over.is_done() {
            // What its calls still learn goes by us to the next.
            if let Some(predecessor) = predecessor {
                tokio::select! {
                    _ = predecessor => {}
                    () = time_is_up.cancelled() => {}
                }
            }
            hand_over.finish().await;
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// Follows the config from now on. Gives where `metricsAddress` is to be, as it changes.
    fn follow(
        &self,
        follower: Follower,
        mut runtime_files: RuntimeFiles,
        hand_over: &HandOver,
    ) -> watch::Receiver<Option<SocketAddr>> {
        let (settings, level) = (Arc::clone(&self.settings), self.level.clone());
        let resolver = self.resolver.clone();
        let mark = self.marks_bypass.then(|| self.socket.clone());
        let may_write = Arc::clone(&follower.may_write);
        let (metrics, metrics_address) = watch::channel(settings.load().metrics_address);
        let followed = self.background.spawn(follower.run(move |new| {
            let new = runtime_files.applied_to(new);
            metrics.send_replace(new.metrics_address);
            if may_write.load(Ordering::Acquire)
                && let Some(socket) = &mark
            {
                bypass::mark(socket, &new);
            }
            apply(new, &settings, &level, &resolver);
        }));
        hand_over.alone(followed.abort_handle());
        metrics_address
    }

    /// What only one process may do of those that serve a socket together, beside writing files: answer at
    /// `metricsAddress`, and say whether kubelet may be led past the socket.
    fn alone(
        &self,
        metrics_address: watch::Receiver<Option<SocketAddr>>,
        inspection: Inspection,
        hand_over: &HandOver,
    ) -> impl FnOnce() + Send + use<> {
        let settings = Arc::clone(&self.settings);
        let (resolver, background) = (self.resolver.clone(), self.background.clone());
        let mark = self.marks_bypass.then(|| self.socket.clone());
        let hand_over = hand_over.clone();
        move || {
            background.spawn(surface::follow(metrics_address, inspection));
            if let Some(socket) = &mark {
                bypass::mark(socket, &settings.load());
            }
            let stats = background.spawn(stats::log_periodically(resolver, move || {
                settings.load().cache.stats_log_interval
            }));
            hand_over.alone(stats.abort_handle());
        }
    }

    /// What begins when this process accepts connections.
    fn serving(&self, hand_over: &HandOver) -> impl FnOnce() + Send + use<> {
        let (own, runtime) = (self.socket.clone(), self.runtime_socket.clone());
        let hand_over = hand_over.clone();
        move || {
            tracing::info!(
                "serving on {} in front of {}",
                own.display(),
                runtime.display()
            );
            let watched = tokio::spawn(systemd::watchdog(async move |limit| {
                self_probe::answers(&Upstream::new(&own), &runtime, limit).await
            }));
            hand_over.alone(watched.abort_handle());
        }
    }
}

/// Waits for what the config points to, so that a process that takes over from one that knows it is no step back.
async fn all_answered(config: &ConfigState) {
    let mut credentials = config.credentials_answered();
    let mut config_map = config.config_map_answered();
    let both = async {
        // The ConfigMap first, since it may bring what needs credentials. Either ends with an error where the config is
        // followed no more, which the log says.
        let _ = config_map.wait_for(|answered| *answered).await;
        let _ = credentials.wait_for(|answered| *answered).await;
    };
    if tokio::time::timeout(ANSWERS_TIMEOUT, both).await.is_err() {
        tracing::warn!(
            "not all that the config points to has answered within {ANSWERS_TIMEOUT:?}; taking over without it"
        );
    }
}

/// Ends when another process has taken over.
async fn handed_over(left: oneshot::Receiver<()>) {
    if left.await.is_err() {
        std::future::pending().await
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

fn open_aliases(aliases: &Aliases, dir: &Path) {
    match aliases.open_later(dir) {
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
}

/// What the shim makes of a config that `install` has brought stays the install's own: it is followed, and removed.
fn stays_ours(path: &Path, old: &str, new: &str) {
    let root = Root::new("/");
    if let Err(error) = transaction::note_rewrite(&root, path, old.as_bytes(), new.as_bytes()) {
        tracing::warn!(
            "cannot note for `install` that {} is written anew: {error}; it will take the file for one that somebody has edited, and leave it",
            path.display()
        );
    }
}
