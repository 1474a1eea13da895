//! A node that `install` has not been to yet: what stands for kubelet, a real containerd, and the program.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use testkit::containerd::Containerd;
use testkit::systemd::{KUBELET, Machine};
use testkit::tree::put;
use testkit::wait;

const GOOD: &str = env!("CARGO_BIN_EXE_image-cri-shim");
/// Where the program to be installed stands.
pub(crate) const PROGRAM: &str = "/opt/image-cri-shim";
pub(crate) const LINK: &str = "/run/image-cri-shim.sock";
pub(crate) const SHIM: &str = "/run/image-cri-shim/shim.sock";

const KUBELET_UNIT: &str = "[Service]\nEnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\nEnvironmentFile=-/etc/default/kubelet\n\
     ExecStart=/usr/bin/kubelet --healthz-port=0 $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS\nRestart=always\n";

pub(crate) struct Bare {
    pub(crate) machine: Machine,
    _containerd: Containerd,
}

impl Bare {
    /// Boots after `prepare` has put more into the tree.
    pub(crate) async fn boot(prepare: impl FnOnce(&Path)) -> Self {
        Self::boot_with(prepare, &[]).await
    }

    /// The same, with more folders of this machine mounted there: `(here, there)`.
    pub(crate) async fn boot_with(prepare: impl FnOnce(&Path), mounts: &[(&Path, &str)]) -> Self {
        let containerd = Containerd::start().await.unwrap();
        // A network of its own, since the kernel's list of sockets is asked who is connected.
        let machine = Machine::boot_alone(
            |tree| {
                put(tree, "/usr/bin/kubelet", KUBELET, 0o755);
                let unit = "/usr/lib/systemd/system/kubelet.service";
                put(tree, unit, KUBELET_UNIT, 0o644);
                enable(tree, "kubelet.service", unit);
                put(tree, "/etc/default/kubelet", "KUBELET_EXTRA_ARGS=\n", 0o644);
                fs::create_dir_all(tree.join("opt"))?;
                fs::copy(GOOD, tree.join(PROGRAM.trim_start_matches('/')))?;
                prepare(tree);
                Ok(())
            },
            &[&[(containerd.dir(), "/run/containerd")], mounts].concat(),
        )
        .await
        .unwrap();
        Self {
            machine,
            _containerd: containerd,
        }
    }

    /// Runs a command that works, and gives what it printed.
    pub(crate) fn sh(&self, command: &str) -> String {
        self.machine.run(&["sh", "-c", command]).unwrap()
    }

    /// Runs a command that fails, and gives what it said.
    pub(crate) fn fails(&self, command: &str) -> String {
        let output = self.machine.output(&["sh", "-c", command]).unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        said
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        fs::write(self.machine.path(path), text).unwrap();
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        fs::symlink_metadata(self.machine.path(path)).is_ok()
    }

    /// Which process systemd looks after as the shim.
    pub(crate) fn main_pid(&self) -> String {
        let pid = self.machine.property("image-cri-shim.service", "MainPID");
        pid.unwrap()
    }

    /// Waits until somebody is connected to that socket, or until nobody is.
    pub(crate) async fn until_dialed(&self, socket: &str, dialed: bool) {
        wait::until(&format!("{socket} to be dialed: {dialed}"), || async {
            // unix(7): state 3 is connected.
            let table = fs::read_to_string(self.machine.path("/proc/1/net/unix")).ok()?;
            let connected = |line: &str| line.contains(" 03 ") && line.ends_with(socket);
            (table.lines().any(connected) == dialed).then_some(())
        })
        .await;
    }

    /// Nothing of the shim is left: no unit, no link, no record.
    pub(crate) fn is_left(&self) {
        let units = "systemctl list-units --all --plain --no-legend 'image-cri-shim*'";
        assert_eq!(self.sh(units), "");
        for path in [LINK, "/run/image-cri-shim"] {
            assert!(!self.exists(path), "{path}");
        }
        self.has_no_files();
    }

    /// None of the files that an install brings is there.
    pub(crate) fn has_no_files(&self) {
        for path in [
            "/usr/local/bin/image-cri-shim",
            "/etc/systemd/system/image-cri-shim-bypass.socket",
            "/etc/systemd/system/kubelet.service.d",
            "/etc/default/image-cri-shim",
            "/var/lib/image-cri-shim",
        ] {
            assert!(!self.exists(path), "{path}");
        }
    }
}

pub(crate) fn enable(tree: &Path, name: &str, unit: &str) {
    let wants = tree.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    symlink(unit, wants.join(name)).unwrap();
}
