//! `systemctl reload`: a newer program takes over, and systemd looks after it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cri::upstream::Upstream;
use testkit::cri_client::CriClient;
use testkit::fake_registry::FakeRegistry;
use testkit::images::Image;
use testkit::wait;

use super::node::{LINK, Node};

const UNIT: &str = "image-cri-shim.service";
const SHIM: &str = "image-cri-shim/shim.sock";
const GOOD: &str = env!("CARGO_BIN_EXE_image-cri-shim");
/// Clients that call all the while.
const CLIENTS: usize = 32;
const RELOADS: usize = 10;

/// `systemctl reload`; gives the main process then.
fn reload(node: &Node) -> String {
    if let Err(error) = node.machine.run(&["systemctl", "reload", UNIT]) {
        panic!("{error}\n{}", node.machine.journal(UNIT));
    }
    node.main_pid()
}

/// A reload that fails: what serves is what has served, and the journal says why.
fn reload_fails(node: &Node, why: &str) {
    let before = node.main_pid();
    let reloaded = node.machine.output(&["systemctl", "reload", UNIT]).unwrap();
    assert!(!reloaded.status.success());
    let journal = node.machine.journal(UNIT);
    assert!(journal.contains(why), "{why}: {journal}");
    assert_eq!(node.main_pid(), before, "{journal}");
    assert_eq!(
        node.machine.property(UNIT, "ActiveState").unwrap(),
        "active"
    );
    assert_eq!(node.machine.property(UNIT, "NRestarts").unwrap(), "0");
    assert_eq!(node.link(), SHIM);
}

/// Puts a script in the shim's place, in one step.
fn replace_by_script(node: &Node, text: &str) {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    fs::write(&script, format!("#!/bin/sh\n{text}\n")).unwrap();
    node.replace_binary(&script);
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_under_load_lose_no_call() {
    let node = Node::boot("").await;
    let image = Image::new("a long pull");
    let registry = FakeRegistry::start().unwrap();
    registry.add(&image, "team/app", "1");
    node.containerd.allow_http(&registry.host()).unwrap();
    registry.set_delay(Duration::from_secs(1));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (socket, stop) = (node.machine.path(LINK), Arc::clone(&stop));
            let pulled = format!("{}/team/app:1", registry.host());
            tokio::spawn(async move {
                let mut shim = Upstream::new(&socket);
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let called = match number {
                        // A pull takes longer than a reload.
                        0..4 => match cri::pull_image(&shim, &pulled).await {
                            Ok(status) if status.is_ok() => Ok(()),
                            Ok(status) => Err(status.message),
                            Err(error) => Err(error.to_string()),
                        },
                        _ => {
                            if number % 2 == 0 {
                                shim = Upstream::new(&socket);
                            }
                            let called = cri::runtime_version(&shim).await;
                            called.map(|_| ()).map_err(|error| error.to_string())
                        }
                    };
                    failures.extend(called.err());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                failures
            })
        })
        .collect();
    let mut main = node.main_pid();
    node.replace_binary(Path::new(GOOD));
    for _ in 0..RELOADS {
        let new = reload(&node);
        assert_ne!(new, main);
        main = new;
        assert_eq!(node.link(), SHIM);
        // systemd hears how it ends: it is its parent.
        let status = node.machine.path(&format!("/proc/{main}/status"));
        let status = fs::read_to_string(status).unwrap();
        assert!(status.contains("PPid:\t1\n"), "{status}");
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let failures = client.await.unwrap();
        assert!(
            failures.is_empty(),
            "{failures:?}\n{}",
            node.machine.journal(UNIT)
        );
    }
    assert_eq!(node.machine.property(UNIT, "NRestarts").unwrap(), "0");
    // The old ones go when their calls have ended.
    wait::until("one process to be left", || async {
        let processes = node.machine.property(UNIT, "ControlGroup").unwrap();
        let processes = node
            .machine
            .path(&format!("/sys/fs/cgroup{processes}/cgroup.procs"));
        let processes = fs::read_to_string(processes).unwrap();
        (processes.lines().count() == 1).then_some(())
    })
    .await;

    // The watchdog kills the new one as it would have killed the first.
    node.systemctl(&["kill", "--signal=STOP", UNIT]);
    node.until_another_serves(&main).await;
    // And a restart is one.
    node.systemctl(&["restart", UNIT]);
    node.until_link(SHIM).await;
    let client = CriClient::new(node.machine.path(LINK));
    client.version().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_and_configs_that_are_broken_at_reload() {
    let node = Node::boot("").await;
    let calls = node.call_on();
    // Where the command itself is broken, and where only the new daemon is.
    replace_by_script(&node, "exit 1");
    reload_fails(&node, "status=1");
    let good = node.machine.path("/usr/bin/good");
    fs::copy(GOOD, &good).unwrap();
    fs::set_permissions(&good, fs::Permissions::from_mode(0o755)).unwrap();
    for (serve, why) in [
        ("exec /bin/false", "has ended (exit status: 1)"),
        ("exec sleep 3600", "was not ready within"),
        ("kill -STOP $$", "was not ready within"),
    ] {
        replace_by_script(
            &node,
            &format!("[ \"$1\" = serve ] || exec /usr/bin/good \"$@\"\n{serve}"),
        );
        reload_fails(&node, why);
    }
    node.replace_binary(Path::new(GOOD));
    let config = node.machine.path("/etc/image-cri-shim.yaml");
    let before = fs::read_to_string(&config).unwrap();
    fs::write(&config, "timeout: soon\n").unwrap();
    reload_fails(&node, "timeout: not a duration");
    fs::write(&config, before).unwrap();
    // A command that hangs is ended by systemd.
    replace_by_script(&node, "exec sleep 3600");
    reload_fails(&node, "timed out");
    let seen = calls.end().await;
    assert_eq!(seen.refused, 0, "{seen:?}");
    node.replace_binary(Path::new(GOOD));
    let before = node.main_pid();
    assert_ne!(reload(&node), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_one_is_killed_right_after_the_reload() {
    let node = Node::boot("").await;
    let registry = FakeRegistry::start().unwrap();
    registry.set_black_hole(true);
    node.containerd.allow_http(&registry.host()).unwrap();
    // Keeps the old one alive.
    let shim = Upstream::new(node.machine.path(LINK));
    let pulled = format!("{}/team/app:1", registry.host());
    let pull = tokio::spawn(async move { cri::pull_image(&shim, &pulled).await });
    wait::until("the pull to arrive", || async {
        let status = node.machine.run(&["image-cri-shim", "status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status.ok()?).ok()?;
        let running = status["running"].as_array()?;
        (!running.is_empty()).then_some(())
    })
    .await;
    let old = node.main_pid();
    let new = reload(&node);
    let kill = format!("kill -KILL {old}");
    node.machine.run(&["sh", "-c", &kill]).unwrap();
    pull.await.unwrap().unwrap_err();
    let calls = node.call_on();
    wait::until("the old one to be gone", || async {
        let old = node.machine.path(&format!("/proc/{old}"));
        (!old.exists()).then_some(())
    })
    .await;
    let seen = calls.end().await;
    assert_eq!(seen.refused, 0, "{seen:?}");
    assert_eq!(node.main_pid(), new);
    assert_eq!(node.machine.property(UNIT, "NRestarts").unwrap(), "0");
    assert_eq!(node.link(), SHIM);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_changed_needs_a_restart() {
    let node = Node::boot("").await;
    let needed = || {
        let status = ["image-cri-shim", "status", "--json"];
        let status = node.machine.run(&status).unwrap();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["restart_needed"].clone()
    };
    assert!(needed().is_null());
    let drop_in = "/etc/systemd/system/image-cri-shim.service.d/more.conf";
    let file = node.machine.path(drop_in);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "[Service]\nEnvironment=MORE=1\n").unwrap();
    node.systemctl(&["daemon-reload"]);
    assert_eq!(needed(), serde_json::json!([drop_in]));
    // A hand-over keeps the environment, and remembers what it was.
    reload(&node);
    assert_eq!(needed(), serde_json::json!([drop_in]));
    let shown = node.machine.run(&["image-cri-shim", "status"]).unwrap();
    assert!(
        shown.contains("systemctl restart image-cri-shim"),
        "{shown}"
    );
    node.systemctl(&["restart", UNIT]);
    node.until_link(SHIM).await;
    assert!(needed().is_null());
}
