//! Back to what was there before: kubelet first, then the shim.

use std::path::Path;

use anyhow::{Context, bail};
use installer::transaction;
use installer::wiring;
use installer::{KubeletService, Root, Undone};

use super::live::Live;
use super::{Outcome, UninstallArgs, check, print_diffs};
use crate::commands::terminal;

pub(super) fn try_uninstall(args: &UninstallArgs) -> anyhow::Result<Outcome> {
    let place = &args.place;
    let root = place.enter()?;
    if !transaction::is_installed(&root)? {
        if !place.check && !place.dry_run {
            // What a killed run left, where there is anything.
            transaction::uninstall(&root)?;
        }
        terminal::print("nothing is installed\n")?;
        return Ok(Outcome::Done);
    }
    if place.dry_run {
        return print_diffs(&transaction::undo_changes(&root)?);
    }
    if place.check {
        terminal::print("the shim is installed\n")?;
        return Ok(Outcome::ToDo);
    }
    if !root.is_live() {
        report(&root, &transaction::uninstall(&root)?)?;
        return Ok(Outcome::Done);
    }
    // By the record, and not by what is found: whatever else stands on the node, it can be left.
    let service = KubeletService::led(&root)?;
    if let Some(service) = &service {
        check(&args.kubelet, &root, service)?;
    }
    let live = Live::new(&root, service.as_ref(), args.kubelet.timeout);
    refuse_where_wired(&transaction::unwire(&root)?)?;
    live.reload_units()?;
    let restart = args.kubelet.restart_kubelet;
    match Next::of(&root, service.as_ref())? {
        Next::Predecessor => {
            // It listens where kubelet dials: kubelet can't leave before it is there, and need not.
            remove(&root, &live, true)?;
            if restart {
                live.restart_kubelet(false)?;
            }
            return Ok(Outcome::Done);
        }
        Next::Told { place } => bail!(
            "kubelet is told to dial the shim by {place}, which `install` has not written; take {} out of it, restart kubelet and run uninstall again. The shim stays until then",
            wiring::endpoint()
        ),
        Next::Runtime if restart => live.restart_kubelet(false)?,
        Next::NoKubelet => terminal::print(
            "the unit that started kubelet here is gone, so there is no kubelet to lead back\n",
        )?,
        Next::Runtime => {}
    }
    if live.kubelet_dials_the_shim()? {
        match &service {
            Some(service) => bail!(
                "the running kubelet still dials the shim, so its socket stays; restart it (systemctl restart {}) and run uninstall again, or say --restart-kubelet",
                service.unit
            ),
            None => bail!(
                "something is still connected to the shim, as a kubelet would be, so its socket stays; end it (`ss -xp | grep image-cri-shim` names it) and run uninstall again"
            ),
        }
    }
    remove(&root, &live, false)?;
    Ok(Outcome::Done)
}

/// Who serves kubelet when the shim is gone: by the files as they are after its wiring was undone.
enum Next {
    /// The runtime.
    Runtime,
    /// The Go program of the same name, whose unit the shim's has taken the place of.
    Predecessor,
    /// Nobody: a file that is not ours leads kubelet to the shim's link.
    Told { place: String },
    /// There is no kubelet any more.
    NoKubelet,
}

impl Next {
    fn of(root: &Root, service: Option<&KubeletService>) -> anyhow::Result<Self> {
        let Some(service) = service else {
            return Ok(Self::NoKubelet);
        };
        Ok(match service.told_to_dial_us(root)? {
            None => Self::Runtime,
            Some(_) if transaction::brings_back_the_predecessor(root)? => Self::Predecessor,
            Some(place) => Self::Told { place },
        })
    }
}

/// Removes the shim, where kubelet can do without it. The record goes last: a run that is killed here is finished by the
/// next.
fn remove(root: &Root, live: &Live<'_>, predecessor: bool) -> anyhow::Result<()> {
    live.stop_the_shim()?;
    // While the config still says where it is.
    live.remove_state()?;
    let undone = transaction::restore(root)?;
    live.reload_units()?;
    report(root, &undone)?;
    if predecessor {
        live.start_the_predecessor()?;
        terminal::print("the Go program of the same name serves kubelet again\n")?;
    }
    transaction::uninstall(root)?;
    live.remove_state_folder()
}

/// After a failed install: the wiring, kubelet, and then the rest.
pub(super) fn unwire_and_remove(root: &Root, live: &Live<'_>) -> anyhow::Result<()> {
    refuse_where_wired(&transaction::unwire(root)?)?;
    live.reload_units()?;
    let after = "the shim is removed, and kubelet is not well without it either, so the shim is not what it lacks; mend kubelet, and run install again";
    if let Next::Predecessor = Next::of(root, live.service())? {
        remove(root, live, true)?;
        if live.has_restarted_kubelet() {
            live.restart_kubelet(false).context(after)?;
        }
        return Ok(());
    }
    let kubelet = if live.has_restarted_kubelet() || live.kubelet_dials_the_shim()? {
        live.restart_kubelet(false)
    } else {
        Ok(())
    };
    // A kubelet that is not well without the shim either can do without its socket, unless it still dials it.
    if live.kubelet_dials_the_shim()? {
        return kubelet.and_then(|()| bail!("the running kubelet still dials the shim"));
    }
    remove(root, live, false)?;
    kubelet.context(after)
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
        "{} still leads kubelet to the shim, by what somebody else has written there; take {} out of it by hand and run uninstall again. The shim stays until then, since kubelet dials it",
        files.join(", "),
        wiring::endpoint()
    )
}

/// Whether anything is at `path`, be it a link to nothing.
fn stands(root: &Root, path: &Path) -> bool {
    let folder = path.parent().and_then(|folder| root.resolve(folder).ok());
    let place = folder.zip(path.file_name());
    place.is_some_and(|(folder, name)| folder.join(name).symlink_metadata().is_ok())
}

pub(super) fn report(root: &Root, undone: &Undone) -> anyhow::Result<()> {
    for path in &undone.restored {
        let what = match stands(root, path) {
            true => "put back",
            // Nothing stood there before.
            false => "removed",
        };
        terminal::print(&format!("{what} {}\n", path.display()))?;
    }
    for path in &undone.left {
        terminal::print(&format!(
            "left {}: somebody has edited it since\n",
            path.display()
        ))?;
    }
    refuse_where_wired(undone)
}
