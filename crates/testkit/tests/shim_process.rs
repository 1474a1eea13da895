//! How [`testkit::shim`] handles its process, shown with a script in the place of the binary: it
//! "serves" by linking the runtime's socket.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use testkit::containerd::Containerd;
use testkit::shim::{Options, Shim};

const STAND_IN: &str = r#"#!/bin/sh
value() { sed -n "s/^$1: //p" "$2"; }
[ "$1" = -f ] || exit 3
echo "arguments: $3; greeting: $GREETING; proxy: $HTTPS_PROXY"
[ "$3" = --fail ] && { echo "config: no such thing" >&2; exit 4; }
socket="$(value shim "$2")"
trap 'echo "terminating"; rm "$socket"; exit 0' TERM
trap 'echo "hung up" >&2' HUP
ln -sf "$(value cri "$2")" "$socket"
while :; do sleep 0.01; done
"#;

fn stand_in(folder: &Path) -> PathBuf {
    let path = folder.join("stand-in");
    // Written under another name and renamed: another test's fork may hold a file open for writing,
    // and a program can't be started then (ETXTBSY).
    let new = folder.join("new");
    fs::write(&new, STAND_IN).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, &path).unwrap();
    path
}

#[tokio::test]
async fn a_shim_is_started_watched_and_ended() {
    let folder = tempfile::tempdir().unwrap();
    let containerd = Containerd::start().await.unwrap();
    let options = Options::new(stand_in(folder.path()), containerd.socket())
        .arg("--debug")
        .env("GREETING", "hello");
    let mut shim = Shim::start("registries: []\n", options).await.unwrap();

    let config = fs::read_to_string(shim.config_file()).unwrap();
    let dir = shim.dir().display().to_string();
    for line in [
        "registries: []".to_owned(),
        format!("shim: {dir}/shim.sock"),
        format!("cri: {}", containerd.socket().display()),
        format!("image: {dir}/state"),
        "metricsAddress: 127.0.0.1:0".to_owned(),
    ] {
        assert!(config.lines().any(|other| other == line), "{config}");
    }
    let mode = fs::metadata(shim.config_file())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let line = shim.wait_for_log("greeting").await;
    assert_eq!(line, "arguments: --debug; greeting: hello; proxy: ");
    assert_eq!(
        shim.client().version().await.unwrap().runtime_name,
        "containerd"
    );
    assert!(shim.is_running());
    assert!(shim.open_fds().unwrap() >= 3);
    assert!(shim.rss_kib().unwrap() > 100);
    shim.cpu_time().unwrap();

    shim.signal(rustix::process::Signal::HUP).unwrap();
    shim.wait_for_log("hung up").await;
    let pid = shim.pid().unwrap();
    shim.restart().await.unwrap();
    assert_ne!(shim.pid().unwrap(), pid);
    assert_eq!(shim.log_lines("terminating").len(), 1);

    shim.write_config("shim: elsewhere\n").unwrap();
    let config = fs::read_to_string(shim.config_file()).unwrap();
    assert_eq!(config.matches("shim:").count(), 1, "{config}");

    assert!(shim.terminate().await.unwrap().success());
    assert!(!shim.is_running());
    shim.spawn().unwrap();
    shim.kill().unwrap();
}

#[tokio::test]
async fn a_shim_that_ends_at_once_is_reported_with_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(stand_in(folder.path()), "/nowhere").arg("--fail");
    let error = Shim::start("", options).await.err().unwrap().to_string();
    assert!(error.contains("exit status: 4"), "{error}");
    assert!(error.contains("config: no such thing"), "{error}");
}
