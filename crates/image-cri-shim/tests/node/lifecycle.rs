//! Signals, reloads, and a runtime that comes and goes.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use testkit::cri_client::CriClient;
use testkit::fake_runtime::FakeRuntime;
use testkit::images::Image;
use testkit::shim::{Options, Shim};
use testkit::wait;

use crate::world::{BINARY, World, probes, registry_with, with_fake_runtime};

#[tokio::test]
async fn sigterm_lets_calls_in_flight_finish_and_removes_the_socket() {
    let (mut shim, runtime) = with_fake_runtime("").await;
    runtime.set_delay("PullImage", Duration::from_millis(500));
    let client = shim.client();
    let pull = tokio::spawn(async move { client.pull("ghcr.io/team/app:1", None).await });
    wait::until("the pull has reached the runtime", async || {
        let requests = runtime.requests();
        let pulls = requests.iter().any(|r| r.path.ends_with("/PullImage"));
        pulls.then_some(())
    })
    .await;
    let status = shim.terminate().await.unwrap();
    assert!(status.success());
    let pulled = pull.await.unwrap();
    assert!(pulled.is_ok(), "{pulled:?}\n{}", shim.log());
    assert!(!shim.socket().exists());
}

#[tokio::test]
async fn sigterm_says_what_is_waited_for_and_serves_meanwhile() {
    let (mut shim, runtime) = with_fake_runtime("").await;
    runtime.hang("PullImage");
    let client = shim.client();
    let pulling = client.clone();
    let pull = tokio::spawn(async move { pulling.pull("ghcr.io/team/app:1", None).await });
    wait::until("the pull has reached the runtime", async || {
        (runtime.count("PullImage") == 1).then_some(())
    })
    .await;
    let events = client.clone();
    let events = tokio::spawn(async move {
        let path = events.path("RuntimeService", "GetContainerEvents");
        events
            .unary(&path, Default::default(), Default::default())
            .await
    });
    wait::until("the events are watched", async || {
        (runtime.count("GetContainerEvents") == 1).then_some(())
    })
    .await;
    shim.signal(Signal::TERM).unwrap();
    let line = shim.wait_for_log("stopping:").await;
    assert!(
        line.contains("waiting up to 20s for calls in flight: PullImage 1"),
        "{line}"
    );
    let ended = events.await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Some(14), "{ended:?}");
    client.version().await.unwrap();
    CriClient::new(shim.socket()).version().await.unwrap();
    runtime.answer("PullImage");
    pull.await.unwrap().unwrap();
    assert!(shim.wait().await.unwrap().success());
    assert!(!shim.socket().exists());
    assert_eq!(shim.log_lines("cutting them off"), Vec::<String>::new());
}

#[tokio::test]
async fn sighup_takes_a_new_config_and_a_bad_one_changes_nothing() {
    let image = Image::new("reloaded");
    let registry = registry_with(&image, "team/app", "1").await;
    let mut world = World::start("reloadInterval: 1h", &[&registry]).await;
    let good = format!("address: {}\nreloadInterval: 1h", registry.url());
    world.shim.write_config(&good).unwrap();
    world.shim.signal(Signal::HUP).unwrap();
    world
        .shim
        .wait_for_log("reloaded shim auth configuration from")
        .await;
    assert_eq!(world.pull("ghcr.io/team/app:1").await, image.id());
    world.shim.write_config("address: [").unwrap();
    world.shim.signal(Signal::HUP).unwrap();
    world
        .shim
        .wait_for_log("keeping the last good config")
        .await;
    registry.recording().clear();
    world.pull("quay.io/team/app:1").await;
    assert_eq!(probes(&registry), 1);
}

#[tokio::test]
async fn the_file_is_read_again_every_reload_interval() {
    let (shim, _runtime) = with_fake_runtime("reloadInterval: 1s").await;
    shim.write_config("reloadInterval: 30s\naddress: http://sealos.hub:5000")
        .unwrap();
    shim.wait_for_log("updated reload interval to 30s").await;
    shim.wait_for_log("config: offline_registry address=http://sealos.hub:5000")
        .await;
}

#[tokio::test]
async fn sigusr1_switches_debug_lines() {
    let (mut shim, _runtime) = with_fake_runtime("").await;
    shim.signal(Signal::USR1).unwrap();
    shim.wait_for_log("debug lines are on").await;
    shim.client().version().await.unwrap();
}

#[tokio::test]
async fn counters_are_logged_periodically() {
    let (shim, _runtime) = with_fake_runtime("cache: {statsLogInterval: 1s}").await;
    let line = shim.wait_for_log("cache stats:").await;
    for field in [
        "image_hits=0",
        "image_misses=0",
        "domain_hits=0",
        "domain_misses=0",
        "image_evictions=0",
        "domain_evictions=0",
        "invalidations=0",
        "generated_at=20",
    ] {
        assert!(line.contains(field), "{field} in {line}");
    }
}

#[tokio::test]
async fn containerd_may_restart() {
    let image = Image::new("after the restart");
    let registry = registry_with(&image, "team/app", "1").await;
    let mut world = World::start(&format!("address: {}", registry.url()), &[&registry]).await;
    world.containerd.stop().await.unwrap();
    let error = world.client().version().await.unwrap_err();
    assert_eq!(error.code(), Some(14), "{error:?}");
    world.containerd.start_again().await.unwrap();
    assert_eq!(world.pull("ghcr.io/team/app:1").await, image.id());
}

/// Sends to a socket that nobody reads, until not even a new sender can.
fn fill(path: &Path) {
    let mut sent = true;
    while std::mem::take(&mut sent) {
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        while sender.send_to(b"STATUS=full", path).is_ok() {
            sent = true;
        }
    }
}

/// A PID 1 that hangs must not take the node's CRI with it.
#[tokio::test]
async fn a_systemd_that_reads_nothing_costs_no_call() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    fill(&path);
    let runtime = FakeRuntime::start().await.unwrap();
    let options = Options::new(BINARY, runtime.socket())
        .env("NOTIFY_SOCKET", path.to_str().unwrap())
        // A sign of life every 10 ms.
        .env("WATCHDOG_USEC", "40000");
    let mut shim = Shim::start("", options).await.unwrap();
    // Each sign of life is a call of the shim's own: there are more of them than may wait.
    wait::until("the shim has called itself often", async || {
        let calls = runtime.requests();
        let own = calls.iter().filter(|call| call.path.ends_with("/Version"));
        (own.count() > 30).then_some(())
    })
    .await;
    shim.client().version().await.unwrap();
    // What is said once is not lost: it reads again.
    let heard = tokio::task::spawn_blocking(move || {
        systemd
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut news = [0; 64];
        loop {
            let length = systemd.recv(&mut news).unwrap();
            if news[..length].starts_with(b"READY=1") {
                break;
            }
        }
    });
    heard.await.unwrap();
    assert!(shim.terminate().await.unwrap().success());
}
