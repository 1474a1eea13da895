//! What happens before the first call: arguments, config, sockets.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use testkit::fake_runtime::FakeRuntime;
use testkit::shim::{Options, Shim};

use crate::world::{BINARY, metrics, with_fake_runtime};

#[tokio::test]
async fn the_version() {
    let output = Command::new(BINARY).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text,
        format!("image-cri-shim {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[tokio::test]
async fn a_config_with_mistakes_lists_them_all_and_opens_nothing() {
    let runtime = FakeRuntime::start().await.unwrap();
    let options = Options::new(BINARY, runtime.socket());
    let config = "auth: admin:hunter2\naddress: 'http://'\ntimeout: soon\n";
    let mut shim = Shim::prepare(config, options).unwrap();
    shim.spawn().unwrap();
    assert_eq!(shim.wait().await.unwrap().code(), Some(1));
    shim.wait_for_log("timeout:").await;
    let log = shim.log();
    assert!(
        log.contains("image-cri-shim.yaml:2:10: error: address: the address is empty"),
        "{log}"
    );
    assert!(
        log.contains("image-cri-shim.yaml:3:10: error: timeout: not a duration"),
        "{log}"
    );
    assert!(!log.contains("hunter2"), "{log}");
    assert!(!shim.socket().exists());
}

#[tokio::test]
async fn a_missing_runtime_is_an_error_unless_forced() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(BINARY, dir.path().join("runtime.sock"));
    let mut shim = Shim::prepare("", options.clone()).unwrap();
    shim.spawn().unwrap();
    assert_eq!(shim.wait().await.unwrap().code(), Some(1));
    shim.wait_for_log("force: true").await;
    let mut shim = Shim::start("force: true", options).await.unwrap();
    let error = shim.client().version().await.unwrap_err();
    assert_eq!(error.code(), Some(14), "{error:?}");
    assert!(error.message().contains("is it running?"), "{error:?}");
    assert!(shim.terminate().await.unwrap().success());
}

#[tokio::test]
async fn the_socket_has_the_owner_and_mode_of_the_runtimes() {
    let runtime = FakeRuntime::start().await.unwrap();
    std::fs::set_permissions(runtime.socket(), std::fs::Permissions::from_mode(0o620)).unwrap();
    std::os::unix::fs::chown(runtime.socket(), Some(12), Some(34)).unwrap();
    let shim = Shim::start("", Options::new(BINARY, runtime.socket()))
        .await
        .unwrap();
    let metadata = shim.socket().metadata().unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o620);
    assert_eq!((metadata.uid(), metadata.gid()), (12, 34));
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_an_error() {
    let (mut shim, runtime) = with_fake_runtime("").await;
    shim.kill().unwrap();
    assert!(shim.socket().exists(), "a killed process leaves its socket");
    shim.start_again().await.unwrap();
    let second = Shim::prepare(
        &format!("shim: {}", shim.socket().display()),
        Options::new(BINARY, runtime.socket()),
    );
    let mut second = second.unwrap();
    second.spawn().unwrap();
    assert_eq!(second.wait().await.unwrap().code(), Some(1));
    second
        .wait_for_log(&shim.socket().display().to_string())
        .await;
    shim.client().version().await.unwrap();
    assert!(shim.terminate().await.unwrap().success());
    assert!(!shim.socket().exists());
}

#[tokio::test]
async fn a_dry_run_says_what_it_found() {
    let runtime = FakeRuntime::start().await.unwrap();
    let options = Options::new(BINARY, runtime.socket()).arg("--dry-run");
    let config = "address: http://u:hunter2@sealos.hub:5000\nregistrys: []\n";
    let mut shim = Shim::prepare(config, options).unwrap();
    shim.spawn().unwrap();
    assert!(shim.wait().await.unwrap().success(), "{}", shim.log());
    shim.wait_for_log("answers").await;
    let log = shim.log();
    assert!(log.contains("did you mean `registries`?"), "{log}");
    assert!(
        log.contains("registry  http://sealos.hub:5000: priority 1000 (default), offline registry, configured for every host, with credentials"),
        "{log}"
    );
    assert!(!log.contains("hunter2"), "{log}");
    assert!(!shim.socket().exists());
}

#[tokio::test]
async fn a_dry_run_fails_where_serving_would() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(BINARY, dir.path().join("none.sock")).arg("--dry-run");
    let mut shim = Shim::prepare("address: a.io", options).unwrap();
    shim.spawn().unwrap();
    assert_eq!(shim.wait().await.unwrap().code(), Some(1));
    shim.wait_for_log("there is no socket").await;
}

#[tokio::test]
async fn a_folder_that_nobody_has_made_is_told() {
    let runtime = FakeRuntime::start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yaml");
    let text = format!(
        "shim: {0}/nodir/shim.sock\ncri: {1}\nimage: {0}/state\nregistries: []\n",
        dir.path().display(),
        runtime.socket().display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = tokio::process::Command::new(BINARY);
    let command = command
        .args(["serve", "--dry-run", "-f"])
        .arg(&config)
        .env_clear();
    let output = command.kill_on_drop(true).output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("nodir; if that is not where"), "{said}");
    assert!(!dir.path().join("nodir").exists());
}

#[tokio::test]
async fn the_log_can_be_json() {
    let runtime = FakeRuntime::start().await.unwrap();
    let options = Options::new(BINARY, runtime.socket())
        .arg("--log-format")
        .arg("json");
    let shim = Shim::start("address: http://sealos.hub:5000", options)
        .await
        .unwrap();
    let line = shim.wait_for_log("config: offline_registry").await;
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        value["fields"]["message"],
        "config: offline_registry address=http://sealos.hub:5000 domain=sealos.hub priority=1000 (default)"
    );
}

#[tokio::test]
async fn a_metrics_address_that_is_taken_is_a_warning() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (shim, _runtime) = with_fake_runtime(&format!("metricsAddress: {address}")).await;
    let line = shim.wait_for_log("cannot listen on metricsAddress").await;
    assert!(line.contains(&address.to_string()), "{line}");
    shim.client().pull("ghcr.io/x:1", None).await.unwrap();
}

#[tokio::test]
async fn a_metrics_address_can_be_off() {
    let (shim, _runtime) = with_fake_runtime("metricsAddress: off").await;
    shim.client().pull("ghcr.io/x:1", None).await.unwrap();
    shim.wait_for_log("rewrite action=PullImage").await;
    assert!(!shim.log().contains("metrics"), "{}", shim.log());
    let status = shim.status().await.unwrap();
    assert_eq!(status["decisions_total"], 1);
    assert_eq!(status.get("metrics_address"), None);
}

#[tokio::test]
async fn under_systemd_the_runtime_may_come_later() {
    let runtime = FakeRuntime::start().await.unwrap();
    runtime.stop();
    let options = Options::new(BINARY, runtime.socket()).env("INVOCATION_ID", "0123");
    let shim = Shim::start("force: false", options).await.unwrap();
    shim.wait_for_log("is not there yet; serving all the same")
        .await;
    let error = shim.client().version().await.unwrap_err();
    assert_eq!(error.code(), Some(14), "{error:?}");
    runtime.start_again().unwrap();
    shim.client().version().await.unwrap();
}

#[tokio::test]
async fn as_many_files_may_be_open_as_the_kernel_allows() {
    let runtime = FakeRuntime::start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let few = dir.path().join("few.sh");
    std::fs::write(
        &few,
        format!("#!/bin/sh\nulimit -Sn 100\nexec {BINARY} \"$@\"\n"),
    )
    .unwrap();
    std::fs::set_permissions(&few, std::fs::Permissions::from_mode(0o755)).unwrap();
    let shim = Shim::start("", Options::new(&few, runtime.socket()))
        .await
        .unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", shim.pid().unwrap())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let fields: Vec<_> = line.split_whitespace().collect();
    assert_eq!(fields[3], fields[4], "{line}");
}

#[tokio::test]
async fn metrics_move_with_the_config() {
    let (shim, _runtime) = with_fake_runtime("metricsAddress: off").await;
    shim.write_config("metricsAddress: 127.0.0.1:0").unwrap();
    let line = shim.wait_for_log("metrics and the page are on").await;
    let address = line.split("http://").nth(1).unwrap();
    assert!(
        metrics(address.trim_end_matches('/'))
            .await
            .contains(" 200 ")
    );
}
