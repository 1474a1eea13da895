//! `image-cri-shim resolve`: where images would come from and why, and whether they can be pulled.
//!
//! | module | what it knows |
//! |---|---|
//! | [`knowledge`] | whom to ask: the running shim, or the config file |
//! | [`pulls`] | pulling through the running shim |
//! | [`progress`] | what is shown meanwhile |

mod knowledge;
mod progress;
mod pulls;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};

use self::knowledge::Explainer;
use self::progress::Progress;
use crate::commands::inputs::{self, filled_in_later, not_looked_at};
use crate::commands::item::Item;
use crate::commands::render::{self, Page};
use crate::commands::terminal;
use crate::node_cache;
use crate::process::signals;
use crate::told::told;

/// Images that are looked at together: enough to keep eight registries busy, few enough not to be
/// limited by them.
const AT_ONCE: usize = 8;
/// More images than this are shown with progress, and with a summary at the end.
const HANDFUL: usize = 5;

/// Something can't be pulled.
const NOT_ALL: u8 = 1;
/// The command line or the config is wrong, or the shim failed.
const TROUBLE: u8 = 2;
/// 128 and the number of SIGINT, as shells have it.
const INTERRUPTED: u8 = 130;

/// Show where images would come from and why, and whether they can be pulled
///
/// The running shim is asked, with what it remembers; where none runs, the config
/// file is used as it is. Nothing is pulled unless --pull says so.
///
/// Placeholders that are filled in later ($(params.image), {{inputs.parameters.image}}, Istio's auto) are
/// listed and are no failures.
///
/// Exit status: 0 when every image can be pulled, 1 when one can't, 2 when the command line, a manifest
/// or the config is wrong.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  image-cri-shim resolve nginx:1.27
  helm template my-chart | image-cri-shim resolve -f -
  image-cri-shim resolve -f manifests/ --json | jq '.[] | select(.available | not).image'
  image-cri-shim resolve --pull < images.txt")]
pub(crate) struct ResolveArgs {
    /// Images, as a Pod names them; `-` reads a list from standard input, one a line, as happens
    /// without any IMAGE and MANIFEST
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,

    /// A manifest of any kind, YAML or JSON, to take the images from; a directory stands for its
    /// *.yaml, *.yml and *.json, and `-` for standard input
    #[arg(short = 'f', long = "manifest", value_name = "MANIFEST")]
    pub(crate) manifests: Vec<PathBuf>,

    /// Take the images that manifests name in arguments, environment variables and ConfigMaps, too
    #[arg(long)]
    all: bool,

    /// The config file [default: /etc/image-cri-shim.yaml]; `-f` names it before `resolve` only
    #[arg(long = "file", value_name = "CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// Ask no registry: show the plan alone
    #[arg(long)]
    offline: bool,

    /// Pull the images through the running shim, one after another
    #[arg(long, conflicts_with = "offline")]
    pull: bool,

    /// Print one JSON array, an object for each image in the order given
    #[arg(long)]
    json: bool,
}

/// Runs the command by the config `file`.
pub(crate) fn run(file: &Path, args: &ResolveArgs) -> ExitCode {
    match resolve(file, args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            terminal::say(&told(&error));
            ExitCode::from(TROUBLE)
        }
    }
}

fn resolve(file: &Path, args: &ResolveArgs) -> anyhow::Result<u8> {
    let mut wanted = inputs::gather(&args.images, &args.manifests)?;
    for problem in &wanted.problems {
        terminal::say(problem);
    }
    if args.all {
        wanted.take_mentioned();
    } else if !wanted.mentioned.is_empty() {
        terminal::say(&not_looked_at(wanted.mentioned.len()));
    }
    let placeholders = wanted.placeholders;
    if args.json {
        for named in &placeholders {
            terminal::say(&filled_in_later(named));
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start an async runtime")?;
    let done = runtime.block_on(async {
        let interrupted = signals::shutdown()?;
        tokio::select! {
            items = work(file, args, wanted.images) => items.map(Some),
            () = interrupted => Ok(None),
        }
    });
    // A credential plugin or a DNS server that hangs must not keep us.
    runtime.shutdown_background();
    let Some(items) = done? else {
        terminal::say("interrupted");
        return Ok(INTERRUPTED);
    };
    show(args, &items, &placeholders).context("cannot write to standard output")?;
    let all_good = wanted.problems.is_empty() && items.iter().all(Item::is_good);
    Ok(if all_good { 0 } else { NOT_ALL })
}

async fn work(
    file: &Path,
    args: &ResolveArgs,
    images: Vec<inputs::Named>,
) -> anyhow::Result<Vec<Item>> {
    if images.is_empty() {
        return Ok(Vec::new());
    }
    let explainer = Explainer::find(file, args.pull).await?;
    let progress = Progress::bar(images.len(), HANDFUL);
    let explained = stream::iter(images).map(|named| {
        let (explainer, progress) = (&explainer, &progress);
        async move {
            // Before it is probed: by that it begins to have it.
            let node_cache = node_cache::image(&named.image).await;
            let explanation = explainer.explain(&named.image, !args.offline).await?;
            progress.one_done(&named.image);
            anyhow::Ok(Item {
                explanation,
                named_at: named.place,
                node_cache,
                pull: None,
            })
        }
    });
    let mut items: Vec<Item> = explained.buffered(AT_ONCE).try_collect().await?;
    drop(progress);
    if let (Explainer::Daemon(daemon), true) = (&explainer, args.pull) {
        pulls::pull_all(daemon, &mut items).await;
    }
    Ok(items)
}

fn show(args: &ResolveArgs, items: &[Item], placeholders: &[inputs::Named]) -> std::io::Result<()> {
    if args.json {
        return terminal::print_json(&items);
    }
    let mut page = Page::new(terminal::width());
    for item in items {
        render::explanation(&mut page, item);
    }
    if items.len() > HANDFUL {
        render::summary(&mut page, items);
    }
    if !placeholders.is_empty() {
        page.section("Filled in later");
        for named in placeholders {
            let place = named.place.as_deref().unwrap_or_default();
            page.item(&named.image, place);
        }
    }
    terminal::print(&page.into_text())
}
