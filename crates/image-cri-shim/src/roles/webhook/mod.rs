//! `webhook`: the admission webhook, wired.

mod args;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ::webhook::health::{self, Readiness};
use ::webhook::self_signed::{CertificateOptions, Lifetimes, SelfSigned};
use ::webhook::{Admission, Callers, Limits};
use anyhow::Context;
use cluster::{ClientProvider, KubeconfigCandidates};
use config::file::Loaded;
use config::{ConfigMapUse, ConfigState, Follower, Source, Watch};
use listener::certificate::Store;
use listener::certificate::files::{ClientAuthority, Files, read_pem};
use listener::{ClientCertificates, Protocols, Tls};
use policy::config::{Rewrite, Settings};
use resolver::Resolver;
use telemetry::Telemetry;
use telemetry::live::Live;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;

pub(crate) use self::args::WebhookArgs;
use super::resolving;
use crate::process::logging::{self, LogFormat, LogLevel};
use crate::process::{limits, pod, signals, usage};
use crate::stdout;

const DEFAULT_NAMESPACE: &str = "image-cri-shim";

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
        return check(loaded, args);
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
            broken_file: None,
            config_map: ConfigMapUse::Ignored,
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
fn check(loaded: Option<Loaded>, args: &WebhookArgs) -> anyhow::Result<()> {
    let warnings = match loaded {
        Some(loaded) => loaded.warnings,
        None => {
            let link = ClientProvider::new(KubeconfigCandidates::from_environment());
            runtime()?.block_on(config::check_config_map(&link))?
        }
    };
    for warning in warnings {
        stdout::line(warning)?;
    }
    stdout::line(format_args!("config: ok"))?;
    if args.self_signed {
        return Ok(());
    }
    // Serving waits for it, too.
    match runtime()?.block_on(certificate(args)) {
        Ok(()) => stdout::line("certificate: ok")?,
        Err(why) => stdout::line(format_args!(
            "warning: no review is answered before there is a certificate: {why}"
        ))?,
    }
    Ok(())
}

/// Whether the certificate, and the CA of API servers, can be used now.
async fn certificate(args: &WebhookArgs) -> Result<(), String> {
    let store = Arc::new(Store::default());
    let files = files(args);
    files
        .load(&store)
        .await
        .map_err(|error| error.to_string())?;
    let file = files.certificate.display();
    store.check().map_err(|error| format!("{file}: {error}"))?;
    let Some(file) = &args.client_ca else {
        return Ok(());
    };
    let authority = read_pem(file).await.map_err(|error| error.to_string())?;
    let clients = ClientCertificates::Optional(authority);
    let tls = Tls::new(store, Protocols::Http1AndHttp2, &clients);
    tls.map(|_| ())
        .map_err(|error| format!("{}: {error}", file.display()))
}

fn files(args: &WebhookArgs) -> Files {
    Files {
        certificate: args.tls_cert.clone(),
        key: args.tls_key.clone(),
    }
}

async fn serve(args: &WebhookArgs, source: Source, level: LogLevel) -> anyhow::Result<()> {
    let listener = listen(args.listen).await?;
    let health_listener = listen(args.health_listen).await?;
    let bound = listener.local_addr().context("cannot listen")?;
    let health_bound = health_listener.local_addr().context("cannot listen")?;
    let shutdown = signals::shutdown()?;

    let namespace = pod::namespace(args.namespace.as_deref());
    let namespace = namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
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
        keeps_last_good: false,
        may_write: Arc::new(true.into()),
    };
    tokio::spawn(follower.run({
        let admission = admission.clone();
        move |settings| apply(settings, &admission, &resolver, &level)
    }));

    let store = Arc::new(Store::default());
    let keys = args.self_signed.then(|| {
        let options = CertificateOptions {
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
            let files = files(args);
            let (store, wake) = (Arc::clone(&store), Arc::new(Notify::new()));
            let watch = Watch::start(&[&files.certificate, &files.key], Arc::clone(&wake));
            tokio::spawn(async move {
                let _watch = watch;
                files.follow(store, wake).await;
            })
        }
    };

    let callers = callers(args);
    let protocols = Protocols::Http1AndHttp2;
    let tls = Tls::new(Arc::clone(&store), protocols, &ClientCertificates::None)?;
    let tls = Arc::new(tls);
    if let Some(file) = &args.client_ca {
        let authority = ClientAuthority { file: file.clone() };
        let (tls, wake) = (Arc::clone(&tls), Arc::new(Notify::new()));
        let watch = Watch::start(&[file], Arc::clone(&wake));
        tokio::spawn(async move {
            let _watch = watch;
            authority.follow(tls, wake).await;
        });
    }
    let stopping = Arc::new(AtomicBool::new(false));
    let readiness = Readiness {
        admission: admission.clone(),
        certificates: Arc::clone(&store),
        other: other_conditions(keys, Arc::clone(&stopping)),
    };
    answer_health(
        health_listener,
        readiness,
        metrics(telemetry, Arc::clone(&store)),
    )?;
    tracing::info!("answering reviews on {bound}, health on {health_bound}");
    let delay = args.shutdown_delay;
    let served = ::webhook::serve(
        listener,
        tls,
        admission,
        callers,
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

/// Answers on a thread of its own: a kubelet must get its answers in time whatever the reviews cost, or it
/// restarts the webhook when it is needed most.
fn answer_health(
    listener: TcpListener,
    readiness: Readiness,
    metrics: health::Metrics,
) -> anyhow::Result<()> {
    let listener = listener.into_std().context("cannot answer health")?;
    let runtime = runtime()?;
    let answer = move || {
        runtime.block_on(async {
            match TcpListener::from_std(listener) {
                Ok(listener) => health::serve(listener, readiness, metrics).await,
                Err(error) => tracing::error!("cannot answer health: {error}"),
            }
        });
    };
    let thread = std::thread::Builder::new().name("health".to_owned());
    thread.spawn(answer).context("cannot answer health")?;
    Ok(())
}

fn callers(args: &WebhookArgs) -> Callers {
    match args.client_ca {
        None => Callers::Unknown,
        Some(_) => Callers::Certified {
            names: args.client_name.clone(),
        },
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = listener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address}"))
}

fn admission(namespace: &str, telemetry: &Telemetry) -> (Admission, Resolver) {
    let (defaults, _) = Settings::read("", &|_| None);
    let resolver = resolving::resolver(&defaults, None, Handle::current(), telemetry.clone());
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
