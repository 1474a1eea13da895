//! `image-cri-shim history`: what the running shim decided, and why.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;

use crate::commands::daemon::{Daemon, ask, one_thread, socket_by};
use crate::commands::render::{self, Page};
use crate::commands::terminal;
use crate::options::ConfigFile;
use crate::told::told;

/// Show what the running shim decided, and why
///
/// Newest first, as far as it has kept them since its start. Exit status: 0, or 1 when no shim answers.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Only about this image, in any spelling; without a tag, about every image of the repository
    #[arg(value_name = "IMAGE")]
    image: Option<String>,

    #[command(flatten)]
    pub(crate) config: ConfigFile,

    /// At most so many decisions; 0 is all
    #[arg(short = 'n', long = "last", value_name = "N", default_value_t = 20)]
    last: usize,

    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

/// Runs the command by the config `file`.
pub(crate) fn run(file: &Path, args: &HistoryArgs) -> ExitCode {
    match history(file, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::say(&told(&error));
            ExitCode::FAILURE
        }
    }
}

fn history(file: &Path, args: &HistoryArgs) -> anyhow::Result<()> {
    let daemon = Daemon::new(&socket_by(file)?);
    let asked = ask(daemon.history(args.image.as_deref()));
    let mut decisions = one_thread()?.block_on(asked)?;
    let total = decisions.len();
    if args.last > 0 {
        decisions.truncate(args.last);
    }
    if args.json {
        terminal::print_json(&decisions)?;
        return Ok(());
    }
    let mut page = Page::new(terminal::width());
    render::history(&mut page, &decisions, SystemTime::now());
    terminal::print(&page.into_text())?;
    match (&args.image, total) {
        (Some(image), 0) => terminal::say(&format!("no decision about {image} is kept")),
        (None, 0) => terminal::say("nothing was pulled since the shim's start"),
        (_, total) if total > decisions.len() => {
            let shown = decisions.len();
            terminal::say(&format!("{shown} of {total} decisions; `-n 0` shows all"));
        }
        _ => {}
    }
    Ok(())
}
