//! Processes that die in the middle of a hand-over, or right after it.

use rustix::process::Signal;
use testkit::wait::until;

use crate::world::{Generation, World};

#[tokio::test]
async fn the_old_one_is_killed_as_soon_as_systemd_knows_the_new_one() {
    let mut world = World::under_systemd("").await;
    let systemd = world.systemd.take().unwrap();
    let hearing = async {
        // Before it is answered, so that the old one waits.
        let heard = systemd.heard("MAINPID=").await;
        world
            .shim
            .pid()
            .map(|pid| {
                let old = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
                rustix::process::kill_process(old, Signal::KILL).unwrap();
            })
            .unwrap();
        heard
    };
    let (asked, (systemd, pid)) = tokio::join!(world.ask(), hearing);
    assert_eq!(asked.status.code(), Some(1), "{asked:?}");
    let mut new = Generation::of(pid.parse().unwrap());
    // Nobody was refused in between: the socket was never closed.
    cri::runtime_version(&world.client()).await.unwrap();
    // It feeds the watchdog.
    let (_systemd, _) = systemd.heard("WATCHDOG=1").await;
    new.signal(Signal::TERM);
    assert_eq!(new.end().await, Some(0));
    assert!(!world.shim.socket().exists());
}

#[tokio::test]
async fn the_old_one_is_killed_with_a_call_in_flight_after_the_hand_over() {
    let mut world = World::start("").await;
    world.runtime.hang("PullImage");
    let client = world.client();
    let pull = tokio::spawn(async move { cri::pull_image(&client, "ghcr.io/team/app:1").await });
    until("the pull to arrive", async || {
        (world.runtime.count("PullImage") == 1).then_some(())
    })
    .await;
    let _new = world.hand_over().await;
    world.shim.kill().unwrap();
    pull.await.unwrap().unwrap_err();
    world.runtime.answer("PullImage");
    let pulled = cri::pull_image(&world.client(), "ghcr.io/team/app:1").await;
    assert!(pulled.unwrap().is_ok());
}

#[tokio::test]
async fn the_new_one_is_killed_while_it_starts() {
    let world = World::start("").await;
    world.replace_by_script("kill -KILL $$");
    let said = world.fail().await;
    assert!(said.contains("signal: 9"), "{said}");
    cri::runtime_version(&world.client()).await.unwrap();
}

#[tokio::test]
async fn a_stop_during_a_hand_over_ends_both() {
    let mut world = World::start("").await;
    world.replace_by_script("echo $$ >\"$0.pid\"; exec sleep 3600");
    let stopping = async {
        let pid = until("the new one to run", async || {
            let pid = std::fs::read_to_string(world.program.with_extension("pid"));
            pid.ok().filter(|pid| pid.ends_with('\n'))
        })
        .await;
        let old = world.shim.pid().unwrap();
        let old = rustix::process::Pid::from_raw(old.try_into().unwrap()).unwrap();
        rustix::process::kill_process(old, Signal::TERM).unwrap();
        pid
    };
    let (said, pid) = tokio::join!(world.fail(), stopping);
    assert!(said.contains("told to stop"), "{said}");
    assert!(world.shim.wait().await.unwrap().success());
    assert!(!std::path::Path::new("/proc").join(pid.trim()).exists());
    assert!(!world.shim.socket().exists());
}
