//! `cargo xtask demo`: the main job of the shim and of the node cache, shown on a real containerd and real registries.
//!
//! Every registry holds different content under the same names, so that the ID of what containerd
//! has afterwards proves where it came from, whatever the shim says.

mod cache;
mod report;
mod scene;
mod steps;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use testkit::tools::Tools;
use tokio::signal::unix::{SignalKind, signal};

use self::scene::Scene;
use crate::step::{build_shim, need_root};

/// Builds the shim (unless a binary is given), shows it at work, and fails when anything is not as
/// expected.
pub(crate) fn run(binary: Option<PathBuf>) -> Result<()> {
    need_root("cargo xtask demo")?;
    Tools::ensure().context("the programs that the demo runs")?;
    let binary = match binary {
        Some(binary) => binary,
        None => build_shim()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let shown = runtime.block_on(show_until_interrupted(&binary));
    // What the scene's end left to the runtime (closing connections) is done before we say so.
    runtime.shutdown_timeout(Duration::from_secs(1));
    shown
}

/// A signal drops the scene where it is, and dropping it ends and deletes all of it.
async fn show_until_interrupted(binary: &Path) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        shown = show(binary) => shown,
        _ = interrupt.recv() => bail!("interrupted; all that was started has been stopped"),
        _ = terminate.recv() => bail!("terminated; all that was started has been stopped"),
    }
}

async fn show(binary: &Path) -> Result<()> {
    let mut scene = Scene::set(binary).await?;
    report::scene(&scene);
    let mut outcome = steps::run(&mut scene).await?;
    cache::run(&mut scene, binary, &mut outcome).await?;
    if outcome.wrong > 0 {
        eprintln!("\nThe shim's log:\n{}", scene.shim.log());
    }
    scene.end().await?;
    ensure!(
        outcome.wrong == 0,
        "{} of {} steps were not as expected",
        outcome.wrong,
        outcome.steps
    );
    println!(
        "\nAll {} steps as expected. Everything is stopped and deleted.",
        outcome.steps
    );
    Ok(())
}
