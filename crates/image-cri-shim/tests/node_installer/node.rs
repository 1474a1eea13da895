//! A node, and the Pod on it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use testkit::systemd::Machine;
use testkit::wait;

use crate::kubelet;
use crate::world::{LONG, NAMESPACE, World, snapshot};

/// kubelet's unit and its drop-in, as kubeadm's packages have them.
const KUBELET: &str = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/usr/bin/kubelet\nRestart=always\nRestartSec=1s\n";
const KUBEADM: &str = concat!(
    "[Service]\nEnvironment=\"KUBELET_KUBECONFIG_ARGS=--kubeconfig=/etc/kubernetes/kubelet.conf\"\n",
    "EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\nEnvironmentFile=-/etc/default/kubelet\n",
    "ExecStart=\nExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS\n",
);
/// The Pod: the host's processes and network, files of its own, and the signals that a runtime sends.
const POD: &str = concat!(
    "[Service]\nRootDirectory=/opt/pod\nMountAPIVFS=yes\nBindReadOnlyPaths=/usr\n",
    "Environment=KUBERNETES_SERVICE_HOST=127.0.0.1 KUBERNETES_SERVICE_PORT=6443\n",
    "EnvironmentFile=/opt/arguments\nExecStart=/image-cri-shim node-installer $ARGUMENTS\n",
    "KillMode=mixed\nTimeoutStopSec=600\n",
);
/// The way to the API server.
const API_SOCKET: &str = "[Socket]\nListenStream=127.0.0.1:6443\n";
const API_SERVICE: &str =
    "[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd /run/api/relay.sock\n";
const ASK: &str = "exec 3<>/dev/tcp/127.0.0.1/7443; printf 'GET /readyz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3";

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) machine: Machine,
    before: BTreeMap<PathBuf, (u32, Vec<u8>)>,
}

impl Node {
    pub(crate) async fn boot(world: &World, number: usize) -> Self {
        let name = format!("node-{number}");
        let machine = Machine::boot_alone(
            |tree| {
                prepare(world, tree);
                Ok(())
            },
            &[
                (world.containerd.dir(), "/run/containerd"),
                (world.relay.path(), "/run/api"),
            ],
        )
        .await
        .unwrap();
        let mut node = Self {
            name,
            machine,
            before: BTreeMap::new(),
        };
        node.until_kubelet_works().await;
        node.before = node.files();
        node
    }

    fn run(&self, command: &[&str]) -> String {
        self.machine.run(command).unwrap()
    }

    /// Every file that an install may touch.
    fn files(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut files = BTreeMap::new();
        for folder in ["/etc", "/usr/local", "/var/lib/image-cri-shim"] {
            files.extend(snapshot(&self.machine.path(folder)));
        }
        files
    }

    /// Every file is as it was, kubelet works without the shim, and nothing of the shim runs.
    pub(crate) async fn is_untouched(&self) {
        let now = self.files();
        let different: Vec<_> = now
            .iter()
            .filter(|(path, file)| self.before.get(*path) != Some(*file))
            .map(|(path, _)| path)
            .collect();
        assert!(different.is_empty(), "{}: {different:?}", self.name);
        assert_eq!(now.len(), self.before.len(), "{}", self.name);
        let units = [
            "list-units",
            "--all",
            "--plain",
            "--no-legend",
            "image-cri-shim*",
        ];
        let units = self.run(&[&["systemctl"], &units[..]].concat());
        assert_eq!(units.trim(), "", "{}", self.name);
        let link = self.machine.path("/run/image-cri-shim.sock");
        assert!(fs::symlink_metadata(link).is_err(), "{}", self.name);
        self.until_kubelet_works().await;
        assert!(!self.kubelet_is_told_of_the_shim(), "{}", self.name);
    }

    /// The shim serves in this version, and kubelet goes through it.
    pub(crate) fn has(&self, program: &Path) {
        let installed = self.machine.path("/usr/local/bin/image-cri-shim");
        let sizes = [installed.as_path(), program].map(|path| fs::metadata(path).unwrap().len());
        assert_eq!(sizes[0], sizes[1], "{}", self.name);
        let link = fs::read_link(self.machine.path("/run/image-cri-shim.sock")).unwrap();
        assert_eq!(link, Path::new("image-cri-shim/shim.sock"), "{}", self.name);
        assert!(self.kubelet_is_told_of_the_shim(), "{}", self.name);
    }

    /// Changes with each start of kubelet.
    pub(crate) fn start_of_kubelet(&self) -> String {
        let start = self.machine.property("kubelet.service", "InvocationID");
        start.unwrap()
    }

    pub(crate) async fn until_kubelet_works(&self) {
        wait::until(&format!("{}'s kubelet to be well", self.name), || async {
            let ask = "exec 3<>/dev/tcp/127.0.0.1/10248; echo >&3; cat <&3";
            let output = self.machine.output(&["bash", "-c", ask]).unwrap();
            output.stdout.ends_with(b"ok").then_some(())
        })
        .await;
    }

    fn kubelet_is_told_of_the_shim(&self) -> bool {
        let pid = self.machine.property("kubelet.service", "MainPID").unwrap();
        let command = self.run(&["cat", &format!("/proc/{pid}/cmdline")]);
        command.contains("--image-service-endpoint=unix:///run/image-cri-shim.sock")
    }

    /// Starts the Pod, in place of one that runs.
    pub(crate) fn start_pod(&self, program: &Path, mode: &str) {
        self.terminate_pod();
        let place = self.machine.path("/opt/pod/image-cri-shim");
        let _ = fs::remove_file(&place);
        fs::copy(program, &place).unwrap();
        let arguments = format!(
            "ARGUMENTS=--mode={mode} --node={} --restart-kubelet --timeout=45s --poll=500ms --config=/config.yaml --log-format=text\n",
            self.name
        );
        fs::write(self.machine.path("/opt/arguments"), arguments).unwrap();
        self.run(&["systemctl", "start", "pod.service"]);
    }

    /// A drain, or the DaemonSet is deleted.
    pub(crate) fn terminate_pod(&self) {
        self.run(&["systemctl", "stop", "pod.service"]);
    }

    /// The Pod has no time left.
    pub(crate) fn kill_pod(&self) {
        self.run(&["systemctl", "kill", "--signal=KILL", "pod.service"]);
    }

    /// What kubelet's readiness probe is told.
    pub(crate) fn readiness(&self) -> String {
        let output = self.machine.output(&["bash", "-c", ASK]).unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) async fn until_ready(&self) {
        self.until_readiness("HTTP/1.1 200").await;
    }

    pub(crate) async fn until_readiness(&self, part: &str) {
        let said = wait::within(LONG, || async {
            self.readiness().contains(part).then_some(())
        });
        if said.await.is_none() {
            panic!(
                "{} never said {part:?}, but {}\n{}\n{}",
                self.name,
                self.readiness(),
                self.machine.journal("pod.service"),
                self.machine.journal("image-cri-shim.service"),
            );
        }
    }

    /// Lets kubelet not work with that version of the shim.
    pub(crate) fn refuse_version(&self, program: &Path) {
        let size = fs::metadata(program).unwrap().len().to_string();
        fs::write(self.machine.path(kubelet::BAD_SIZE), size).unwrap();
    }

    pub(crate) fn refuse_no_version(&self) {
        fs::remove_file(self.machine.path(kubelet::BAD_SIZE)).unwrap();
    }

    /// Kubelet no longer works with the shim, or works with it again.
    pub(crate) fn kubelet_refuses(&self, refuses: bool) {
        let mark = self.machine.path(kubelet::REFUSES);
        if refuses {
            fs::write(mark, "").unwrap();
        } else {
            fs::remove_file(mark).unwrap();
        }
    }
}

fn prepare(world: &World, tree: &Path) {
    let write = |path: &str, text: &str| {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("usr/lib/systemd/system/kubelet.service", KUBELET);
    let drop_in = "usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf";
    write(drop_in, KUBEADM);
    write("etc/default/kubelet", "KUBELET_EXTRA_ARGS=\n");
    write("usr/lib/systemd/system/pod.service", POD);
    write("usr/lib/systemd/system/api.socket", API_SOCKET);
    write("usr/lib/systemd/system/api.service", API_SERVICE);
    write("opt/pod/config.yaml", "registries: []\n");
    let account = "opt/pod/var/run/secrets/kubernetes.io/serviceaccount";
    write(&format!("{account}/token"), world.server.token());
    write(&format!("{account}/ca.crt"), &world.server.ca_pem());
    write(&format!("{account}/namespace"), NAMESPACE);
    // The image has authorities, too.
    let authorities = "opt/pod/etc/ssl/certs/ca-certificates.crt";
    write(authorities, &world.server.ca_pem());
    for folder in ["dev", "etc", "proc", "run", "sys", "tmp", "usr"] {
        fs::create_dir_all(tree.join("opt/pod").join(folder)).unwrap();
    }
    // The libraries that the test's build of the program needs; the image has a static one.
    for folder in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{folder}"), tree.join("opt/pod").join(folder)).unwrap();
    }
    for (unit, wanted) in [
        ("kubelet.service", "multi-user.target.wants"),
        ("api.socket", "sockets.target.wants"),
    ] {
        let wants = tree.join("etc/systemd/system").join(wanted);
        fs::create_dir_all(&wants).unwrap();
        symlink(format!("/usr/lib/systemd/system/{unit}"), wants.join(unit)).unwrap();
    }
    let own = std::env::current_exe().unwrap();
    let kubelet = tree.join(kubelet::PATH.trim_start_matches('/'));
    fs::create_dir_all(kubelet.parent().unwrap()).unwrap();
    // A name more is enough, where that is possible.
    if fs::hard_link(&own, &kubelet).is_err() {
        fs::copy(&own, &kubelet).unwrap();
    }
}
