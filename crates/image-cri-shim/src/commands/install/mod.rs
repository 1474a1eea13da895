//! `image-cri-shim install` and `uninstall`: kubelet is led to the shim, and back.

mod host;
mod kubelet;
mod live;
mod runtime;
mod uninstall;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use installer::payload::Payload;
use installer::transaction::{self, Wanted};
use installer::wiring::{self, Scope};
use installer::{Change, Kind, KubeletService, Node, Root, diff};

use self::live::Live;
use self::uninstall::{report, try_uninstall, unwire_and_remove};
use super::terminal;
use crate::options::{KubeletArgs, WiringArgs};
use crate::told::told;

/// The exit status of `--check` where something is to be done.
const TO_DO: u8 = 3;

/// Lead this node's kubelet to the shim
///
/// Writes files of its own where the node allows it, and records every change, so that `uninstall` puts back
/// exactly what was there. Running it twice changes nothing. Kubelet is restarted only where that is asked for.
/// Exit status: 0; 1 where something failed, which is said; 2 where the command line is wrong; 3 where `--check`
/// finds something to do.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    place: PlaceArgs,

    #[command(flatten)]
    kubelet: KubeletArgs,

    #[command(flatten)]
    wiring: WiringArgs,
}

/// Lead this node's kubelet back to the runtime, and remove the shim
///
/// Files that somebody has edited since are left and named. While kubelet still dials the shim, its socket
/// stays and this fails: a kubelet must never dial nothing. Exit status: as `install`.
#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    #[command(flatten)]
    place: PlaceArgs,

    #[command(flatten)]
    kubelet: KubeletArgs,
}

/// Where to work, and whether to change anything.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// Print every change as a diff, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Change nothing, and say by exit status 3 that something is to be done; with `--restart-kubelet` also where the
    /// running kubelet does not go through the shim
    #[arg(long, conflicts_with = "dry_run")]
    check: bool,

    /// Work on the tree below this directory, for image builders; no service is touched
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,

    /// From a privileged Pod with hostPID and hostNetwork: work on its host
    #[arg(long, conflicts_with = "root")]
    host: bool,
}

impl PlaceArgs {
    /// The tree, where this process then is.
    fn enter(&self) -> anyhow::Result<Root> {
        if self.host {
            host::enter()?;
        }
        Ok(Root::new(&self.root))
    }
}

fn check(args: &KubeletArgs, root: &Root, service: &KubeletService) -> anyhow::Result<()> {
    if args.restart_kubelet && !root.is_live() {
        bail!("--restart-kubelet is for the running node; --root names a tree");
    }
    let whole = matches!(service.kind, Kind::K3s | Kind::Rke2 | Kind::K0s);
    if args.restart_kubelet && whole && !args.yes_restart_k3s {
        bail!(
            "on {} kubelet restarts with all of {}; say --yes-restart-k3s too if that is what you want",
            service.kind,
            service.unit
        );
    }
    Ok(())
}

/// What a command comes to, when nothing fails.
enum Outcome {
    Done,
    /// `--check` has found something to do.
    ToDo,
}

/// Runs `install`.
pub(crate) fn install(args: &InstallArgs) -> ExitCode {
    exit(try_install(args))
}

/// Runs `uninstall`.
pub(crate) fn uninstall(args: &UninstallArgs) -> ExitCode {
    exit(try_uninstall(args))
}

fn exit(outcome: anyhow::Result<Outcome>) -> ExitCode {
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::ToDo) => ExitCode::from(TO_DO),
        Err(error) => {
            terminal::say(&told(&error));
            ExitCode::FAILURE
        }
    }
}

fn try_install(args: &InstallArgs) -> anyhow::Result<Outcome> {
    let (place, wiring) = (&args.place, &args.wiring);
    // Before the host is entered: these stand here.
    let payload = payload(wiring)?;
    let root = place.enter()?;
    let node = Node::look_with(&root, wiring.runtime.as_deref())?;
    let service = KubeletService::from(&node);
    check(&args.kubelet, &root, &service)?;
    let wanted = wanted(wiring, &payload, &root, &node)?;
    say_what_was_found(&node)?;
    if root.is_live() && !place.check {
        runtime::warn_where_none_answers(&node.runtime);
    }
    let changes = transaction::changes(&root, &wanted)?;
    if place.dry_run {
        return print_diffs(&changes);
    }
    let live = Live::new(&root, Some(&service), args.kubelet.timeout);
    let must_be_led = root.is_live() && args.kubelet.restart_kubelet;
    if place.check {
        return look(&changes, root.is_live().then_some(&live), must_be_led);
    }
    let files = transaction::places(&root, &wanted)?;
    let install = Install {
        live: &live,
        files: &files,
        kubelet_reads: changes.iter().any(|change| {
            let mut wiring = wanted.iter().filter(|file| file.wiring);
            wiring.any(|file| file.path == change.path)
        }),
        is_led: must_be_led && live.kubelet_dials_the_shim()?,
        works: must_be_led && transaction::is_installed(&root)? && live.shim_is_active(),
        changes: &changes,
    };
    let written = write(&root, &wanted);
    if !root.is_live() {
        return written.map(|()| Outcome::Done);
    }
    if !args.kubelet.restart_kubelet {
        written?;
        live.start_the_shim(&files, &changes)?;
        if install.kubelet_reads {
            terminal::print(&format!(
                "kubelet goes through the shim after its next restart: systemctl restart {}\n",
                node.unit
            ))?;
        }
        return Ok(Outcome::Done);
    }
    if let Err(error) = written.and_then(|()| install.bring_up()) {
        install.roll_back(&root, error)?;
    }
    terminal::print("kubelet works through the shim\n")?;
    Ok(Outcome::Done)
}

fn write(root: &Root, wanted: &[Wanted]) -> anyhow::Result<()> {
    let changes = transaction::install(root, wanted)?;
    for change in &changes {
        terminal::print(&format!("wrote {}\n", change.path.display()))?;
    }
    if changes.is_empty() {
        terminal::print("nothing to change\n")?;
    }
    Ok(())
}

/// A run that ends with a kubelet that works through the shim, or with what was there before.
struct Install<'a> {
    live: &'a Live<'a>,
    /// All of its files.
    files: &'a [PathBuf],
    /// Those that are changed by this run.
    changes: &'a [Change],
    /// Whether a file is changed that kubelet reads when it starts.
    kubelet_reads: bool,
    /// Whether kubelet went through the shim before.
    is_led: bool,
    /// Whether an earlier version was at work before.
    works: bool,
}

impl Install<'_> {
    fn bring_up(&self) -> anyhow::Result<()> {
        self.live.start_the_shim(self.files, self.changes)?;
        if self.kubelet_reads || !self.is_led {
            self.live.restart_kubelet(true)
        } else {
            // An upgrade changes nothing that kubelet reads, so nothing of the node waits for kubelet to start.
            self.live.kubelet_works(true)
        }
    }

    /// Always ends with an error: what went wrong, and what the node is left as.
    fn roll_back(&self, root: &Root, error: anyhow::Error) -> anyhow::Result<()> {
        let live = self.live;
        // Where the two are the same program, the one of before is gone, or nobody has seen it work: an earlier run was killed
        // before it knew.
        let is_refused = || live.runs_another_program().unwrap_or(false);
        if self.works && self.is_led && self.changes.is_empty() && is_refused() {
            // What an earlier run has written can't take over. What runs is better than nothing.
            bail!("{error:#}. This run has changed nothing, so the shim that ran before serves on");
        }
        terminal::say(&format!(
            "{error:#}; putting everything back as it was before"
        ));
        if self.works && !self.changes.is_empty() {
            let undone = transaction::revert(root, self.changes)
                .map_err(anyhow::Error::from)
                .and_then(|undone| report(root, &undone))
                .and_then(|()| live.go_back(self.changes))
                .and_then(|()| {
                    if self.kubelet_reads {
                        live.restart_kubelet(true)
                    } else {
                        live.kubelet_works(true)
                    }
                });
            match undone {
                Ok(()) => bail!("{error:#}. The version that was installed before serves again"),
                Err(back) => terminal::say(&format!(
                    "{back:#}; the version that was installed before does not work either, so the shim is removed"
                )),
            }
        }
        unwire_and_remove(root, live)
            .with_context(|| format!("{error:#}; while putting everything back"))?;
        bail!("{error:#}. The shim is removed: kubelet works as before it was installed")
    }
}

/// What `install --check` finds. `live` is the running node; on a tree there is none.
fn look(changes: &[Change], live: Option<&Live<'_>>, must_be_led: bool) -> anyhow::Result<Outcome> {
    for change in changes {
        terminal::print(&format!("to be written: {}\n", change.path.display()))?;
    }
    if !changes.is_empty() {
        return Ok(Outcome::ToDo);
    }
    let Some(live) = live else {
        return Ok(Outcome::Done);
    };
    let is_active = live.shim_is_active();
    if is_active && live.runs_another_program()? {
        terminal::print(
            "image-cri-shim.service still runs the program before the one that is installed\n",
        )?;
        return Ok(Outcome::ToDo);
    }
    if !must_be_led {
        return Ok(Outcome::Done);
    }
    if !is_active {
        terminal::print("image-cri-shim.service does not run\n")?;
        return Ok(Outcome::ToDo);
    }
    if !live.kubelet_comes_to_dial_the_shim()? {
        terminal::print("the running kubelet does not go through the shim\n")?;
        return Ok(Outcome::ToDo);
    }
    Ok(Outcome::Done)
}

fn payload(wiring: &WiringArgs) -> anyhow::Result<Payload> {
    // By this name it can be read also where its file has been replaced or is hidden by a mount.
    let program =
        std::fs::read("/proc/self/exe").context("cannot read this program, to copy it")?;
    let config = wiring.config.as_ref().map(|path| {
        std::fs::read(path).with_context(|| format!("cannot read the config {}", path.display()))
    });
    Ok(Payload {
        program,
        prefix: wiring.prefix.clone(),
        config: config.transpose()?,
    })
}

fn wanted(
    args: &WiringArgs,
    payload: &Payload,
    root: &Root,
    node: &Node,
) -> anyhow::Result<Vec<Wanted>> {
    let scope = if args.both {
        Scope::Both
    } else {
        Scope::Images
    };
    let mut wanted = payload.wanted(root, node)?;
    wanted.extend(wiring::wanted(root, node, scope)?);
    Ok(wanted)
}

fn say_what_was_found(node: &Node) -> anyhow::Result<()> {
    terminal::print(&format!(
        "found {}, started by {}; the runtime is at {} ({})\n",
        node.kind,
        node.unit,
        node.runtime.display(),
        node.runtime_from
    ))?;
    if node.predecessor {
        terminal::print(
            "found the Go program of the same name: its unit is replaced, its config stays\n",
        )?;
    }
    Ok(())
}

fn print_diffs(changes: &[Change]) -> anyhow::Result<Outcome> {
    for change in changes {
        terminal::print(&diff::unified(change))?;
    }
    if changes.is_empty() {
        terminal::print("nothing to change\n")?;
    }
    Ok(Outcome::Done)
}
