//! `image-cri-shim cache …`: the node cache, and commands for it.
//!
//! They ask the running cache over its socket, and open its directory themselves when none runs.
//!
//! | module | what it knows |
//! |---|---|
//! | [`args`] | the command line |
//! | [`files`] | the files that images come from and go to |
//! | [`shown`] | what is shown of what happens |

mod args;
mod files;
mod shown;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::cache::control::{self, Command, WarmImage};
use ::cache::mirror_config::{self, Runtime};
use anyhow::{Context, bail};

pub(crate) use self::args::{CacheArgs, CacheCommand};
use self::args::{Named, RuntimeName};
use self::files::AttachedFile;
use self::shown::Shown;
use super::inputs::{self, filled_in_later, not_looked_at};
use super::terminal;
use crate::process::signals;
use crate::roles::runtime::files as runtime_files;
use crate::told::told;

/// Something could not be done.
const NOT_ALL: u8 = 1;
/// The command line or the config is wrong, or the cache failed.
const TROUBLE: u8 = 2;
/// 128 and the number of SIGINT, as shells have it.
const INTERRUPTED: u8 = 130;

/// Runs a command by the config `file`.
pub(crate) fn run(file: &Path, socket: &Path, command: &CacheCommand) -> ExitCode {
    let done = match command_for(command) {
        Ok(None) => mirror_config(command),
        Ok(Some(asked)) => {
            let json = matches!(
                command,
                CacheCommand::Ls { json: true, .. } | CacheCommand::Status { json: true, .. }
            );
            AttachedFile::of(command).and_then(|with| tell(file, socket, &asked, with, json))
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            terminal::say(&told(&error));
            ExitCode::from(TROUBLE)
        }
    }
}

fn mirror_config(command: &CacheCommand) -> anyhow::Result<u8> {
    let CacheCommand::MirrorConfig {
        runtime,
        hosts,
        address,
    } = command
    else {
        anyhow::bail!("not a command that prints a runtime's config");
    };
    let runtime = match runtime {
        RuntimeName::Containerd => Runtime::Containerd,
        RuntimeName::Crio => Runtime::CriO,
    };
    let text = mirror_config::render(runtime, address, hosts)?;
    if let Err(error) = terminal::print(&text) {
        terminal::say(&format!(
            "cannot write the runtime's config to standard output: {error}; see what it leads to"
        ));
        return Ok(NOT_ALL);
    }
    Ok(0)
}

/// What the cache is asked to do. None where it need not be asked.
///
/// # Errors
/// Images can't be read.
fn command_for(command: &CacheCommand) -> anyhow::Result<Option<Asked>> {
    let names = |named: &Named| named.images.clone();
    Ok(Some(Asked::from(match command {
        CacheCommand::Warm {
            images,
            manifests,
            all,
            platforms,
            pin,
            ..
        } => return warming(images, manifests, *all, platforms, *pin).map(Some),
        CacheCommand::Status { .. } => Command::Status,
        CacheCommand::Ls { .. } => Command::Ls,
        CacheCommand::Rm(named) => Command::Rm {
            names: names(named),
        },
        CacheCommand::Pin(named) => Command::Pin {
            names: names(named),
        },
        CacheCommand::Unpin(named) => Command::Unpin {
            names: names(named),
        },
        CacheCommand::Verify { repair, .. } => Command::Verify { repair: *repair },
        CacheCommand::Gc { shared, .. } => Command::Gc { shared: *shared },
        CacheCommand::Export { images, .. } => Command::Export {
            names: images.clone(),
        },
        CacheCommand::Import { name, pin, .. } => Command::Import {
            name: name.clone(),
            pin: *pin,
        },
        CacheCommand::MirrorConfig { .. } => return Ok(None),
    })))
}

/// What the cache is asked to do.
struct Asked {
    command: Command,
    /// False where something that should be an image is none.
    is_all: bool,
}

impl From<Command> for Asked {
    fn from(command: Command) -> Self {
        Self {
            command,
            is_all: true,
        }
    }
}

fn warming(
    images: &[String],
    manifests: &[PathBuf],
    all: bool,
    platforms: &[String],
    pin: bool,
) -> anyhow::Result<Asked> {
    let mut wanted = inputs::gather(images, manifests)?;
    for problem in &wanted.problems {
        terminal::say(problem);
    }
    if all {
        wanted.take_mentioned();
    } else if !wanted.mentioned.is_empty() {
        terminal::say(&not_looked_at(wanted.mentioned.len()));
    }
    for named in &wanted.placeholders {
        terminal::say(&filled_in_later(named));
    }
    let images = wanted.images.into_iter().map(|named| WarmImage {
        pin: pin || named.retain,
        image: named.image,
    });
    Ok(Asked {
        command: Command::Warm {
            images: images.collect(),
            platforms: platforms.to_vec(),
        },
        is_all: wanted.problems.is_empty(),
    })
}

/// Asks the running cache, or does it here.
fn tell(
    file: &Path,
    socket: &Path,
    asked: &Asked,
    mut with: AttachedFile,
    json: bool,
) -> anyhow::Result<u8> {
    let Asked { command, is_all } = asked;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(async {
        let interrupted = signals::shutdown()?;
        let mut shown = Shown::beside(with.is_stdout(), with.source());
        let done = tokio::select! {
            done = follow(file, socket, command, &mut with, &mut shown) => done?,
            () = interrupted => return Ok(None),
        };
        shown.print(command, json)?;
        anyhow::Ok(Some(done))
    });
    // What hangs must not keep us.
    runtime.shutdown_background();
    match done? {
        Some(done) => {
            with.finish(done)?;
            Ok(if done && *is_all { 0 } else { NOT_ALL })
        }
        None => {
            terminal::say("interrupted");
            Ok(INTERRUPTED)
        }
    }
}

/// True where all could be done.
async fn follow(
    file: &Path,
    socket: &Path,
    command: &Command,
    with: &mut AttachedFile,
    shown: &mut Shown,
) -> anyhow::Result<bool> {
    let handed = with.take();
    let asked = control::ask(socket, command, handed.as_ref()).await;
    let asked = match asked {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            bail!("may not open {}; run this as root", socket.display())
        }
        asked => asked.with_context(|| format!("asking the cache at {}", socket.display()))?,
    };
    if let Some(mut events) = asked {
        // The cache has it now. While we had it too, who writes into a pipe would not notice its end.
        drop(handed);
        while let Some(event) = events.recv().await {
            shown.add(event.context("the cache broke off")?);
        }
    } else {
        let settings = config::file::load(file)?.settings;
        let certs_dirs = runtime_files::certs_dirs(&settings);
        let cache = ::cache::role::offline(&settings, certs_dirs)?;
        let mut events = control::run(cache.clone(), command.clone(), handed);
        while let Some(event) = events.recv().await {
            shown.add(event);
        }
        // Nobody goes on with it when we have ended.
        if let Some(shared) = cache.shared()
            && !shared.finish().await
        {
            terminal::say("the shared store did not take everything");
        }
    }
    shown.done.context("the cache broke off")
}
