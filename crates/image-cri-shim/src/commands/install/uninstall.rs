//! Back to what was there before: kubelet first, then the shim.

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
        report(&transaction::uninstall(&root)?)?;
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
    match &service {
        Some(_) if args.kubelet.restart_kubelet => live.restart_kubelet(false)?,
        None => terminal::print(
            "the unit that started kubelet here is gone, so there is no kubelet to lead back\n",
        )?,
        Some(_) => {}
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
    live.stop_the_shim()?;
    let undone = transaction::uninstall(&root)?;
    live.reload_units()?;
    // Before the directory goes whose record says so: what somebody edited is named first.
    report(&undone)?;
    live.remove_state()?;
    Ok(Outcome::Done)
}

/// After a failed install: the wiring, kubelet, and then the rest.
pub(super) fn unwire_and_remove(root: &Root, live: &Live<'_>) -> anyhow::Result<()> {
    refuse_where_wired(&transaction::unwire(root)?)?;
    live.reload_units()?;
    let kubelet = if live.has_restarted_kubelet() || live.kubelet_dials_the_shim()? {
        live.restart_kubelet(false)
    } else {
        Ok(())
    };
    // A kubelet that is not well without the shim either can do without its socket, unless it still dials it.
    if live.kubelet_dials_the_shim()? {
        return kubelet.and_then(|()| bail!("the running kubelet still dials the shim"));
    }
    live.stop_the_shim()?;
    report(&transaction::uninstall(root)?)?;
    live.remove_state()?;
    live.reload_units()?;
    kubelet.context("the shim is removed, and kubelet is not well without it either")
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

pub(super) fn report(undone: &Undone) -> anyhow::Result<()> {
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
