//! `image-cri-shim install` and `uninstall`: kubelet is led to the shim, and back.

mod live;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use installer::payload::Payload;
use installer::transaction::{self, Wanted};
use installer::wiring::{self, Scope};
use installer::{Change, Kind, Node, Root, Undone, diff};

use self::live::Live;
use super::terminal;

/// Lead this node's kubelet to the shim
///
/// Writes files of its own where the node allows it, and records every change, so that `uninstall` puts back
/// exactly what was there. Running it twice changes nothing. Kubelet is restarted only where that is asked for.
/// Exit status: 0; 1 where something failed, which is said; 2 where the command line is wrong.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    place: PlaceArgs,

    /// Lead the runtime service to the shim too, not the image service alone
    #[arg(long)]
    both: bool,

    /// The container runtime's socket, where it can't be found out
    #[arg(long, value_name = "SOCKET")]
    runtime: Option<PathBuf>,

    /// Where the program goes on a node without a package of it
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    prefix: PathBuf,
}

/// Lead this node's kubelet back to the runtime, and remove the shim
///
/// Files that somebody has edited since are left and named. While kubelet still dials the shim, its socket
/// stays and this fails: a kubelet must never dial nothing.
#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    #[command(flatten)]
    place: PlaceArgs,
}

/// Where to work, and how far to go.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// Print every change as a diff, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Work on the tree below this directory, for image builders; no service is touched
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,

    /// Restart kubelet, wait until it works, and put everything back where it doesn't
    #[arg(long)]
    restart_kubelet: bool,

    /// On k3s and RKE2 kubelet is part of the whole service, on a server the control plane: restart that
    #[arg(long)]
    yes_restart_k3s: bool,

    /// How long kubelet may take to work again
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    timeout: Duration,
}

impl PlaceArgs {
    fn check(&self, node: &Node) -> anyhow::Result<()> {
        if self.restart_kubelet && self.root != Path::new("/") {
            bail!("--restart-kubelet is for the running node; --root names a tree");
        }
        let whole = matches!(node.kind, Kind::K3s | Kind::Rke2 | Kind::K0s);
        if self.restart_kubelet && whole && !self.yes_restart_k3s {
            bail!(
                "on {} kubelet restarts with all of {}; say --yes-restart-k3s too if that is what you want",
                node.kind,
                node.unit
            );
        }
        Ok(())
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    policy::duration::parse(text).map_err(|error| error.to_string())
}

/// Runs `install`.
pub(crate) fn install(args: &InstallArgs) -> ExitCode {
    exit(try_install(args))
}

/// Runs `uninstall`.
pub(crate) fn uninstall(args: &UninstallArgs) -> ExitCode {
    exit(try_uninstall(&args.place))
}

fn exit(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn try_install(args: &InstallArgs) -> anyhow::Result<()> {
    let place = &args.place;
    let root = Root::new(&place.root);
    let mut node = Node::look(&root)?;
    if let Some(runtime) = &args.runtime {
        node.runtime.clone_from(runtime);
        node.runtime_from = "--runtime".to_owned();
    }
    place.check(&node)?;
    let wanted = wanted(args, &root, &node)?;
    say_what_was_found(&node)?;
    if place.dry_run {
        return print_diffs(&transaction::changes(&root, &wanted)?);
    }
    let changes = transaction::install(&root, &wanted)?;
    for change in &changes {
        terminal::print(&format!("wrote {}\n", change.path.display()))?;
    }
    if changes.is_empty() {
        terminal::print("nothing to change\n")?;
    }
    if !root.is_live() {
        return Ok(());
    }
    let live = Live::new(&root, &node, place.timeout);
    live.start_the_shim(&changes)?;
    let kubelet_reads = changes.iter().any(|change| {
        wanted
            .iter()
            .any(|file| file.wiring && file.path == change.path)
    });
    if !place.restart_kubelet {
        if kubelet_reads {
            terminal::print(&format!(
                "kubelet goes through the shim after its next restart: systemctl restart {}\n",
                node.unit
            ))?;
        }
        return Ok(());
    }
    if let Err(error) = live.restart_kubelet(true) {
        terminal::say(&format!(
            "{error:#}; putting everything back as it was before"
        ));
        unwire_and_remove(&root, &live).context("while putting everything back")?;
        bail!(
            "kubelet did not work through the shim within {:?}; this node is as it was before",
            place.timeout
        );
    }
    Ok(terminal::print("kubelet works through the shim\n")?)
}

fn wanted(args: &InstallArgs, root: &Root, node: &Node) -> anyhow::Result<Vec<Wanted>> {
    let scope = if args.both {
        Scope::Both
    } else {
        Scope::Images
    };
    let program = std::env::current_exe()
        .and_then(std::fs::read)
        .context("cannot read this program, to copy it")?;
    let payload = Payload {
        program,
        prefix: args.prefix.clone(),
    };
    let mut wanted = payload.wanted(root, node);
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

fn try_uninstall(place: &PlaceArgs) -> anyhow::Result<()> {
    let root = Root::new(&place.root);
    if !transaction::is_installed(&root)? {
        // What a killed run left, where there is anything.
        transaction::uninstall(&root)?;
        return Ok(terminal::print("nothing is installed\n")?);
    }
    if place.dry_run {
        return print_diffs(&transaction::undo_changes(&root)?);
    }
    if !root.is_live() {
        return report(&transaction::uninstall(&root)?);
    }
    let node = Node::look(&root)?;
    place.check(&node)?;
    let live = Live::new(&root, &node, place.timeout);
    refuse_where_wired(&transaction::unwire(&root)?)?;
    live.reload_units()?;
    if place.restart_kubelet {
        live.restart_kubelet(false)?;
    }
    if live.kubelet_dials_the_shim()? {
        bail!(
            "the running kubelet still dials the shim, so its socket stays; restart it (systemctl restart {}) and run uninstall again, or say --restart-kubelet",
            node.unit
        );
    }
    live.stop_the_shim()?;
    let undone = transaction::uninstall(&root)?;
    live.reload_units()?;
    // Before the directory goes whose record says so: what somebody edited is named first.
    report(&undone)?;
    live.remove_state()
}

/// After a failed install: the wiring, kubelet, and then the rest.
fn unwire_and_remove(root: &Root, live: &Live<'_>) -> anyhow::Result<()> {
    refuse_where_wired(&transaction::unwire(root)?)?;
    live.reload_units()?;
    live.restart_kubelet(false)?;
    live.stop_the_shim()?;
    report(&transaction::uninstall(root)?)?;
    live.reload_units()
}

fn refuse_where_wired(undone: &Undone) -> anyhow::Result<()> {
    if undone.still_wired.is_empty() {
        return Ok(());
    }
    let files: Vec<_> = undone
        .still_wired
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    bail!(
        "somebody has edited {} since; take {} out of it by hand and run uninstall again. The shim stays until then, since kubelet dials it",
        files.join(", "),
        wiring::endpoint()
    )
}

fn report(undone: &Undone) -> anyhow::Result<()> {
    for path in &undone.restored {
        terminal::print(&format!("put back {}\n", path.display()))?;
    }
    for path in &undone.left {
        terminal::print(&format!(
            "left {}: somebody has edited it since\n",
            path.display()
        ))?;
    }
    refuse_where_wired(undone)
}

fn print_diffs(changes: &[Change]) -> anyhow::Result<()> {
    for change in changes {
        terminal::print(&diff::unified(change))?;
    }
    if changes.is_empty() {
        terminal::print("nothing to change\n")?;
    }
    Ok(())
}
