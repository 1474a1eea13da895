//! Where log lines go, and how many of them.
//!
//! The message of a line is plain text, because runbooks grep for it; JSON and the journal carry the
//! same text. The thread that logs never waits for whoever reads: [`mod@sink`] has one of its own, and drops what
//! is too much. Only our own crates may say more than warnings: the HTTP libraries' debug output holds
//! headers, and headers hold credentials.

mod journal;
mod sink;
mod stream;
mod text;

use std::io::{self, IsTerminal, Write, stderr};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use self::journal::{Journal, JournalLayer};
use self::sink::Sink;
use self::stream::Stream;
use self::text::Text;

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
const OUR_CRATES: [&str; 14] = [
    "cache",
    "cluster",
    "config",
    "credentials",
    "cri",
    "image_cri_shim",
    "inspection",
    "listener",
    "node_installer",
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

/// What writes the lines of this process, once logging has started.
static SINK: OnceLock<Sink> = OnceLock::new();
/// How long the last lines of a process may take to be written.
const LAST_LINES_TIMEOUT: Duration = Duration::from_millis(500);

/// Starts logging; for the whole life of the process.
///
/// # Errors
/// Lines can't be written where they should go.
pub(crate) fn start(format: LogFormat, debug: bool) -> anyhow::Result<LogLevel> {
    let (filter, handle) = reload::Layer::new(targets(debug));
    let format = match format {
        LogFormat::Auto if stderr_is_the_journal() => LogFormat::Journald,
        LogFormat::Auto => LogFormat::Text,
        chosen => chosen,
    };
    let no_stderr = "cannot log to standard error";
    let (sink, layer): (Sink, Box<dyn Layer<Registry> + Send + Sync>) = match format {
        LogFormat::Json => {
            let sink = Sink::start(Stream::stderr().context(no_stderr)?, json_notice);
            let sink = sink.context(no_stderr)?;
            let lines = Lines(sink.clone());
            (sink, Box::new(fmt::layer().json().with_writer(lines)))
        }
        LogFormat::Journald => {
            let journal = Journal::open().context(
                "cannot log to journald; is its socket there? `--log-format text` does without",
            )?;
            let notice =
                |lost| journal::entry(Level::WARN, "image_cri_shim", &text::lines_lost(lost));
            let sink = Sink::start(journal, notice).context("cannot log to journald")?;
            (sink.clone(), Box::new(JournalLayer(sink)))
        }
        LogFormat::Auto | LogFormat::Text => {
            let colors = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let notice = |lost| text::notice(lost).into_bytes();
            let sink = Sink::start(Stream::stderr().context(no_stderr)?, notice);
            let sink = sink.context(no_stderr)?;
            let layer = fmt::layer()
                .with_ansi(colors)
                .event_format(Text)
                .with_writer(Lines(sink.clone()));
            (sink, Box::new(layer))
        }
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .context("logging was started twice")?;
    // Both were started together, so it is the first.
    let _ = SINK.set(sink);
    std::panic::set_hook(Box::new(log_panic));
    Ok(LogLevel {
        handle,
        debug: Arc::new(AtomicBool::new(debug)),
    })
}

/// Lines that nobody has read in time, since the process started.
pub(crate) fn lost_lines() -> u64 {
    SINK.get().map_or(0, Sink::lost)
}

/// Waits until the lines so far are written, but not for somebody who doesn't read.
pub(crate) fn flush() {
    if let Some(sink) = SINK.get() {
        sink.flush(LAST_LINES_TIMEOUT);
    }
}

/// Says to people on standard error why the process ends, whatever the log's format. Where nobody reads
/// there, it ends all the same.
pub(crate) fn last_words(text: String) {
    flush();
    let (done, written) = sync_channel(1);
    thread::spawn(move || {
        // Where nobody reads, nobody can be told that either.
        let _ = writeln!(io::stderr(), "{text}");
        // Nobody waits any more where this fails.
        let _ = done.try_send(());
    });
    let _ = written.recv_timeout(LAST_LINES_TIMEOUT);
}

/// A panic as a line like others: std's own hook waits for whoever reads standard error.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name").to_owned();
    let payload = panic.payload();
    let message = match payload.downcast_ref::<String>() {
        Some(message) => message,
        None => *payload.downcast_ref::<&str>().unwrap_or(&"no message"),
    };
    match panic.location() {
        Some(place) => tracing::error!("a bug: thread {name} panicked at {place}: {message}"),
        None => tracing::error!("a bug: thread {name} panicked: {message}"),
    }
}

fn json_notice(lost: u64) -> Vec<u8> {
    let mut timestamp = String::new();
    // A String takes everything.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let line = serde_json::json!({
        "timestamp": timestamp,
        "level": "WARN",
        "fields": { "message": text::lines_lost(lost) },
        "target": "image_cri_shim",
    });
    line.to_string().into_bytes()
}

/// What a format writes to: each line is one call.
#[derive(Clone)]
struct Lines(Sink);

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        self.0.line(text.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
