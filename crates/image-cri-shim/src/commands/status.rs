//! `image-cri-shim status`: the running shim at a glance, once or as it changes.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use installer::bypass::{Bypass, LeadsTo};
use telemetry::report::Status;

use crate::commands::daemon::{Daemon, ask, one_thread, socket_by};
use crate::commands::render::{self, Page};
use crate::commands::screen::Screen;
use crate::commands::terminal;
use crate::options::ConfigFile;
use crate::process::signals;
use crate::told::told;

/// How often `--watch` asks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Show the running shim: config, registries, caches, last decisions
///
/// Asked over its own socket, which is in the config. Exit status: 0, or 1 when no shim answers.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) config: ConfigFile,

    /// Show it anew every second, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    watch: bool,

    /// How many decisions
    #[arg(short = 'n', long = "last", value_name = "N", default_value_t = 10)]
    last: usize,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command by the config `file`.
pub(crate) fn run(file: &Path, args: &StatusArgs) -> ExitCode {
    match status(file, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::say(&told(&error));
            ExitCode::FAILURE
        }
    }
}

fn status(file: &Path, args: &StatusArgs) -> anyhow::Result<()> {
    if args.watch && !std::io::stdout().is_terminal() {
        bail!("--watch needs a terminal to refresh; without it, `status` prints once");
    }
    let socket = socket_by(file)?;
    let daemon = Daemon::new(&socket);
    let runtime = one_thread()?;
    if args.watch {
        return runtime.block_on(watch(&daemon, args.last));
    }
    let status = runtime.block_on(ask(daemon.status(args.last)));
    let status = status.map_err(|error| match led_away(&socket) {
        Some(led) => anyhow!("{error:#}\n{led}"),
        None => error,
    })?;
    if args.json {
        terminal::print_json(&status)?;
    } else {
        terminal::print(&page(&status))?;
    }
    Ok(())
}

/// Where kubelet is led meanwhile.
fn led_away(socket: &Path) -> Option<String> {
    let now = Bypass::of_link(socket).filter(|now| now.leads_to != LeadsTo::Shim)?;
    let since = now.since.map(|since| {
        let since = Duration::from_secs(since.as_secs());
        format!(", for {}", render::duration(since))
    });
    let since = since.unwrap_or_default();
    Some(format!("kubelet is led {}{since}", now.leads_to))
}

fn page(status: &Status) -> String {
    let mut page = Page::new(terminal::width());
    render::status(&mut page, status, SystemTime::now());
    page.into_text()
}

/// Refreshes until SIGINT or SIGTERM. A shim that is away comes back, after an update perhaps.
async fn watch(daemon: &Daemon, last: usize) -> anyhow::Result<()> {
    let mut ended = std::pin::pin!(signals::shutdown()?);
    let screen = Screen::enter().context("cannot use the terminal")?;
    let mut known: Option<Status> = None;
    let mut away_since: Option<Instant> = None;
    loop {
        let answer = tokio::select! {
            answer = ask(daemon.status(last)) => answer,
            () = &mut ended => return Ok(()),
        };
        let mut text = String::new();
        match answer {
            Ok(status) => {
                known = Some(status);
                away_since = None;
            }
            Err(error) => {
                let since = away_since.get_or_insert_with(Instant::now).elapsed();
                let since = render::duration(Duration::from_secs(since.as_secs()));
                let mut page = Page::new(terminal::width());
                render::away(&mut page, &error.to_string(), &since, known.is_some());
                text = page.into_text();
            }
        }
        if let Some(status) = &known {
            text.push_str(&page(status));
        }
        screen.show(&text).context("cannot write to the terminal")?;
        tokio::select! {
            () = tokio::time::sleep(WATCH_INTERVAL) => {}
            () = &mut ended => return Ok(()),
        }
    }
}
