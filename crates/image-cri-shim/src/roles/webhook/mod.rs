//! `webhook`: the admission webhook, wired.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::webhook::health::{self, Readiness};
use ::webhook::self_signed::{Lifetimes, Options, SelfSigned};
use ::webhook::{Admission, Callers, Limits};
use anyhow::Context;
use clap::Args;
use cluster::{ClientProvider, KubeconfigCandidates};
use config::file::Loaded;
use config::{ConfigState, Follower, Source, Watch};
use listener::certificate::Store;
use listener::certificate::files::Files;
use listener::{ClientCertificates, Protocols, Tls};
use policy::config::{Rewrite, Settings};
use resolver::Resolver;
use telemetry::Telemetry;
use telemetry::live::Live;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;

use super::resolving;
use crate::options::ServiceArgs;
use crate::process::logging::{self, LogFormat, LogLevel};
use crate::process::{limits, signals, usage};

/// Where a Pod is told its namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
const DEFAULT_NAMESPACE: &str = "image-cri-shim";

/// What `webhook` is told on the command line.
#[derive(Debug, Args)]
pub(crate) struct WebhookArgs {
    #[command(flatten)]
    pub(crate) service_args: ServiceArgs,

    /// Take the rules from the ConfigMap kube-system/image-cri-shim, not from the config file
    #[arg(long)]
    config_map: bool,

    /// Where API servers are answered, with TLS
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8443")]
    listen: SocketAddr,

    /// Where /healthz, /readyz and /metrics are answered, without TLS
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8081")]
    health_listen: SocketAddr,

    /// The certificate chain, in PEM; followed when it changes
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/image-cri-shim/tls/tls.crt",
        conflicts_with = "self_signed"
    )]
    tls_cert: PathBuf,

    /// Its private key, in PEM
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/image-cri-shim/tls/tls.key",
        conflicts_with = "self_signed"
    )]
    tls_key: PathBuf,

    /// Make a CA and a certificate, share them with the other replicas through a Secret, and tell the API
    /// server to trust them
    #[arg(long)]
    self_signed: bool,

    /// The webhook's own namespace; else $POD_NAMESPACE, else the service account's
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,

    /// The Service that the API server calls
    #[arg(long, value_name = "NAME", default_value = "image-cri-shim-webhook")]
    service: String,

    /// The Secret for --self-signed
    #[arg(
        long,
        value_name = "NAME",
        default_value = "image-cri-shim-webhook-tls"
    )]
    secret: String,

    /// The MutatingWebhookConfiguration whose caBundle --self-signed keeps in step
    #[arg(long, value_name = "NAME", default_value = "image-cri-shim")]
    registration: String,

    /// How long reviews are still accepted after SIGTERM, until every API server knows that we go
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    shutdown_delay: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    policy::duration::parse(text).map_err(|error| error.to_string())
}

/// Serves until SIGTERM or SIGINT; with `dry_run`, checks the config only.
///
/// # Errors
/// The config can't be used, or a port can't be had.
pub(crate) fn run(
    file: &Path,
    dry_run: bool,
    log_format: LogFormat,
    args: &WebhookArgs,
) -> anyhow::Result<()> {
    // Read before any port is bound, so that a bad file is the first thing that is said.
    let loaded = if args.config_map {
        None
    } else {
        Some(config::file::load(file)?)
    };
    if dry_run {
        return check(loaded);
    }
    let debug = loaded.as_ref().is_some_and(|loaded| loaded.settings.debug);
    let level = logging::start(log_format, debug)?;
    limits::raise_open_files();
    for warning in loaded.iter().flat_map(|loaded| &loaded.warnings) {
        tracing::warn!("{warning}");
    }
    let source = match loaded {
        Some(loaded) => Source::File {
            path: file.to_owned(),
            loaded: Box::new(loaded),
            merge_config_map: false,
        },
        None => Source::ConfigMap,
    };
    runtime()?.block_on(serve(args, source, level))
}

/// Reviews are short and few; one thread keeps the memory small.
fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// Prints what serving would say about the config, and fails where it would have none.
fn check(loaded: Option<Loaded>) -> anyhow::Result<()> {
    let warnings = match loaded {
        Some(loaded) => loaded.warnings,
        None => {
            let link = ClientProvider::new(KubeconfigCandidates::from_environment());
            runtime()?.block_on(config::check_config_map(&link))?
        }
    };
    for warning in warnings {
        println!("{warning}");
    }
    println!("config: ok");
    Ok(())
}

async fn serve(args: &WebhookArgs, source: Source, level: LogLevel) -> anyhow::Result<()> {
    let listener = listen(args.listen).await?;
    let health_listener = listen(args.health_listen).await?;
    let bound = listener.local_addr().context("cannot listen")?;
    let health_bound = health_listener.local_addr().context("cannot listen")?;
    let shutdown = signals::shutdown()?;

    let namespace = namespace(args);
    let telemetry = Telemetry::new();
    let (admission, resolver) = admission(&namespace, &telemetry);
    let link = Arc::new(ClientProvider::new(KubeconfigCandidates::from_environment()));
    let wake = Arc::new(Notify::new());
    let on_hangup = {
        let resolver = resolver.clone();
        move || resolver.close_circuits()
    };
    tokio::spawn(signals::follow(
        Arc::clone(&wake),
        level.clone(),
        on_hangup,
    )?);
    let state = ConfigState::new(source.name(), telemetry.clone());
    let follower = Follower {
        source,
        link: Arc::clone(&link),
        wake,
        state,
        // Redirects alone ask no registry.
        wants_credentials: |settings| settings.webhook.rewrite == Rewrite::Best,
        is_applied: false,
    };
    tokio::spawn(follower.run({
        let admission = admission.clone();
        move |settings| apply(settings, &admission, &resolver, &level)
    }));

    let store = Arc::new(Store::default());
    let keys = args.self_signed.then(|| {
        let options = Options {
            namespace,
            secret: args.secret.clone(),
            service: args.service.clone(),
            registration: args.registration.clone(),
            lifetimes: Lifetimes::default(),
        };
        SelfSigned::new(link, options, Arc::clone(&store))
    });
    match keys.clone() {
        Some(keys) => tokio::spawn(keys.follow()),
        None => {
            let files = Files {
                certificate: args.tls_cert.clone(),
                key: args.tls_key.clone(),
            };
            let (store, wake) = (Arc::clone(&store), Arc::new(Notify::new()));
            let watch = Watch::start(&[&files.certificate, &files.key], Arc::clone(&wake));
            tokio::spawn(async move {
                let _watch = watch;
                files.follow(store, wake).await;
            })
        }
    };

    let protocols = Protocols::Http1AndHttp2;
    let tls = Tls::new(Arc::clone(&store), protocols, &ClientCertificates::None)?;
    let tls = Arc::new(tls);
    let stopping = Arc::new(AtomicBool::new(false));
    tokio::spawn(health::serve(
        health_listener,
        Readiness {
            admission: admission.clone(),
            certificates: Arc::clone(&store),
            other: other_conditions(keys, Arc::clone(&stopping)),
        },
        metrics(telemetry, Arc::clone(&store)),
    ));
    tracing::info!("answering reviews on {bound}, health on {health_bound}");
    let delay = args.shutdown_delay;
    let served = ::webhook::serve(
        listener,
        tls,
        admission,
        Callers::Unknown,
        Limits::default(),
        async move {
            shutdown.await;
            stopping.store(true, Ordering::Relaxed);
            tracing::info!("stopping: accepting reviews for another {delay:?}");
            tokio::time::sleep(delay).await;
        },
    );
    served.await;
    tracing::info!("stopped");
    Ok(())
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = listener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address}"))
}

fn admission(namespace: &str, telemetry: &Telemetry) -> (Admission, Resolver) {
    let (defaults, _) = Settings::read("", &|_| None);
    let resolver = resolving::resolver(&defaults, Handle::current(), telemetry.clone());
    let namespace = Some(namespace.to_owned());
    let admission = Admission::new(resolver.clone(), namespace, telemetry.clone());
    (admission, resolver)
}

/// Puts a config in force.
fn apply(settings: Settings, admission: &Admission, resolver: &Resolver, level: &LogLevel) {
    level.set_debug(settings.debug);
    resolving::reconfigure(resolver, &settings);
    admission.apply(settings);
}

/// What a scrape gets.
fn metrics(telemetry: Telemetry, store: Arc<Store>) -> health::Metrics {
    let started = SystemTime::now();
    Arc::new(move || {
        let ends = store
            .ends()
            .and_then(|ends| ends.duration_since(UNIX_EPOCH).ok());
        telemetry.metrics().encode(Live {
            node: None,
            certificate_ends: ends.map(|ends| ends.as_secs_f64()),
            process: usage::live(started),
        })
    })
}

/// What readiness depends on beside config and certificate.
fn other_conditions(
    keys: Option<SelfSigned>,
    stopping: Arc<AtomicBool>,
) -> Arc<dyn Fn() -> Result<(), String> + Send + Sync> {
    Arc::new(move || {
        if stopping.load(Ordering::Relaxed) {
            return Err("stopping".to_owned());
        }
        keys.as_ref().map_or(Ok(()), SelfSigned::check)
    })
}

fn namespace(args: &WebhookArgs) -> String {
    let told = || args.namespace.clone();
    let from_environment = || std::env::var("POD_NAMESPACE").ok();
    let from_file = || std::fs::read_to_string(Path::new(NAMESPACE_FILE)).ok();
    told()
        .or_else(from_environment)
        .or_else(from_file)
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())
}
