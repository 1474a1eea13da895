//! Without a cluster, or with one that doesn't answer, the shim serves all the same.

use testkit::fake_api_server::{ApiFault, FakeApiServer};
use testkit::fake_runtime::FakeRuntime;
use testkit::shim::{Options, Shim};
use testkit::wait;

use crate::world::{BINARY, World};

#[tokio::test]
async fn no_kubeconfig_is_said_once_at_debug() {
    let runtime = FakeRuntime::start().await.unwrap();
    let options = Options::new(BINARY, runtime.socket()).env("HOME", "/nonexistent");
    let shim = Shim::start("debug: true\nreloadInterval: 1s", options)
        .await
        .unwrap();
    let line = "skip syncing image-cri-shim config; unable to create kube client";
    let said = shim.wait_for_log(line).await;
    assert!(said.contains("DEBUG"), "{said}");
    // Many rounds later, still once.
    shim.write_config("debug: true\nreloadInterval: 2s")
        .unwrap();
    shim.wait_for_log("updated reload interval to 2s").await;
    assert_eq!(shim.log_lines("unable to create kube client").len(), 1);
}

#[tokio::test]
async fn no_configmap_is_said_once_at_debug() {
    let server = FakeApiServer::start().unwrap();
    // While a watch stands, nobody asks.
    server.set_fault(Some(ApiFault::NoWatch));
    let world = World::start_with("reloadInterval: 1s", server).await;
    let line = "configmap kube-system/image-cri-shim not found; skip syncing";
    let said = world.shim.wait_for_log(line).await;
    assert!(said.contains("DEBUG"), "{said}");
    wait::until("three questions", || async {
        (world.server.requests().len() >= 4).then_some(())
    })
    .await;
    assert_eq!(world.shim.log_lines(line).len(), 1);
}

#[tokio::test]
async fn a_server_that_fails_is_warned_about_once_and_costs_nothing() {
    let cases = [
        (ApiFault::Status(403), "403"),
        (ApiFault::Status(429), "429"),
        (ApiFault::Status(500), "500"),
        (ApiFault::HangUp, "cannot read configmap"),
    ];
    let all = cases.map(|(fault, says)| warned_about_once(fault, says));
    futures_util::future::join_all(all).await;
}

async fn warned_about_once(fault: ApiFault, says: &str) {
    let server = FakeApiServer::start().unwrap();
    server.set_fault(Some(fault));
    server.apply_config_map("timeout: 5m");
    let world = World::start_with("reloadInterval: 1s", server).await;
    let said = world
        .shim
        .wait_for_log("cannot read configmap kube-system/image-cri-shim")
        .await;
    assert!(said.contains("WARN") && said.contains(says), "{said}");
    wait::until("three questions", || async {
        (world.server.requests().len() >= 3).then_some(())
    })
    .await;
    world.shim.client().version().await.unwrap();
    assert_eq!(world.shim.log_lines("cannot read configmap").len(), 1);
    world.server.set_fault(None);
    world.file_has("timeout: 5m0s").await;
    world.shim.wait_for_log("can be read again").await;
    world.no_secret_in_the_log();
}

#[tokio::test]
async fn a_server_that_never_answers_delays_nothing() {
    let server = FakeApiServer::start().unwrap();
    server.set_fault(Some(ApiFault::Silence));
    let world = World::start_with("", server).await;
    world.shim.client().version().await.unwrap();
    world.write("timeout: 3m");
    world
        .shim
        .wait_for_log("reloaded shim auth configuration")
        .await;
}

#[tokio::test]
async fn a_certificate_that_is_not_the_servers_is_said() {
    let world = World::start_with("", FakeApiServer::start_as_wrong_host().unwrap()).await;
    let said = world.shim.wait_for_log("cannot read configmap").await;
    assert!(said.contains("certificate authority"), "{said}");
    world.shim.client().version().await.unwrap();
}
