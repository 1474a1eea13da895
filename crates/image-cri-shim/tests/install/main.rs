//! `install` and `uninstall` of the released binary on trees, as image builders use them.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const KUBELET: &str = "[Service]\nEnvironmentFile=-/etc/default/kubelet\nExecStart=/usr/bin/kubelet $KUBELET_EXTRA_ARGS\n";

fn node() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "etc/systemd/system/kubelet.service", KUBELET);
    write(
        dir.path(),
        "etc/default/kubelet",
        "KUBELET_EXTRA_ARGS=--v=2\n",
    );
    dir
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn shim(command: &str, root: &Path, more: &[&str]) -> Output {
    run(&[&[command, "--root", root.to_str().unwrap()], more].concat())
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_image-cri-shim"))
        .args(arguments)
        .env_clear()
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn snapshot(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    testkit::tree::snapshot(root).unwrap()
}

#[test]
fn a_dry_run_shows_diffs_and_changes_nothing() {
    let node = node();
    let before = snapshot(node.path());
    let output = shim("install", node.path(), &["--dry-run"]);
    let shown = text(&output);
    assert!(output.status.success(), "{shown}");
    assert!(
        shown.contains("found a kubelet under systemd, started by kubelet.service"),
        "{shown}"
    );
    assert!(
        shown.contains(
            "-KUBELET_EXTRA_ARGS=--v=2\n+KUBELET_EXTRA_ARGS=\"--v=2 --image-service-endpoint=unix:///run/image-cri-shim.sock\"\n"
        ),
        "{shown}"
    );
    assert!(
        shown.contains("+IMAGE_CRI_SHIM_RUNTIME=/run/containerd/containerd.sock"),
        "{shown}"
    );
    assert_eq!(snapshot(node.path()), before);
}

#[test]
fn installed_once_installed_twice_and_gone_without_a_trace() {
    let node = node();
    let before = snapshot(node.path());
    let output = shim("install", node.path(), &["--runtime", "other.sock"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("absolute path"), "{}", text(&output));
    assert_eq!(snapshot(node.path()), before);
    let named = ["--runtime", "unix:///run/other.sock"];
    let output = shim("install", node.path(), &named);
    assert!(output.status.success(), "{}", text(&output));
    let installed = snapshot(node.path());
    assert_eq!(
        installed[&node.path().join("usr/local/bin/image-cri-shim")],
        fs::read(env!("CARGO_BIN_EXE_image-cri-shim")).unwrap()
    );
    assert!(
        String::from_utf8_lossy(&installed[&node.path().join("etc/default/image-cri-shim")])
            .contains("IMAGE_CRI_SHIM_RUNTIME=/run/other.sock")
    );
    let again = shim("install", node.path(), &["--runtime", "/run/other.sock"]);
    assert!(
        text(&again).contains("nothing to change"),
        "{}",
        text(&again)
    );
    assert_eq!(snapshot(node.path()), installed);

    let shown = shim("uninstall", node.path(), &["--dry-run"]);
    assert!(
        text(&shown).contains("+KUBELET_EXTRA_ARGS=--v=2\n"),
        "{}",
        text(&shown)
    );
    assert_eq!(snapshot(node.path()), installed);
    let output = shim("uninstall", node.path(), &[]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(snapshot(node.path()), before);
    let output = shim("uninstall", node.path(), &[]);
    assert!(output.status.success() && text(&output).contains("nothing is installed"));
}

#[test]
fn of_two_runtimes_one_is_named_and_leaving_asks_for_neither() {
    let node = node();
    let before = snapshot(node.path());
    for socket in ["run/containerd/containerd.sock", "var/run/crio/crio.sock"] {
        write(node.path(), socket, "");
    }
    let refused = shim("install", node.path(), &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("--runtime"), "{}", text(&refused));
    let named = ["--runtime", "/run/containerd/containerd.sock"];
    let output = shim("install", node.path(), &named);
    assert!(output.status.success(), "{}", text(&output));
    assert!(
        text(&output).contains("the runtime is at /run/containerd/containerd.sock (--runtime)"),
        "{}",
        text(&output)
    );
    let output = shim("uninstall", node.path(), &[]);
    assert!(output.status.success(), "{}", text(&output));
    for folder in ["run", "var/run"] {
        fs::remove_dir_all(node.path().join(folder)).unwrap();
    }
    let _ = fs::remove_dir(node.path().join("var"));
    assert_eq!(snapshot(node.path()), before);
}

#[test]
fn what_an_editor_changed_is_named_and_kubelet_keeps_its_socket() {
    let node = node();
    assert!(shim("install", node.path(), &[]).status.success());
    let edited = node.path().join("etc/default/kubelet");
    let text_now = fs::read_to_string(&edited).unwrap();
    fs::write(&edited, format!("# mine\n{text_now}")).unwrap();
    let output = shim("uninstall", node.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("/etc/default/kubelet still leads kubelet to the shim, by what somebody else has written there; take unix:///run/image-cri-shim.sock out of it by hand"),
        "{}",
        text(&output)
    );
    assert!(node.path().join("usr/local/bin/image-cri-shim").exists());
    fs::write(&edited, "# mine\n").unwrap();
    let output = shim("uninstall", node.path(), &[]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(
        text(&output).contains("left /etc/default/kubelet"),
        "{}",
        text(&output)
    );
    assert_eq!(fs::read_to_string(&edited).unwrap(), "# mine\n");
    assert!(!node.path().join("usr/local/bin/image-cri-shim").exists());
}

#[test]
fn a_tree_without_a_kubelet_and_flags_that_need_a_running_node() {
    let empty = tempfile::tempdir().unwrap();
    let output = shim("install", empty.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("no kubelet was found"),
        "{}",
        text(&output)
    );
    let node = node();
    let output = shim("install", node.path(), &["--restart-kubelet"]);
    assert!(
        text(&output).contains("--root names a tree"),
        "{}",
        text(&output)
    );
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

/// A run that is killed at a random moment is finished by the next, or undone.
#[test]
fn killed_at_any_moment() {
    let node = node();
    let before = snapshot(node.path());
    let whole = {
        assert!(shim("install", node.path(), &[]).status.success());
        let whole = snapshot(node.path());
        assert!(shim("uninstall", node.path(), &[]).status.success());
        whole
    };
    // Few, since a debug build is large; the steps themselves are tested one by one in the crate.
    for round in 0..6 {
        for command in ["install", "uninstall"] {
            let mut child = Command::new(env!("CARGO_BIN_EXE_image-cri-shim"))
                .args([command, "--root", node.path().to_str().unwrap()])
                .env_clear()
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // Whatever it has reached by then: another moment in each round.
            let started = std::time::Instant::now();
            while started.elapsed() < std::time::Duration::from_millis(60 * round) {
                std::thread::yield_now();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            if round % 2 == 0 {
                assert!(shim("install", node.path(), &[]).status.success());
                assert_eq!(snapshot(node.path()).len(), whole.len(), "round {round}");
                assert!(snapshot(node.path()) == whole, "round {round}");
            }
            assert!(shim("uninstall", node.path(), &[]).status.success());
            let after = snapshot(node.path());
            assert_eq!(
                after.keys().collect::<Vec<_>>(),
                before.keys().collect::<Vec<_>>(),
                "round {round}"
            );
            assert!(after == before, "round {round}");
            if command == "install" {
                assert!(shim("install", node.path(), &[]).status.success());
            }
        }
    }
}

#[test]
fn what_uninstall_has_done_to_each_file_is_said() {
    let node = node();
    assert!(shim("install", node.path(), &[]).status.success());
    let said = text(&shim("uninstall", node.path(), &[]));
    assert!(said.contains("put back /etc/default/kubelet\n"), "{said}");
    let program = "removed /usr/local/bin/image-cri-shim\n";
    assert!(said.contains(program), "{said}");
}

#[test]
fn who_may_not_write_is_told_once_why_and_what_to_do() {
    let node = node();
    fs::set_permissions(node.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = node.path().join("program");
    // Another process's copy: one of ours could be open for writing in the child of another test.
    let mut copy = Command::new("cp");
    let copied = copy.arg(env!("CARGO_BIN_EXE_image-cri-shim")).arg(&program);
    assert!(copied.status().unwrap().success());
    let output = Command::new(&program)
        .args(["install", "--root"])
        .arg(node.path())
        .env_clear()
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.trim_end().ends_with("; run this as root"), "{said}");
    assert_eq!(said.matches("Permission denied").count(), 1, "{said}");
}
