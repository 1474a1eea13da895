//! What commands say to who is not root, and where there is no config file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use tokio::net::UnixListener;
use tokio::process::Command;

use crate::world::{BINARY, NO_WORLD, run};

/// Nobody, as most systems number him.
const NOBODY: u32 = 65534;

fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_socket_that_only_root_may_open_is_not_a_shim_that_does_not_run() {
    let dir = tempfile::tempdir().unwrap();
    open_to_all(dir.path());
    // Where the program was built, nobody else may look perhaps.
    let program = dir.path().join("image-cri-shim");
    // By another process: a child of another test would have our copy open for writing, and it could not be run.
    let copied = Command::new("cp").arg(BINARY).arg(&program).status().await;
    assert!(copied.unwrap().success());
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let socket = closed.join("shim.sock");
    let _listens = UnixListener::bind(&socket).unwrap();
    let config = dir.path().join("config.yaml");
    let text = format!("shim: {}\nregistries: []\n", socket.display());
    fs::write(&config, text).unwrap();
    open_to_all(&config);

    let told = async |args: &[&str]| {
        let output = Command::new(&program)
            .env_clear()
            .envs([
                NO_WORLD,
                ("KUBECONFIG", "/nonexistent"),
                ("COLUMNS", "1000"),
            ])
            .args(args)
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let (out, err) = (output.stdout, output.stderr);
        let text = [out, err].map(|text| String::from_utf8(text).unwrap());
        (output.status.code().unwrap(), text.concat())
    };
    let file = config.to_str().unwrap();
    let words = format!("may not open {}; run this as root", socket.display());
    for (args, expected) in [
        (vec!["status", "-f", file], 1),
        (vec!["history", "-f", file], 1),
        (vec!["handover", "-f", file], 1),
        (
            vec!["resolve", "--file", file, "--pull", "127.0.0.1:9/x:1"],
            2,
        ),
        (
            vec!["resolve", "--file", file, "--offline", "127.0.0.1:9/x:1"],
            0,
        ),
        (
            vec![
                "cache",
                "ls",
                "--file",
                file,
                "--socket",
                socket.to_str().unwrap(),
            ],
            2,
        ),
    ] {
        let (code, text) = told(&args).await;
        assert_eq!(code, expected, "{args:?}: {text}");
        assert!(text.contains(&words), "{args:?}: {text}");
        assert!(!text.contains("no image-cri-shim runs"), "{args:?}: {text}");
    }
    let (_, page) = told(&["doctor", "-f", file, "--json"]).await;
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    let lines = page["lines"].as_array().unwrap();
    let line = lines.iter().find(|line| line["check"] == "daemon").unwrap();
    assert!(line["text"].as_str().unwrap().contains(&words), "{line}");
    assert_eq!(line["verdict"], "warn", "{line}");
    let mend = format!("sudo image-cri-shim doctor -f {file}");
    assert_eq!(line["mend"], mend.as_str(), "{line}");
}

#[tokio::test]
async fn without_its_file_a_shim_is_looked_for_where_it_listens_by_default() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["status", "history"] {
        let output = run(&dir.path().join("gone.yaml"), &[command]).await;
        let told = output.text();
        assert!(
            told.contains("gone.yaml; asking the shim at /var/run/image-cri-shim.sock"),
            "{told}"
        );
        // None runs on the machine that tests.
        assert_eq!(output.code, 1, "{told}");
        assert!(told.contains("no image-cri-shim runs at"), "{told}");
    }
}

#[tokio::test]
async fn a_tree_that_is_not_there_is_not_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("gone");
    let args = ["doctor", "--root", tree.to_str().unwrap()];
    let output = run(&dir.path().join("config.yaml"), &args).await;
    let told = output.text();
    assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{told}");
    assert!(told.contains("no such directory"), "{told}");
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_a_closed_pipe_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yaml");
    let text = format!(
        "shim: {0}/shim.sock\ncri: {0}/cri.sock\nforce: true\nregistries: []\nregistrys: []\n",
        dir.path().display()
    );
    fs::write(&config, text).unwrap();
    let full = dir.path().join("full");
    // What /dev/full is.
    let mut mknod = std::process::Command::new("mknod");
    let made = mknod.arg(&full).args(["c", "1", "7"]).status();
    assert!(made.unwrap().success());
    let file = config.to_str().unwrap();
    for args in [
        vec!["config", "check", "-f", file],
        vec!["config", "show", "--local", "-f", file],
        vec!["--dry-run", "-f", file],
        vec!["cache", "--dry-run", "-f", file],
        vec!["webhook", "--dry-run", "--self-signed", "-f", file],
    ] {
        let command = |out: Stdio| {
            let mut command = Command::new(BINARY);
            command
                .env_clear()
                .envs([NO_WORLD, ("KUBECONFIG", "/nonexistent")]);
            command
                .args(&args)
                .stdin(Stdio::null())
                .stdout(out)
                .stderr(Stdio::piped());
            command
        };
        let out = fs::OpenOptions::new().write(true).open(&full).unwrap();
        let child = command(out.into()).spawn().unwrap();
        let output = child.wait_with_output().await.unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {told}");
        assert!(told.contains("No space left on device"), "{args:?}: {told}");

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = command(writer.into()).spawn().unwrap();
        let output = child.wait_with_output().await.unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {told}");
        assert_eq!(told, "", "{args:?}");
    }
}

#[tokio::test]
async fn a_dry_run_of_the_cache_looks_at_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yaml");
    let gone = dir.path().join("gone.crt");
    let text = format!(
        "registries: []\nnodeCache: {{tls: {{certFile: {0}, keyFile: {0}}}}}\n",
        gone.display()
    );
    fs::write(&config, text).unwrap();
    let output = run(&config, &["cache", "--dry-run"]).await;
    let told = output.text();
    assert_eq!(output.code, 1, "{told}");
    assert!(told.contains("nodeCache.tls: cannot read"), "{told}");
    // A reason is told once.
    assert_eq!(told.matches("gone.crt").count(), 1, "{told}");
    assert!(!told.contains("config: ok"), "{told}");
}
