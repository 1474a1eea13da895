//! Where log lines go, and how many of them.
//!
//! The message of a line is plain text, because runbooks grep for it; JSON and the journal carry the
//! same text. Only our own crates may say more than warnings: the HTTP libraries' debug output holds
//! headers, and headers hold credentials.

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use clap::ValueEnum;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// Where log lines go and what they look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Journald when standard error goes there, else text.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
    /// The journal's own protocol.
    Journald,
}

/// Crates that may say more than warnings.
const OUR_CRATES: [&str; 13] = [
    "cache",
    "cluster",
    "config",
    "credentials",
    "cri",
    "image_cri_shim",
    "inspection",
    "listener",
    "policy",
    "registry",
    "resolver",
    "telemetry",
    "webhook",
];

/// Switches debug lines on and off. Clones share the switch.
#[derive(Clone, Debug)]
pub(crate) struct LogLevel {
    handle: reload::Handle<Targets, Registry>,
    debug: Arc<AtomicBool>,
}

impl LogLevel {
    /// Debug lines, or info and above.
    pub(crate) fn set_debug(&self, debug: bool) {
        self.debug.store(debug, Ordering::Relaxed);
        // Fails only when the subscriber is gone, and then there is nothing to switch.
        let _ = self.handle.reload(targets(debug));
    }

    /// The other way round; says whether debug lines are on now.
    pub(crate) fn toggle(&self) -> bool {
        let debug = !self.debug.load(Ordering::Relaxed);
        self.set_debug(debug);
        debug
    }
}

/// Starts logging; for the whole life of the process.
pub(crate) fn start(format: LogFormat, debug: bool) -> anyhow::Result<LogLevel> {
    let (filter, handle) = reload::Layer::new(targets(debug));
    let format = match format {
        LogFormat::Auto if stderr_is_the_journal() => LogFormat::Journald,
        LogFormat::Auto => LogFormat::Text,
        chosen => chosen,
    };
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Json => Box::new(fmt::layer().json().with_writer(stderr)),
        LogFormat::Journald => Box::new(tracing_journald::layer().context(
            "cannot log to journald; is its socket there? `--log-format text` does without",
        )?),
        LogFormat::Auto | LogFormat::Text => Box::new(
            fmt::layer()
                .with_ansi(stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
                .with_target(false)
                .with_writer(stderr),
        ),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .context("logging was started twice")?;
    Ok(LogLevel {
        handle,
        debug: Arc::new(AtomicBool::new(debug)),
    })
}

fn targets(debug: bool) -> Targets {
    let ours = if debug { Level::DEBUG } else { Level::INFO };
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_targets(OUR_CRATES.map(|name| (name, ours)))
        // What the API server does is said once, by `cluster`; these would say it at every try.
        .with_targets(["kube_client", "kube_runtime"].map(|name| (name, LevelFilter::OFF)))
}

/// systemd says in `JOURNAL_STREAM` which file the journal's stream is; a shell started from a
/// service inherits the variable, but not the file.
fn stderr_is_the_journal() -> bool {
    let Some(stream) = std::env::var("JOURNAL_STREAM").ok() else {
        return false;
    };
    rustix::fs::fstat(stderr())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}
