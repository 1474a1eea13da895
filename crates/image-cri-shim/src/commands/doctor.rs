//! `image-cri-shim doctor`: the whole chain in one page.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use ::doctor::{AskDaemon, Options, Report, Verdict};
use anyhow::bail;
use clap::Args;

use super::daemon::{Daemon, ask};
use super::render::{self, Page};
use super::terminal;
use crate::options::ConfigFile;
use crate::told::told;

/// Say what is wrong on this node, from kubelet's flags to each registry's certificate
///
/// Each line is ok, warn or bad, and says what mends it. Changes nothing, prints no secret, and works while no
/// shim runs. Exit status: 0 where all is well, 1 with warnings, 2 where something is bad.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) config: ConfigFile,

    /// Look at the files of the tree below this directory, for image builders; nothing that runs is asked
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,

    /// The services of that tree run on this machine, and can be asked
    #[arg(long, hide = true)]
    live: bool,

    /// How long each look may take
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    timeout: Duration,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = policy::duration::parse(text).map_err(|error| error.to_string())?;
    match duration.is_zero() {
        true => Err("it must be longer than nothing".to_owned()),
        false => Ok(duration),
    }
}

/// Where something is bad, or nothing could be looked at.
const BAD: u8 = 2;

/// Runs the command by the config `file`.
pub(crate) fn run(file: &Path, args: &DoctorArgs) -> ExitCode {
    match examine(file, args) {
        Ok(Verdict::Ok) => ExitCode::SUCCESS,
        Ok(Verdict::Warn) => ExitCode::FAILURE,
        Ok(Verdict::Bad) => ExitCode::from(BAD),
        Err(error) => {
            terminal::say(&told(&error));
            ExitCode::from(BAD)
        }
    }
}

fn examine(file: &Path, args: &DoctorArgs) -> anyhow::Result<Verdict> {
    if !args.root.is_dir() {
        bail!(
            "cannot look at the node in {}: there is no such directory; name the tree of a node by `--root`",
            args.root.display()
        );
    }
    let file = named_on(&args.root, file)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let ask_daemon: AskDaemon = Box::new(|socket| {
        Box::pin(async move {
            let daemon = Daemon::new(&socket);
            let status = ask(daemon.status(0)).await;
            status.map_err(|error| error.to_string())
        })
    });
    let report = runtime.block_on(::doctor::examine(Options {
        root: args.root.clone(),
        file,
        is_live: args.live,
        deadline: args.timeout,
        ask_daemon,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }));
    // A look that hangs is left behind.
    runtime.shutdown_background();
    if args.json {
        terminal::print_json(&report)?;
    } else {
        terminal::print(&page(&report))?;
    }
    Ok(report.verdict)
}

/// The config, as the node that is looked at names it. In an image of a node a relative name begins at its root.
fn named_on(root: &Path, file: &Path) -> std::io::Result<PathBuf> {
    match root == Path::new("/") {
        true => std::path::absolute(file),
        false => Ok(Path::new("/").join(file)),
    }
}

fn page(report: &Report) -> String {
    let mut page = Page::new(terminal::width());
    render::doctor(&mut page, report, SystemTime::now());
    page.into_text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_name_is_of_the_folder_that_the_command_runs_in() {
        let here = std::env::current_dir().unwrap();
        for (root, file, named) in [
            ("/", "shim.yaml", here.join("shim.yaml")),
            ("/", "/etc/shim.yaml", PathBuf::from("/etc/shim.yaml")),
            ("/tree", "etc/shim.yaml", PathBuf::from("/etc/shim.yaml")),
        ] {
            assert_eq!(named_on(Path::new(root), Path::new(file)).unwrap(), named);
        }
    }
}
