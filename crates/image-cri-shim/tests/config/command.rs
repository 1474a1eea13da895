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
        self.run_in(&[], args).await
    }

    /// With these variables besides.
    async fn run_in(&self, environment: &[(&str, &str)], args: &[&str]) -> String {
        let output: Output = Command::new(BINARY)
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.dir.path())
            .env("KUBECONFIG", "kubeconfig")
            // In place of the one that is here, perhaps.
            .env("IMAGE_CRI_SHIM_RUNTIME", "/run/containerd/containerd.sock")
            .envs(environment.iter().copied())
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
async fn a_config_map_without_the_key_is_no_config_map_that_agrees() {
    let remote = server("");
    remote.apply_config_map_with_key("registries.yml", "timeout: 1m");
    let world = World::new(LOCAL, Some(&remote));
    let name = "configmap kube-system/image-cri-shim";
    let why = "can't be used: it has no key registries.yaml";
    let diff = world.run(&["diff"]).await;
    assert!(diff.starts_with("exit 2\n"), "{diff}");
    assert!(diff.contains(&format!("{name} {why}\n")), "{diff}");
    let show = world.run(&["show"]).await;
    let line = format!("# configmap: kube-system/image-cri-shim: {why}\n");
    assert!(show.contains(&line), "{show}");
}

#[tokio::test]
async fn what_a_config_map_can_not_set_does_not_come_from_it() {
    let remote = server("timeout: 1m\nsealos: {auth: '${THEIRS}:x'}\n");
    let local = "address: http://sealos.hub:5000\nauth: admin:hunter2\noriginalNames: false\nkeepMirrorNames: false\n\
        configMapEnv: none\nimageCredentialProviderConfig: /etc/plugins.yaml\nimageCredentialProviderBinDir: /opt/plugins\n";
    let world = World::new(local, Some(&remote));
    let show = world.run(&["show"]).await;
    for line in [
        "timeout: 1m0s  # ConfigMap",
        "originalNames: false  # file",
        "keepMirrorNames: false  # file",
        "configMapEnv: none  # file",
        "imageCredentialProviderConfig: /etc/plugins.yaml  # file",
        "imageCredentialProviderBinDir: /opt/plugins  # file",
        // The ConfigMap's names a variable that it may not name.
        "auth: ***  # file",
    ] {
        assert!(show.contains(&format!("\n{line}\n")), "{line}: {show}");
    }
}

#[tokio::test]
async fn a_proxy_in_the_environment_is_not_in_the_way_nor_shown() {
    let remote = server("timeout: 900s");
    let world = World::new(LOCAL, Some(&remote));
    // The server is on loopback, so it is asked directly, whatever the exceptions look like.
    let pair = [
        ("HTTPS_PROXY", "socks5h://hugo:hunter2@proxy.corp:1080"),
        ("NO_PROXY", "127.0.0.1,"),
    ];
    let diff = world.run_in(&pair, &["diff"]).await;
    assert!(diff.contains("says the same already"), "{diff}");
    let kubeconfig = remote.kubeconfig();
    let elsewhere = kubeconfig.replace("https://127.0.0.1", "https://10.255.255.1");
    assert_ne!(kubeconfig, elsewhere);
    std::fs::write(world.dir.path().join("kubeconfig"), elsewhere).unwrap();
    let diff = world.run_in(&pair, &["diff"]).await;
    assert!(diff.starts_with("exit 2\n"), "{diff}");
    let said = "can't be read: passing over the kubeconfig kubeconfig: a SOCKS proxy with a user";
    assert!(diff.contains(said), "{diff}");
    assert!(diff.contains("(socks5h://proxy.corp:1080)"), "{diff}");
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

#[tokio::test]
async fn a_config_map_s_manifest_is_checked_by_what_is_in_it() {
    let world = World::new("", None);
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: image-cri-shim, namespace: kube-system}\n\
        data:\n  registries.yaml: |\n    timeout: soon\n    registries: [{address: a.io, auth: 'u:hunter2'}]\n";
    std::fs::write(world.dir.path().join("cm.yaml"), manifest).unwrap();
    for args in [
        &["check", "--configmap", "cm.yaml"][..],
        &["check", "cm.yaml"],
    ] {
        let checked = world.run(args).await;
        assert!(checked.contains("cm.yaml: registries.yaml:1:"), "{checked}");
        assert!(checked.contains("timeout"), "{checked}");
        assert!(!checked.contains("kind"), "{checked}");
    }
    let other = manifest.replace("registries.yaml", "registries.yml");
    std::fs::write(world.dir.path().join("cm.yaml"), other).unwrap();
    let checked = world.run(&["check", "--configmap", "cm.yaml"]).await;
    assert!(checked.starts_with("exit 1\n"), "{checked}");
    assert!(checked.contains("has no key registries.yaml"), "{checked}");
    let example = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/node/configmap.yaml"
    );
    let checked = world.run(&["check", "--configmap", example]).await;
    assert!(
        checked.contains("configmap.yaml: registries.yaml: good\n"),
        "{checked}"
    );
}

#[tokio::test]
async fn standard_input_is_checked() {
    let world = World::new("", None);
    std::fs::write(world.dir.path().join("given"), "timeout: soon\n").unwrap();
    let given = std::fs::File::open(world.dir.path().join("given")).unwrap();
    let child = Command::new(BINARY)
        .env_clear()
        .args(["config", "check", "-"])
        .stdin(given)
        .output()
        .await
        .unwrap();
    let told = String::from_utf8(child.stdout).unwrap();
    assert!(
        told.starts_with("standard input:1:10: error: timeout"),
        "{told}"
    );
    assert_eq!(child.status.code(), Some(1), "{told}");
}

#[tokio::test]
async fn a_file_that_an_entry_names_and_that_is_not_there_is_a_warning() {
    let world = World::new("", None);
    let text = "registries: [{address: a.io, caFile: /nonexistent/ca.pem, authFile: /nonexistent/auth.json}]\n\
        cri: /nonexistent/cri.sock\nforce: true\n";
    std::fs::write(world.dir.path().join("config.yaml"), text).unwrap();
    let checked = world.run(&["check"]).await;
    assert!(
        checked.contains("config.yaml: good, with 2 warnings\n"),
        "{checked}"
    );
    for field in ["registries[1].caFile", "registries[1].authFile"] {
        let warning = format!("config.yaml: warning: {field}: cannot read /nonexistent/");
        assert!(checked.contains(&warning), "{checked}");
    }
    let mut dry = Command::new(BINARY);
    dry.current_dir(world.dir.path()).env_clear();
    let dry = dry
        .args(["--dry-run", "-f", "config.yaml"])
        .output()
        .await
        .unwrap();
    let told = String::from_utf8(dry.stdout).unwrap();
    assert!(
        told.contains("warning   registries[1].caFile: cannot read"),
        "{told}"
    );
}

#[tokio::test]
async fn what_is_in_force_is_shown_whole() {
    let world = World::new("address: a.io\n", None);
    let runtime = [("IMAGE_CRI_SHIM_RUNTIME", "/run/found/cri.sock")];
    let shown = world.run_in(&runtime, &["show", "--local"]).await;
    for line in [
        "cri: /run/found/cri.sock  # default",
        "strict: false  # default",
        "originalNames: true  # default",
        "keepMirrorNames: true  # default",
    ] {
        assert!(shown.contains(&format!("\n{line}\n")), "{line}: {shown}");
    }
}
