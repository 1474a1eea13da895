//! `cache`: the node cache, wired.

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use ::cache::role::Role;
use ::cache::{control, metrics};
use anyhow::Context;
use cluster::{ClientProvider, KubeconfigCandidates};
use config::{ConfigMapUse, ConfigState, Follower, Source};
use http::{Method, StatusCode};
use listener::{Options, Protocols, reply};
use telemetry::Telemetry;
use telemetry::live::Live;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::process::logging::{self, LogFormat};
use crate::process::{limits, signals, systemd, usage};
use crate::roles::runtime::files as runtime_files;
use crate::stdout;

/// Threads that may wait for the disk at once.
const DISK_THREADS: usize = 64;

/// Serves until SIGTERM or SIGINT; with `dry_run`, checks the config only.
///
/// # Errors
/// The config can't be used, or a port or the directory can't be had.
pub(crate) fn run(
    file: &Path,
    dry_run: bool,
    log_format: LogFormat,
    socket: &Path,
) -> anyhow::Result<()> {
    let loaded = config::file::load(file)?;
    if dry_run {
        for warning in &loaded.warnings {
            stdout::line(warning)?;
        }
        for warning in config::absent::files(&loaded.settings) {
            stdout::line(format_args!("warning: {warning}"))?;
        }
        runtime()?.block_on(::cache::role::check(&loaded.settings))?;
        stdout::line(format_args!("config: ok"))?;
        return Ok(());
    }
    let level = logging::start(log_format, loaded.settings.debug)?;
    limits::raise_open_files();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let settings = loaded.settings.clone();
    let source = Source::File {
        path: file.to_owned(),
        loaded: Box::new(loaded),
        broken_file: None,
        // The shim of this node may write the same file at the same time.
        config_map: ConfigMapUse::Merged,
    };
    runtime()?.block_on(async {
        let shutdown = signals::shutdown()?;
        let instance = format!(
            "image-cri-shim-cache-{:016x}",
            RandomState::new().hash_one(0u8)
        );
        // Before anything answers, so that whoever sees the cache answer can ask it by commands, too.
        let commands = listen_for_commands(socket);
        let certs_dirs = runtime_files::certs_dirs(&settings);
        let role = match Role::start(&settings, &instance, certs_dirs).await {
            Ok(role) => role,
            Err(error) => {
                forget(socket, commands.is_some());
                return Err(error.into());
            }
        };
        let telemetry = Telemetry::new();
        let wake = Arc::new(Notify::new());
        tokio::spawn(signals::follow(Arc::clone(&wake), level.clone(), || ())?);
        let follower = Follower {
            state: ConfigState::new(source.name(), telemetry.clone()),
            source,
            link: Arc::new(ClientProvider::new(KubeconfigCandidates::from_environment())),
            wake,
            wants_credentials: |_| true,
            is_applied: true,
            keeps_last_good: false,
            may_write: Arc::new(true.into()),
        };
        let handle = role.handle();
        let started_with = settings.node_cache.clone();
        let (metrics, metrics_address) = watch::channel(settings.node_cache.metrics_address);
        tokio::spawn(follower.run(move |new| {
            level.set_debug(new.debug);
            metrics.send_replace(new.node_cache.metrics_address);
            let cache = &new.node_cache;
            if cache.listen != started_with.listen || cache.dir != started_with.dir {
                tracing::warn!("nodeCache.listen and nodeCache.dir take effect at a restart");
            }
            handle.configure(&new);
        }));
        let commands = commands.map(|listener| {
            let cache = role.cache().clone();
            AbortOnDropHandle::new(tokio::spawn(control::serve(listener, cache)))
        });
        tokio::spawn(follow_metrics(
            metrics_address,
            role.cache().clone(),
            telemetry,
        ));
        for address in role.addresses() {
            tracing::info!("serving images on {address}");
        }
        let own = role.addresses().first().copied();
        let handle = role.handle();
        tokio::spawn(systemd::watchdog(async move |limit| {
            let Some(own) = own else { return true };
            tokio::time::timeout(limit, answers(own, handle.is_plain()))
                .await
                .is_ok_and(|answer| answer.is_ok())
        }));
        systemd::ready();
        role.serve(async {
            shutdown.await;
            systemd::stopping();
        })
        .await;
        forget(socket, commands.is_some());
        tracing::info!("stopped");
        Ok(())
    })
}

/// Whether the cache answers at its own address. Without a certificate for it, a TLS listener is only
/// connected to.
async fn answers(own: SocketAddr, is_plain: bool) -> std::io::Result<()> {
    let mut address = own;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let mut stream = TcpStream::connect(address).await?;
    if is_plain {
        let request = b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut first = [0; 12];
        stream.read_exact(&mut first).await?;
    }
    Ok(())
}

fn listen_for_commands(socket: &Path) -> Option<tokio::net::UnixListener> {
    match control::bind(socket) {
        Ok(listener) => Some(listener),
        Err(error) => {
            let socket = socket.display();
            tracing::warn!("no commands are answered: cannot listen on {socket}: {error}");
            None
        }
    }
}

/// Who comes after us must not find a socket that nobody answers.
fn forget(socket: &Path, is_ours: bool) {
    if is_ours {
        let _ = std::fs::remove_file(socket);
    }
}

fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(DISK_THREADS)
        .thread_name("cache")
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// Serves metrics at the address that the config names, and at another one as soon as it names another.
async fn follow_metrics(
    mut address: watch::Receiver<Option<SocketAddr>>,
    cache: ::cache::service::Cache,
    telemetry: Telemetry,
) {
    loop {
        let now = *address.borrow_and_update();
        let serving = async {
            if let Some(address) = now {
                serve_metrics(address, cache.clone(), telemetry.clone()).await;
            }
            // Until there is another address.
            std::future::pending::<()>().await;
        };
        let is_other = |address: &Option<SocketAddr>| *address != now;
        tokio::select! {
            () = serving => {}
            changed = address.wait_for(is_other) => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

async fn serve_metrics(address: SocketAddr, cache: ::cache::service::Cache, telemetry: Telemetry) {
    let listener = match listener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!("no metrics: cannot listen on {address}: {error}");
            return;
        }
    };
    let started = SystemTime::now();
    let service = hyper::service::service_fn(move |request: http::Request<_>| {
        let (cache, telemetry) = (cache.clone(), telemetry.clone());
        async move { Ok::<_, Infallible>(answer(&request, cache, &telemetry, started).await) }
    });
    let options = Options::new("the cache's metrics", Protocols::Http1);
    listener::serve(vec![listener], options, service, std::future::pending()).await;
}

async fn answer(
    request: &http::Request<hyper::body::Incoming>,
    cache: ::cache::service::Cache,
    telemetry: &Telemetry,
    started: SystemTime,
) -> http::Response<http_body_util::Full<bytes::Bytes>> {
    if request.method() != Method::GET {
        return reply::text(StatusCode::METHOD_NOT_ALLOWED, "only GET");
    }
    match request.uri().path() {
        "/metrics" => {
            // Counting images reads the index.
            let own = tokio::task::spawn_blocking(move || metrics::encode(&cache)).await;
            let mut text = telemetry.metrics().encode(Live {
                node: None,
                certificate_ends: None,
                process: usage::live(started),
            });
            let end = text.rfind("# EOF").unwrap_or(text.len());
            text.insert_str(end, &own.unwrap_or_default());
            telemetry::exposition::answer(request.headers(), text)
        }
        "/healthz" | "/readyz" => reply::text(StatusCode::OK, "ok"),
        _ => reply::text(StatusCode::NOT_FOUND, "there are /metrics and /healthz"),
    }
}
