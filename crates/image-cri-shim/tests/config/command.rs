//! What `image-cri-shim config` prints, to the letter.

use std::path::Path;
use std::process::Output;

use testkit::fake_api_server::FakeApiServer;
use tokio::process::Command;

use crate::world::{BINARY, SECRET};

const LOCAL: &str = "address: http://u:hunter2@sealos.hub:5000\nauth: admin:hunter2\ntimeout: 0s\n\
    registries:\n- {address: a.io, auth: 'x:hunter2', priority: -5, caFile: /etc/ca.pem}\nregistrys: []\n\
    cache: {imageCacheSize: -1, disableStats: true}\n";

const REMOTE: &str = "offlinePriority: 900\nsealos: {auth: {username: admin, password: hunter2-new}}\n\
    registries: [{address: b.io, priority: 700, auth: 'y:hunter2'}]\ntimeout: 15m\nreloadInterval: soon\n";

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new(local: &str, server: Option<&FakeApiServer>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.yaml"), local).unwrap();
        if let Some(server) = server {
            std::fs::write(dir.path().join("kubeconfig"), server.kubeconfig()).unwrap();
        }
        Self { dir }
    }

    async fn run(&self, args: &[&str]) -> String {
        let output: Output = Command::new(BINARY)
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.dir.path())
            .env("KUBECONFIG", "kubeconfig")
            .args(["-f", "config.yaml", "config"])
            .args(args)
            .output()
            .await
            .unwrap();
        let text = format!(
            "exit {}\n--- stdout\n{}--- stderr\n{}",
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        assert!(!text.contains(SECRET), "{text}");
        text
    }
}

fn server(text: &str) -> FakeApiServer {
    let server = FakeApiServer::start().unwrap();
    server.apply_config_map(text);
    server
}

#[tokio::test]
async fn check() {
    let world = World::new(LOCAL, None);
    insta::assert_snapshot!("check_warnings", world.run(&["check"]).await);
    std::fs::write(
        world.dir.path().join("bad.yaml"),
        "timeout: soon\nregistries: [{address: 'ftp://u:hunter2@x'}]\naddress: a.io\nauth: [hunter2]\nprobeTimeout: 1d\n",
    )
    .unwrap();
    insta::assert_snapshot!("check_errors", world.run(&["check", "bad.yaml"]).await);
    std::fs::write(world.dir.path().join("cm.yaml"), REMOTE).unwrap();
    insta::assert_snapshot!(
        "check_configmap",
        world.run(&["check", "--configmap", "cm.yaml"]).await
    );
    std::fs::write(world.dir.path().join("good.yaml"), "address: a.io\n").unwrap();
    insta::assert_snapshot!("check_good", world.run(&["check", "good.yaml"]).await);
    insta::assert_snapshot!("check_missing", world.run(&["check", "missing.yaml"]).await);
    assert!(Path::new(BINARY).exists());
}

#[tokio::test]
async fn show() {
    let server = server(REMOTE);
    let world = World::new(LOCAL, Some(&server));
    insta::assert_snapshot!("show_merged", world.run(&["show"]).await);
    insta::assert_snapshot!("show_local", world.run(&["show", "--local"]).await);
    server.delete_config_map();
    let absent = world.run(&["show"]).await;
    assert!(
        absent.contains("# configmap: kube-system/image-cri-shim: there is none\n"),
        "{absent}"
    );
}

#[tokio::test]
async fn diff() {
    let remote = server(REMOTE);
    let world = World::new(LOCAL, Some(&remote));
    insta::assert_snapshot!("diff_changes", world.run(&["diff"]).await);
    remote.apply_config_map("timeout: 900s");
    insta::assert_snapshot!("diff_same", world.run(&["diff"]).await);
    remote.delete_config_map();
    insta::assert_snapshot!("diff_absent", world.run(&["diff"]).await);
    let alone = World::new(LOCAL, None);
    insta::assert_snapshot!("diff_no_cluster", alone.run(&["diff"]).await);
}

#[tokio::test]
async fn the_example_that_we_hand_out_is_good() {
    let example = include_str!("../../../../deploy/node/configmap.yaml");
    let (_, text) = example.split_once("registries.yaml: |\n").unwrap();
    let text: Vec<&str> = text.lines().map(|line| line.get(4..).unwrap()).collect();
    let world = World::new("", None);
    std::fs::write(world.dir.path().join("cm.yaml"), text.join("\n")).unwrap();
    let checked = world.run(&["check", "--configmap", "cm.yaml"]).await;
    assert!(checked.contains("cm.yaml: good\n"), "{checked}");
}
