//! New programs and configs that are broken: the old shim serves on, and whoever asked hears why.

use std::path::Path;

use rustix::process::Signal;
use testkit::wait::until;

use crate::world::{BINARY, Generation, World};

/// The shim that runs serves as before, and then hands over to a good program.
async fn serves_on(world: &World, before: &str) {
    cri::runtime_version(&world.client()).await.unwrap();
    assert_eq!(world.serving().await, before);
    world.replace_program(Path::new(BINARY));
    let new = world.hand_over().await;
    cri::runtime_version(&world.client()).await.unwrap();
    drop(new);
}

#[tokio::test]
async fn a_program_that_ends_at_once() {
    let world = World::start("").await;
    let before = world.serving().await;
    world.replace_program(Path::new("/bin/false"));
    let said = world.fail().await;
    assert!(said.contains("has ended (exit status: 1)"), "{said}");
    assert!(said.contains("serves on"), "{said}");
    assert!(said.contains("systemctl reload image-cri-shim"), "{said}");
    serves_on(&world, &before).await;
}

#[tokio::test]
async fn a_program_that_never_gets_ready() {
    let world = World::start("").await;
    let before = world.serving().await;
    world.replace_by_script("echo $$ >\"$0.pid\"; exec sleep 3600");
    let said = world.fail().await;
    assert!(said.contains("was not ready within 8s"), "{said}");
    // It was killed.
    let pid = std::fs::read_to_string(world.program.with_extension("pid")).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists());
    serves_on(&world, &before).await;
}

#[tokio::test]
async fn a_program_that_is_none() {
    let world = World::start("").await;
    let before = world.serving().await;
    std::fs::remove_file(&world.program).unwrap();
    let said = world.fail().await;
    assert!(said.contains("No such file"), "{said}");
    serves_on(&world, &before).await;
}

#[tokio::test]
async fn a_config_that_the_new_one_cannot_use() {
    // There is a last good config, which is for a start without a shim that serves.
    let mut world = World::under_systemd("").await;
    world.systemd.take().unwrap().read_on();
    let before = world.serving().await;
    world.shim.write_config("timeout: soon").unwrap();
    let said = world.fail().await;
    assert!(said.contains("timeout: not a duration"), "{said}");
    world.shim.write_config("").unwrap();
    serves_on(&world, &before).await;
}

#[tokio::test]
async fn a_program_that_speaks_another_language() {
    let world = World::start("").await;
    let before = world.serving().await;
    world.replace_by_script(&format!("IMAGE_CRI_SHIM_HANDOVER=99 exec {BINARY} \"$@\""));
    let said = world.fail().await;
    assert!(said.contains("hands over by protocol 99"), "{said}");
    assert!(said.contains("restart the service"), "{said}");
    serves_on(&world, &before).await;
}

#[tokio::test]
async fn a_program_that_stops_when_it_is_ready() {
    let mut world = World::under_systemd("").await;
    let before = world.serving().await;
    let own = world.shim.pid().unwrap().to_string();
    let systemd = world.systemd.take().unwrap();
    let hearing = async {
        let (systemd, pid) = systemd.heard("MAINPID=").await;
        let new = Generation::of(pid.parse().unwrap());
        new.signal(Signal::STOP);
        // systemd looks after the old one again.
        let (_, pid) = systemd.heard("MAINPID=").await;
        (new, pid)
    };
    let (said, (mut new, main)) = tokio::join!(world.fail(), hearing);
    assert!(said.contains("did not begin to serve within 2s"), "{said}");
    assert_eq!(main, own);
    assert_eq!(new.end().await, None, "it was killed");
    assert!(world.shim.is_running());
    cri::runtime_version(&world.client()).await.unwrap();
    assert_eq!(world.serving().await, before);
}

#[tokio::test]
async fn two_at_once() {
    let world = World::start("").await;
    world.replace_by_script(&format!("read -r _ <\"$0.wait\"; exec {BINARY} \"$@\""));
    let fifo = world.program.with_extension("wait");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let second = async {
        until("the first to be under way", async || {
            let log = world.shim.log();
            log.contains("handing over to").then_some(())
        })
        .await;
        let said = world.fail().await;
        // The script opens it, too.
        tokio::fs::write(&fifo, "go\n").await.unwrap();
        said
    };
    let (_new, said) = tokio::join!(world.hand_over(), second);
    assert!(said.contains("under way already"), "{said}");
}
