//! A node: a tree with its files, and beside it a real containerd, a real registry and the real shim, whose sockets
//! stand in the tree. systemd, SELinux and kubelet's process are files and small programs of the tree, so that one
//! fault at a time can be made.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use testkit::certs::Ca;
use testkit::containerd::Containerd;
use testkit::docker_registry::{DockerRegistry, RegistryOptions};
use testkit::fake_api_server::FakeApiServer;
use testkit::shim::{Options, Shim};
use tokio::process::Command;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_image-cri-shim");
/// A part of every secret on the node; must never be printed.
pub(crate) const SECRET: &str = "hunter2";
/// What kubelet is told.
pub(crate) const FLAG: &str = "--image-service-endpoint=unix:///run/image-cri-shim.sock";
const UNITS: [&str; 5] = [
    "image-cri-shim.service",
    "image-cri-shim-bypass.socket",
    "image-cri-shim-bypass.service",
    "image-cri-shim-link.service",
    "image-cri-shim-cache.service",
];

/// What a node is made with.
pub(crate) struct Plan {
    /// Beside the registry, which is named by `REGISTRY`.
    pub(crate) config: String,
    /// Names that the registry's certificate is for.
    pub(crate) names: Vec<&'static str>,
    pub(crate) certificate: Certificate,
}

/// What is wrong with the registry's certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certificate {
    Good,
    Expired,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            config: String::new(),
            names: vec!["127.0.0.1"],
            certificate: Certificate::Good,
        }
    }
}

/// A node on which all is well.
pub(crate) struct World {
    pub(crate) shim: Shim,
    pub(crate) containerd: Containerd,
    pub(crate) registry: DockerRegistry,
    pub(crate) api_server: FakeApiServer,
    /// The kubeconfig, outside of the tree.
    outside: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Plan::default()).await
    }

    pub(crate) async fn with(plan: Plan) -> Self {
        let ca = Ca::new().unwrap();
        let cert = match plan.certificate {
            Certificate::Good => ca.issue(&plan.names),
            Certificate::Expired => ca.issue_expired(&plan.names),
        };
        let containerd = Containerd::start().await.unwrap();
        let registry = DockerRegistry::start(RegistryOptions {
            credentials: Some(("puller".to_owned(), format!("{SECRET}-of-the-registry"))),
            tls: Some(cert.unwrap()),
            ..RegistryOptions::default()
        });
        let registry = registry.await.unwrap();
        let api_server = FakeApiServer::start().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let kubeconfig = outside.path().join("kubeconfig");
        fs::write(&kubeconfig, api_server.kubeconfig()).unwrap();
        let options = Options::new(BINARY, containerd.socket())
            .env("KUBECONFIG", kubeconfig.to_str().unwrap())
            .env("REGISTRY_PASSWORD", &format!("{SECRET}-of-the-environment"));
        let shim = Shim::prepare("", options).unwrap();
        let world = Self {
            shim,
            containerd,
            registry,
            api_server,
            outside,
        };
        world.lay_out(&ca);
        world.configure(&plan.config);
        world.install();
        world
    }

    /// Starts the shim, too.
    pub(crate) async fn running() -> Self {
        Self::running_with(Plan::default()).await
    }

    pub(crate) async fn running_with(plan: Plan) -> Self {
        let mut world = Self::with(plan).await;
        world.shim.start_again().await.unwrap();
        world
    }

    /// The tree.
    pub(crate) fn root(&self) -> &Path {
        self.shim.dir()
    }

    /// Where a path of the node stands.
    pub(crate) fn place(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let place = self.place(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, text).unwrap();
    }

    pub(crate) fn chmod(&self, path: &str, mode: u32) {
        fs::set_permissions(self.place(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A program of the node that a look runs.
    pub(crate) fn program(&self, name: &str, script: &str) {
        let path = format!("/fake-bin/{name}");
        self.write(&path, &format!("#!/bin/sh\n{script}\n"));
        self.chmod(&path, 0o755);
    }

    /// Writes the config: the registry with its credentials, and `more`.
    pub(crate) fn configure(&self, more: &str) {
        let config = format!(
            "registries:\n- address: {}\n  caFile: {}\n  auth: puller:{SECRET}-of-the-registry\n{more}\ncri: {}\n",
            self.registry.url(),
            self.place("/etc/pki/registry-ca.pem").display(),
            self.place("/run/containerd/containerd.sock").display(),
        );
        self.shim.write_config(&config).unwrap();
    }

    fn lay_out(&self, ca: &Ca) {
        for folder in [
            "run/containerd",
            "run/image-cri-shim",
            "run/systemd/system",
            "etc",
            "state",
        ] {
            fs::create_dir_all(self.root().join(folder)).unwrap();
        }
        self.chmod("/state", 0o700);
        // kubeadm's files on Debian.
        self.write(
            "/usr/lib/systemd/system/kubelet.service",
            "[Service]\nExecStart=/usr/bin/kubelet\n",
        );
        self.write(
            "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf",
            "[Service]\nEnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\nEnvironmentFile=-/etc/default/kubelet\nExecStart=\nExecStart=/usr/bin/kubelet $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS\n",
        );
        self.write(
            "/var/lib/kubelet/kubeadm-flags.env",
            "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///run/containerd/containerd.sock\"\n",
        );
        self.write("/etc/default/kubelet", "KUBELET_EXTRA_ARGS=\n");
        // The package's.
        let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd");
        for unit in UNITS {
            let text = fs::read_to_string(packaging.join(unit)).unwrap();
            self.write(&format!("/usr/lib/systemd/system/{unit}"), &text);
        }
        for program in [
            "/usr/bin/image-cri-shim",
            "/lib/systemd/systemd-socket-proxyd",
        ] {
            self.write(program, "");
            self.chmod(program, 0o755);
        }
        self.write("/etc/pki/registry-ca.pem", &ca.pem());
        symlink(
            "../image-cri-shim.yaml",
            self.place("/etc/image-cri-shim.yaml"),
        )
        .unwrap();
        // Sockets by their names on a node.
        fs::hard_link(
            self.containerd.socket(),
            self.place("/run/containerd/containerd.sock"),
        )
        .unwrap();
        symlink(
            "../../shim.sock",
            self.place("/run/image-cri-shim/shim.sock"),
        )
        .unwrap();
        self.turn("image-cri-shim/shim.sock");
        self.run_kubelet(&format!(
            "{FLAG} --healthz-port=0 --token={SECRET}-of-kubelet"
        ));
        self.write("/proc/sys/fs/inotify/max_user_instances", "128\n");
        self.write("/proc/sys/fs/inotify/max_user_watches", "65536\n");
        self.write("/proc/sys/fs/file-nr", "1000\t0\t100000\n");
        for unit in UNITS {
            self.unit(unit, &[]);
        }
        self.unit(
            "image-cri-shim-cache.service",
            &[("ActiveState", "inactive"), ("UnitFileState", "disabled")],
        );
        self.program(
            "systemctl",
            &format!("cat {}/units/*", self.root().display()),
        );
    }

    /// What `install` does on such a node.
    fn install(&self) {
        let output = std::process::Command::new(BINARY)
            .args(["install", "--root"])
            .arg(self.root())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let more = format!("REGISTRY_PASSWORD={SECRET}-of-the-environment\n");
        let defaults = self.place("/etc/default/image-cri-shim");
        let text = fs::read_to_string(&defaults).unwrap();
        fs::write(defaults, text + &more).unwrap();
    }

    /// Turns the link that kubelet dials.
    pub(crate) fn turn(&self, target: &str) {
        let link = self.place("/run/image-cri-shim.sock");
        let _ = fs::remove_file(&link);
        symlink(target, link).unwrap();
    }

    /// Kubelet's process, with these arguments.
    pub(crate) fn run_kubelet(&self, arguments: &str) {
        let command = format!("/usr/bin/kubelet {arguments}").replace(' ', "\0");
        self.write("/proc/812/cmdline", &command);
    }

    /// What systemd says of a unit, other than that all is well.
    pub(crate) fn unit(&self, name: &str, changes: &[(&str, &str)]) {
        let mut text = format!("Id={name}\n");
        for (property, usual) in [
            ("LoadState", "loaded"),
            ("ActiveState", "active"),
            ("SubState", "running"),
            ("UnitFileState", "enabled"),
            ("Result", "success"),
            ("ExecMainStatus", "0"),
            ("NRestarts", "0"),
            ("WatchdogUSec", "4s"),
            ("NeedDaemonReload", "no"),
        ] {
            let changed = changes.iter().find(|(name, _)| *name == property);
            let value = changed.map_or(usual, |(_, value)| value);
            text.push_str(&format!("{property}={value}\n"));
        }
        self.write(&format!("/units/{name}"), &(text + "\n"));
    }

    /// Runs doctor on the node, for people and for programs; neither prints a secret.
    pub(crate) async fn doctor(&self) -> Page {
        self.doctor_with(&["--live"]).await
    }

    pub(crate) async fn doctor_with(&self, arguments: &[&str]) -> Page {
        let (code, text) = self.run(arguments).await;
        let json = [arguments, &["--json"]].concat();
        let (json_code, json) = self.run(&json).await;
        assert_eq!(code, json_code, "{text}\n{json}");
        let json: Value = serde_json::from_str(&json).unwrap();
        Page { code, text, json }
    }

    /// Exit status, and what is printed.
    async fn run(&self, arguments: &[&str]) -> (i32, String) {
        self.run_in(self.root(), arguments).await
    }

    /// The same on another tree.
    pub(crate) async fn run_in(&self, root: &Path, arguments: &[&str]) -> (i32, String) {
        let path = format!("{}:/usr/bin:/bin", self.place("/fake-bin").display());
        let output = Command::new(BINARY)
            .arg("doctor")
            .arg("--root")
            .arg(root)
            .args(arguments)
            .env_clear()
            .env("PATH", path)
            .env("COLUMNS", "1000")
            .env("HOME", "/nonexistent")
            .env("KUBECONFIG", self.outside.path().join("kubeconfig"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let all = format!("{stdout}{stderr}");
        assert!(!all.contains(SECRET), "a secret is printed:\n{all}");
        assert_eq!(stderr, "", "{all}");
        (output.status.code().unwrap(), stdout)
    }
}

/// What doctor has printed.
pub(crate) struct Page {
    pub(crate) code: i32,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Page {
    /// The first of the worst lines is about this check, says this, and is mended by this; the page says the same.
    #[track_caller]
    pub(crate) fn names(&self, code: i32, check: &str, says: &str, mend: &str) {
        let Self { text, json, .. } = self;
        assert_eq!(self.code, code, "{text}");
        let worst = &json["verdict"];
        let lines = json["lines"].as_array().unwrap();
        let first = lines.iter().find(|line| &line["verdict"] == worst).unwrap();
        assert_eq!(first["check"], check, "{text}");
        let (said, mends) = (
            first["text"].as_str().unwrap(),
            first["mend"].as_str().unwrap(),
        );
        assert!(said.contains(says), "{said}\n\n{text}");
        assert!(mends.contains(mend), "{mends}\n\n{text}");
        let marked = text
            .lines()
            .find(|line| line.starts_with(&format!("  {} ", worst.as_str().unwrap())));
        assert!(marked.unwrap().contains(says), "{text}");
        // Not all of it: it may count seconds, and this is another run.
        let first = text.lines().find(|line| line.starts_with("First: "));
        assert!(first.unwrap().contains(says), "{text}");
        assert!(text.trim_end().ends_with(mends), "{text}");
    }

    /// Something is bad.
    #[track_caller]
    pub(crate) fn bad(&self, check: &str, says: &str, mend: &str) {
        assert_eq!(self.json["verdict"], "bad", "{}", self.text);
        self.names(2, check, says, mend);
    }

    /// Nothing is bad, and something is to be looked at.
    #[track_caller]
    pub(crate) fn warns(&self, check: &str, says: &str, mend: &str) {
        assert_eq!(self.json["verdict"], "warn", "{}", self.text);
        self.names(1, check, says, mend);
    }
}
