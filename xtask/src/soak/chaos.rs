//! Brings the events of the schedule about.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use testkit::fake_api_server::ApiFault;

use super::health::Part;
use super::schedule::{Event, Role, Schedule, What};
use super::site;
use super::world::{World, write_cache_config};

/// What is left of a config file that was cut off while it was written.
const CUT_OFF: &str = "registries:\n- {address: 'http://";
/// How often the disk is filled again while it is to be full: the cache makes room for itself.
const FILL_INTERVAL: Duration = Duration::from_millis(300);

/// Lets all events happen, each at its time.
///
/// # Errors
/// When a part can't be started again.
pub(crate) async fn run(world: &World, schedule: &Schedule) -> Result<()> {
    let events = schedule.events.iter().map(|event| async move {
        world.until(event.at).await;
        let happened = happen(world, event).await;
        happened.with_context(|| format!("{}", event.what))
    });
    try_join_all(events).await?;
    Ok(())
}

async fn happen(world: &World, event: &Event) -> Result<()> {
    let what = event.what;
    match what {
        What::RegistryKilled(registry)
        | What::RegistrySilent(registry)
        | What::RegistryFrozen(registry)
        | What::RateLimited(registry, _)
        | What::RegistryFails(registry) => disturb_registry(world, event, registry).await?,
        What::RuntimeKilled | What::RuntimeRestarted => {
            let mut containerd = world.containerd.lock().await;
            begins(world, event);
            world.disturb(Part::Runtime);
            if what == What::RuntimeKilled {
                containerd.kill()?;
            } else {
                containerd.stop().await?;
            }
            tokio::time::sleep(event.lasting).await;
            containerd.start_again().await?;
            world.mend(Part::Runtime);
        }
        What::ShimKilled | What::ShimRestarted => {
            let mut shim = world.shim.lock().await;
            begins(world, event);
            world.disturb(Part::Shim);
            if what == What::ShimKilled {
                shim.kill()?;
                tokio::time::sleep(event.lasting).await;
            } else {
                let status = shim.terminate().await?;
                anyhow::ensure!(status.success(), "the shim ended with {status} on SIGTERM");
            }
            shim.start_again().await?;
            world.mend(Part::Shim);
        }
        // Nothing is disturbed: every call has to succeed meanwhile.
        What::HandOver => {
            let mut shim = world.shim.lock().await;
            begins(world, event);
            shim.hand_over().await?;
        }
        What::CacheKilled | What::CacheRestarted => {
            let mut cache = world.cache.lock().await;
            begins(world, event);
            world.disturb(Part::Cache);
            if what == What::CacheKilled {
                cache.kill()?;
                tokio::time::sleep(event.lasting).await;
            } else {
                cache.stop().await?;
            }
            cache.start_again().await?;
            world.mend(Part::Cache);
        }
        What::WebhookRestarted => {
            let mut webhook = world.webhook.lock().await;
            begins(world, event);
            world.disturb(Part::Webhook);
            webhook.terminate()?;
            let status = webhook.ended().await?;
            anyhow::ensure!(
                status.success(),
                "the webhook ended with {status} on SIGTERM"
            );
            *webhook = world.new_webhook().await?;
            world.mend(Part::Webhook);
        }
        What::DiskFull => {
            begins(world, event);
            world.disturb(Part::CacheDisk);
            let end = world.now() + event.lasting;
            while world.now() < end {
                world.disk.fill()?;
                tokio::time::sleep(FILL_INTERVAL).await;
            }
            world.disk.free()?;
            world.mend(Part::CacheDisk);
        }
        What::ClockStep(seconds) => {
            begins(world, event);
            world.clock.step(seconds)?;
            tokio::time::sleep(event.lasting).await;
            world.clock.step(0)?;
        }
        What::Signalled(_)
        | What::FileChanged(..)
        | What::FileBroken(_)
        | What::ConfigMapChanged(_)
        | What::ConfigMapBroken
        | What::ConfigMapDeleted
        | What::ApiServerSilent
        | What::ApiServerFails => change_config(world, event).await?,
    }
    world.ledger().note(world.now(), &format!("over: {what}"));
    Ok(())
}

/// Counts an event and writes down that it begins.
fn begins(world: &World, event: &Event) {
    let mut ledger = world.ledger();
    ledger.event(event.what.kind());
    ledger.note(world.now(), &format!("begins: {}", event.what));
}

async fn disturb_registry(world: &World, event: &Event, registry: usize) -> Result<()> {
    let place = world.registries.get(registry).context("no such registry")?;
    let mut place = place.lock().await;
    begins(world, event);
    world.disturb(Part::Registry(registry));
    match event.what {
        What::RegistryKilled(_) => {
            place.stop().await;
            tokio::time::sleep(event.lasting).await;
            place.start_again().await?;
        }
        What::RegistrySilent(_) => {
            place.set_black_hole(true);
            tokio::time::sleep(event.lasting).await;
            // What was asked meanwhile is never answered: its connections break.
            place.stop().await;
            place.set_black_hole(false);
            place.start_again().await?;
        }
        What::RegistryFrozen(_) => {
            let pid = place.pid().context("the registry is not running")?;
            signal(pid, Signal::STOP)?;
            tokio::time::sleep(event.lasting).await;
            signal(pid, Signal::CONT)?;
        }
        What::RateLimited(_, retry_after) => {
            place.limit_rate(retry_after);
            tokio::time::sleep(event.lasting).await;
            place.fail_nothing();
        }
        _ => {
            place.fail("/v2/", StatusCode::SERVICE_UNAVAILABLE);
            tokio::time::sleep(event.lasting).await;
            place.fail_nothing();
        }
    }
    world.mend(Part::Registry(registry));
    Ok(())
}

async fn change_config(world: &World, event: &Event) -> Result<()> {
    let addresses = &world.addresses;
    match event.what {
        What::Signalled(role) => {
            let pid = match role {
                Role::Shim => world.shim.lock().await.pid()?,
                Role::Cache => world
                    .cache
                    .lock()
                    .await
                    .pid()
                    .context("the cache is not running")?,
                Role::Webhook => world.webhook.lock().await.pid(),
            };
            begins(world, event);
            signal(pid, Signal::HUP)?;
        }
        What::FileChanged(Role::Cache, variant) => {
            let cache = world.cache.lock().await;
            begins(world, event);
            write_cache_config(&cache, addresses, variant, &world.disk)?;
        }
        What::FileChanged(_, variant) => {
            let shim = world.shim.lock().await;
            begins(world, event);
            shim.write_config(&site::shim_config(addresses, variant))?;
        }
        // Nobody is started while its file is broken: outside systemd that is refused.
        What::FileBroken(Role::Cache) => {
            let cache = world.cache.lock().await;
            begins(world, event);
            fs::write(cache.config_file(), CUT_OFF)?;
            tokio::time::sleep(event.lasting).await;
            write_cache_config(&cache, addresses, 0, &world.disk)?;
        }
        What::FileBroken(_) => {
            let shim = world.shim.lock().await;
            begins(world, event);
            fs::write(shim.config_file(), CUT_OFF)?;
            tokio::time::sleep(event.lasting).await;
            shim.write_config(&site::shim_config(addresses, 0))?;
        }
        What::ConfigMapChanged(variant) => {
            begins(world, event);
            let text = site::config_map(addresses, variant);
            world.api.apply_config_map(&text);
        }
        What::ConfigMapBroken | What::ConfigMapDeleted => {
            begins(world, event);
            if event.what == What::ConfigMapBroken {
                world.api.apply_config_map("registries: [");
            } else {
                world.api.delete_config_map();
            }
            tokio::time::sleep(event.lasting).await;
            let text = site::config_map(addresses, 0);
            world.api.apply_config_map(&text);
        }
        _ => {
            begins(world, event);
            let fault = match event.what {
                What::ApiServerSilent => ApiFault::Silence,
                _ => ApiFault::Status(500),
            };
            world.api.set_fault(Some(fault));
            world.api.disconnect_watches();
            tokio::time::sleep(event.lasting).await;
            world.api.set_fault(None);
        }
    }
    Ok(())
}

/// Sends a signal to a process that was started here and is not waited for yet.
fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.context("a process ID that is none")?;
    kill_process(pid, signal).with_context(|| format!("sending {signal:?}"))
}
