//! What must neither be lost nor belong to two: aliases, calls in flight, the socket's file, `metricsAddress`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use testkit::fake_registry::FakeRegistry;
use testkit::images::Image;
use testkit::shim::Shim;
use testkit::wait::until;
use tokio::task::JoinHandle;

use crate::world::{BINARY, Generation, World};

const IMAGE: &str = "ghcr.io/team/app:1";

async fn arrived(world: &World, pulls: usize) {
    until("a pull to arrive", async || {
        (world.runtime.count("PullImage") == pulls).then_some(())
    })
    .await;
}

fn pull(world: &World, image: &'static str) -> JoinHandle<()> {
    let client = world.client();
    tokio::spawn(async move {
        let pulled = cri::pull_image(&client, image).await.unwrap();
        assert!(pulled.is_ok(), "{pulled:?}");
    })
}

fn aliases(shim: &Shim) -> String {
    fs::read_to_string(shim.state_dir().join("aliases")).unwrap_or_default()
}

/// A registry that has the image, and the config that names it.
fn registry() -> (FakeRegistry, String) {
    let registry = FakeRegistry::start().unwrap();
    registry.add(&Image::new("handed over"), "team/app", "1");
    registry.add(&Image::new("another"), "team/app", "2");
    let config = format!("registries: [{{address: '{}'}}]", registry.url());
    (registry, config)
}

#[tokio::test]
async fn what_a_late_pull_teaches_reaches_the_one_that_serves_then() {
    let (registry, config) = registry();
    let mut world = World::start(&config).await;
    world.runtime.hang("PullImage");
    let late = pull(&world, IMAGE);
    arrived(&world, 1).await;
    let mut second = world.hand_over().await;
    // The second has a call of its own, and hands over as well: the first one's news goes by it.
    let other = pull(&world, "ghcr.io/team/app:2");
    arrived(&world, 2).await;
    let third = world.hand_over().await;
    assert_eq!(aliases(&world.shim), aliases_header());
    world.runtime.answer("PullImage");
    late.await.unwrap();
    other.await.unwrap();
    assert!(world.shim.wait().await.unwrap().success());
    assert_eq!(second.end().await, Some(0));
    until("both to be written by the third", async || {
        let written = aliases(&world.shim);
        let has = |tag: &str| written.contains(&format!("{}/team/app:{tag}", registry.host()));
        (has("1") && has("2")).then_some(())
    })
    .await;
    // It knows them without asking for more than one name.
    world.runtime.clear_requests();
    let client = testkit::cri_client::CriClient::new(world.shim.socket());
    assert!(client.status(IMAGE).await.unwrap().is_some());
    assert_eq!(world.runtime.count("ImageStatus"), 1);
    drop(third);
}

fn aliases_header() -> String {
    "# image-cri-shim aliases v1: what names were pulled as; safe to delete\n".to_owned()
}

#[tokio::test]
async fn the_file_is_taken_back_from_one_that_fails() {
    let (registry, config) = registry();
    let mut world = World::under_systemd(&config).await;
    let systemd = world.systemd.take().unwrap();
    let hearing = async {
        let (systemd, pid) = systemd.heard("MAINPID=").await;
        let new = Generation::of(pid.parse().unwrap());
        new.signal(rustix::process::Signal::STOP);
        let (_, _) = systemd.heard("MAINPID=").await;
        new
    };
    let (_, _new) = tokio::join!(world.fail(), hearing);
    pull(&world, IMAGE).await.unwrap();
    until("the alias to be written", async || {
        let wanted = format!("{}/team/app:1", registry.host());
        aliases(&world.shim).contains(&wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_new_one_follows_the_config_and_the_old_one_no_longer() {
    let world = World::start("reloadInterval: 1h").await;
    world.runtime.hang("PullImage");
    // Keeps the old one alive.
    let late = pull(&world, IMAGE);
    arrived(&world, 1).await;
    let _new = world.hand_over().await;
    world.shim.clear_log();
    world
        .shim
        .write_config("reloadInterval: 1h\naddress: http://sealos.hub:5000")
        .unwrap();
    world
        .shim
        .wait_for_log("config: offline_registry address=http://sealos.hub:5000")
        .await;
    world
        .shim
        .wait_for_log("reloaded shim auth configuration from")
        .await;
    world.runtime.answer("PullImage");
    late.await.unwrap();
    world.shim.wait_for_log("stopped").await;
    let reloads = world.shim.log_lines("config: offline_registry");
    assert_eq!(reloads.len(), 1, "{reloads:?}");
}

/// What each pull was asked of the runtime as, in its order.
fn pulled_as(world: &World) -> Vec<String> {
    let pulls = world.runtime.requests().into_iter();
    pulls
        .filter(|request| request.path.ends_with("/PullImage"))
        .map(|request| String::from_utf8_lossy(&request.message).into_owned())
        .collect()
}

/// A helper that takes its time, as those of clouds do. Without its answer the registry says 401, and the pull would go to
/// the image's origin.
#[tokio::test]
async fn pulls_right_after_a_start_and_a_hand_over_have_credentials_that_come_late() {
    let (registry, _) = registry();
    registry.require_basic("robot", "secret");
    let dir = tempfile::tempdir().unwrap();
    let helper = dir.path().join("docker-credential-slow");
    let answer = r#"{"ServerURL":"x","Username":"robot","Secret":"secret"}"#;
    fs::write(&helper, format!("#!/bin/sh\nsleep 1\necho '{answer}'\n")).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let auth_file = dir.path().join("config.json");
    let helpers = format!(r#"{{"credHelpers": {{"{}": "slow"}}}}"#, registry.host());
    fs::write(&auth_file, helpers).unwrap();
    let config = format!(
        "registries: [{{address: '{}', authFile: {}}}]",
        registry.url(),
        auth_file.display()
    );
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", dir.path().display());
    let world = World::with(&config, |options| options.env("PATH", &path), None).await;
    // Nothing else waits.
    world.shim.client().version().await.unwrap();
    pull(&world, IMAGE).await.unwrap();
    let _new = world.hand_over().await;
    pull(&world, "ghcr.io/team/app:2").await.unwrap();
    let pulled = pulled_as(&world);
    assert_eq!(pulled.len(), 2, "{pulled:?}");
    let from_registry = |pull: &String| pull.contains(&registry.host());
    assert!(
        pulled.iter().all(from_registry),
        "{pulled:?}\n{}",
        world.shim.log()
    );
}

#[tokio::test]
async fn a_socket_that_the_config_renames_stays_until_a_restart() {
    let world = World::start("").await;
    let other = world.shim.dir().join("other.sock");
    let config = fs::read_to_string(world.shim.config_file()).unwrap();
    let mut lines: Vec<_> = config.lines().filter(|l| !l.starts_with("shim:")).collect();
    let renamed = format!("shim: {}", other.display());
    lines.push(&renamed);
    fs::write(world.shim.config_file(), lines.join("\n")).unwrap();
    // The command is told where the running one is.
    let output = tokio::process::Command::new(BINARY)
        .arg("-f")
        .arg(world.shim.config_file())
        .args(["handover", "--socket"])
        .arg(world.shim.socket())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let output = String::from_utf8(output.stdout).unwrap();
    let pid = output.split("as process ").nth(1).unwrap();
    let pid = pid.split(';').next().unwrap().parse().unwrap();
    let _new = Generation::of(pid);
    world.shim.wait_for_log("until the next restart").await;
    cri::runtime_version(&world.client()).await.unwrap();
    assert!(!other.exists());
}

/// As `doctor` and `ss` see it.
#[tokio::test]
async fn the_socket_is_the_new_one_s_while_the_old_one_still_has_calls() {
    let world = World::start("").await;
    world.runtime.hang("PullImage");
    let late = pull(&world, IMAGE);
    arrived(&world, 1).await;
    let new = world.hand_over().await;
    until("the kernel to name the new one", async || {
        let stream = tokio::net::UnixStream::connect(world.shim.socket());
        let owner = stream.await.unwrap().peer_cred().unwrap().pid();
        (owner == Some(new.pid.as_raw_nonzero().get())).then_some(())
    })
    .await;
    world.runtime.answer("PullImage");
    late.await.unwrap();
}

#[tokio::test]
async fn systemd_s_own_word_about_the_main_process_counts() {
    let world = World::start("").await;
    let output = tokio::process::Command::new(BINARY)
        .arg("-f")
        .arg(world.shim.config_file())
        .arg("handover")
        // Some other process.
        .env("MAINPID", std::process::id().to_string())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("does not belong to that service"), "{said}");
}
