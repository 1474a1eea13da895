//! `image-cri-shim cache …`: the node cache, and commands for it.
//!
//! They ask the running cache over its socket, and open its directory themselves when none runs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::cache::control::{self, Command, Event, ImageRecord};
use ::cache::mirror_config::{self, Runtime};
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::HumanBytes;

use super::terminal;
use crate::options::ServiceArgs;

/// Keep images on this node: a pull-through registry that serves while upstreams are down
///
/// Without a command it serves. The commands ask the running cache over its socket, and open its directory
/// themselves when none runs. Exit status: 0, or 1 when something could not be done or is damaged.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = false)]
pub(crate) struct CacheArgs {
    #[command(flatten)]
    pub(crate) service_args: ServiceArgs,

    /// Where the running cache answers commands
    #[arg(
        long,
        global = true,
        value_name = "SOCKET",
        default_value = control::SOCKET
    )]
    pub(crate) socket: PathBuf,

    #[command(subcommand)]
    pub(crate) command: Option<CacheCommand>,
}

/// A command for the cache.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Fetch images before they are wanted
    Warm {
        #[command(flatten)]
        config: CacheConfig,

        /// The images
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,

        /// Platforms of images that have several: os/architecture, or all [default: this machine's]
        #[arg(long = "platform", value_name = "PLATFORM")]
        platforms: Vec<String>,

        /// Never evict them
        #[arg(long)]
        pin: bool,
    },
    /// List the images in the cache
    Ls {
        #[command(flatten)]
        config: CacheConfig,

        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Delete images
    Rm(Named),
    /// Never evict images
    Pin(Named),
    /// Let images be evicted again
    Unpin(Named),
    /// Read every blob and compare it with its digest
    Verify {
        #[command(flatten)]
        config: CacheConfig,

        /// Delete what is damaged, and fetch it anew
        #[arg(long)]
        repair: bool,
    },
    /// Make room as maxSize and minFree want it
    Gc {
        #[command(flatten)]
        config: CacheConfig,

        /// Delete in the shared store (nodeCache.store.s3) what nobody has used for unusedFor, instead
        #[arg(long)]
        shared: bool,
    },
    /// Print what a runtime has to be told to use the cache
    MirrorConfig {
        /// The runtime
        runtime: RuntimeName,

        /// The registries that CRI-O is to ask the cache for [default: docker.io]
        #[arg(value_name = "HOST")]
        hosts: Vec<String>,

        /// Where the cache answers
        #[arg(long, value_name = "ADDRESS", default_value = "localhost:7439")]
        address: String,
    },
}

/// Names the config file; `-f` is a manifest elsewhere, and so is not taken here.
#[derive(Debug, Args)]
pub(crate) struct CacheConfig {
    /// The config file [default: /etc/image-cri-shim.yaml]
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Images by their names.
#[derive(Debug, Args)]
pub(crate) struct Named {
    #[command(flatten)]
    config: CacheConfig,

    /// NAME, NAME@DIGEST or DIGEST
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// A runtime that can use the cache as its mirror.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RuntimeName {
    /// hosts.toml
    Containerd,
    /// registries.conf
    Crio,
}

impl CacheCommand {
    /// The config file that stands after the command's name.
    pub(crate) fn file(&self) -> Option<&PathBuf> {
        let config = match self {
            Self::Warm { config, .. }
            | Self::Ls { config, .. }
            | Self::Verify { config, .. }
            | Self::Gc { config, .. } => config,
            Self::Rm(named) | Self::Pin(named) | Self::Unpin(named) => &named.config,
            Self::MirrorConfig { .. } => return None,
        };
        config.file.as_ref()
    }
}

/// Runs a command by the config `file`.
pub(crate) fn run(file: &Path, socket: &Path, command: &CacheCommand) -> ExitCode {
    match command_for(command) {
        Some((asked, json)) => match tell(file, socket, &asked, json) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                terminal::say(&format!("{error:#}"));
                ExitCode::FAILURE
            }
        },
        None => mirror_config(command),
    }
}

fn mirror_config(command: &CacheCommand) -> ExitCode {
    let CacheCommand::MirrorConfig {
        runtime,
        hosts,
        address,
    } = command
    else {
        return ExitCode::FAILURE;
    };
    let runtime = match runtime {
        RuntimeName::Containerd => Runtime::Containerd,
        RuntimeName::Crio => Runtime::CriO,
    };
    match terminal::print(&mirror_config::render(runtime, address, hosts)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn command_for(command: &CacheCommand) -> Option<(Command, bool)> {
    let names = |named: &Named| named.images.clone();
    Some(match command {
        CacheCommand::Warm {
            images,
            platforms,
            pin,
            ..
        } => (
            Command::Warm {
                images: images.clone(),
                platforms: platforms.clone(),
                pin: *pin,
            },
            false,
        ),
        CacheCommand::Ls { json, .. } => (Command::Ls, *json),
        CacheCommand::Rm(named) => (
            Command::Rm {
                names: names(named),
            },
            false,
        ),
        CacheCommand::Pin(named) => (
            Command::Pin {
                names: names(named),
            },
            false,
        ),
        CacheCommand::Unpin(named) => (
            Command::Unpin {
                names: names(named),
            },
            false,
        ),
        CacheCommand::Verify { repair, .. } => (Command::Verify { repair: *repair }, false),
        CacheCommand::Gc { shared, .. } => (Command::Gc { shared: *shared }, false),
        CacheCommand::MirrorConfig { .. } => return None,
    })
}

/// Asks the running cache, or does it here.
fn tell(file: &Path, socket: &Path, command: &Command, json: bool) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let asked = control::ask(socket, command).await;
        let asked = asked.with_context(|| format!("asking the cache at {}", socket.display()))?;
        let mut shown = Shown::default();
        if let Some(mut events) = asked {
            while let Some(event) = events.recv().await {
                shown.add(event.context("the cache broke off")?);
            }
        } else {
            let settings = config::file::load(file)?.settings;
            let cache = ::cache::role::offline(&settings)?;
            let mut events = control::run(cache.clone(), command.clone());
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
        let done = shown.done.context("the cache broke off")?;
        if *command == Command::Ls {
            if json {
                terminal::print_json(&shown.images)?;
            } else {
                terminal::print(&table(&shown.images))?;
            }
        }
        Ok(done)
    })
}

/// What has come so far.
#[derive(Default)]
struct Shown {
    images: Vec<ImageRecord>,
    bar: Option<indicatif::ProgressBar>,
    done: Option<bool>,
}

impl Shown {
    fn add(&mut self, event: Event) {
        if !matches!(event, Event::Progress { .. })
            && let Some(bar) = self.bar.take()
        {
            bar.finish_and_clear();
        }
        match event {
            Event::Image(image) => self.images.push(image),
            Event::Text(text) => {
                // A terminal that is gone ends nothing.
                let _ = terminal::print(&format!("{text}\n"));
            }
            Event::Failed(why) => terminal::say(&why),
            Event::Progress {
                image,
                bytes,
                total,
            } => {
                let bar = self.bar.get_or_insert_with(|| {
                    let bar = indicatif::ProgressBar::new(total);
                    bar.set_message(image);
                    bar
                });
                bar.set_length(total);
                bar.set_position(bytes);
            }
            Event::Verified(found) => {
                for digest in &found.damaged {
                    terminal::say(&format!("{digest} is damaged"));
                }
                for digest in &found.missing {
                    terminal::say(&format!("{digest} is missing"));
                }
                let text = format!(
                    "{} blobs, {}: {} damaged, {} missing\n",
                    found.checked,
                    HumanBytes(found.bytes),
                    found.damaged.len(),
                    found.missing.len()
                );
                let _ = terminal::print(&text);
            }
            Event::Done(done) => self.done = Some(done),
        }
    }
}

fn table(images: &[ImageRecord]) -> String {
    if images.is_empty() {
        return "no images\n".to_owned();
    }
    let mut text = String::new();
    for image in images {
        let name = match image.name.as_str() {
            "" => &image.digest,
            name => name,
        };
        let used = std::time::UNIX_EPOCH + std::time::Duration::from_secs(image.last_used);
        let used = humantime::format_rfc3339_seconds(used);
        text.push_str(&format!(
            "{name}\n  {}, {}",
            HumanBytes(image.size),
            image.digest
        ));
        if !image.platforms.is_empty() {
            text.push_str(&format!(", {}", image.platforms.join(" ")));
        }
        text.push_str(&format!("\n  last used {used}"));
        if image.pinned {
            text.push_str(", pinned");
        }
        if !image.from.is_empty() {
            text.push_str(&format!(", from {}", image.from));
        }
        text.push('\n');
    }
    text
}
