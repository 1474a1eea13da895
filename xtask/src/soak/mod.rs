//! `cargo xtask soak`: real parts under load for a long time, while everything around them fails.
//!
//! | module | what it does |
//! |---|---|
//! | [`schedule`] | what fails, and when: follows from the seed |
//! | [`site`] | images and configs |
//! | [`world`] | the parts |
//! | [`clock`] | the processes' wall clock |
//! | [`load`] | the clients |
//! | [`chaos`] | lets things fail |
//! | [`health`] | which calls have to succeed |
//! | [`processes`] | whether a process grows |
//! | [`invariants`] | looks at secrets, processes, the store |
//! | [`ledger`], [`report`] | what happened, for people |

mod chaos;
mod clock;
mod health;
mod invariants;
mod ledger;
mod load;
mod processes;
mod random;
mod report;
mod schedule;
mod site;
mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use testkit::tools::Tools;
use tokio::signal::unix::{SignalKind, signal};

use self::invariants::Watch;
use self::ledger::{Invariant, Ledger};
use self::schedule::Schedule;
use self::world::World;
use crate::step::{build_shim, need_root, target};

const PROGRESS_INTERVAL: Duration = Duration::from_secs(60);

/// Runs a soak; fails when an invariant does not hold.
pub(crate) fn run(minutes: u64, seed: Option<u64>, binary: Option<PathBuf>) -> Result<()> {
    need_root("cargo xtask soak")?;
    Tools::ensure().context("the programs that the soak runs")?;
    let binary = match binary {
        Some(binary) => binary,
        None => build_shim()?,
    };
    let seed = seed.unwrap_or_else(new_seed);
    let length = Duration::from_secs(minutes.max(1) * 60);
    let schedule = Schedule::new(seed, length);
    println!(
        "Soak of {minutes} minutes. The same schedule again: cargo xtask soak --minutes {minutes} --seed {seed}\n\n{}\n",
        report::schedule(&schedule)
    );
    let logs = target().join("soak").join(format!("seed-{seed}"));
    if logs.exists() {
        fs::remove_dir_all(&logs).with_context(|| format!("deleting {}", logs.display()))?;
    }
    fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let soaked = runtime.block_on(until_interrupted(&binary, seed, length, &schedule, &logs));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match soaked {
        Ok(ledger) => {
            let text = report::report(seed, length, &ledger);
            println!("\n{text}");
            if ledger.is_clean() {
                let _ = fs::remove_dir_all(&logs);
                return Ok(());
            }
            fs::write(logs.join("report.txt"), &text)?;
            bail!(
                "an invariant does not hold; the logs are in {}",
                logs.display()
            )
        }
        Err(error) => Err(error.context(format!("the logs are in {}", logs.display()))),
    }
}

fn new_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(1, |now| now.as_secs())
}

/// A signal drops the world where it is, and dropping it ends and deletes all of it.
async fn until_interrupted(
    binary: &Path,
    seed: u64,
    length: Duration,
    schedule: &Schedule,
    logs: &Path,
) -> Result<Ledger> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        soaked = soak(binary, seed, length, schedule, logs) => soaked,
        _ = interrupt.recv() => bail!("interrupted; all that was started has been stopped"),
        _ = terminate.recv() => bail!("terminated; all that was started has been stopped"),
    }
}

async fn soak(
    binary: &Path,
    seed: u64,
    length: Duration,
    schedule: &Schedule,
    logs: &Path,
) -> Result<Ledger> {
    let world = World::start(binary, logs).await?;
    let watch = Watch::new(&world, logs)?;
    let work = async {
        tokio::join!(
            load::run(&world, seed, length),
            chaos::run(&world, schedule)
        )
        .1
    };
    let ended = tokio::select! {
        done = work => done,
        watched = watch.run() => watched,
        never = progress(&world, length) => never,
    };
    if let Err(error) = ended {
        let text = format!("{error:#}");
        world.ledger().breaks(Invariant::Alive, world.now(), text);
        watch.at_the_end().await?;
        return Ok(world.abandon());
    }
    load::pull_everything(&world).await;
    watch.at_the_end().await?;
    invariants::judge_lives(&world);
    drop(watch);
    Ok(world.end().await)
}

/// Tells once a minute how it goes.
async fn progress(world: &World, length: Duration) -> Result<()> {
    loop {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        eprintln!("{}", report::progress(world.now(), length, &world.ledger()));
    }
}
