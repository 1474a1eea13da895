//! A node with a real systemd, a real containerd, and what stands for kubelet.

use std::fs;
use std::path::Path;

use testkit::calls::Calls;
use testkit::containerd::Containerd;
use testkit::systemd::{KUBELET, Machine};
use testkit::tree::put;
use testkit::wait;

use super::world::text;

/// What kubelet dials.
const LINK: &str = "/run/image-cri-shim.sock";
/// Where it leads while the shim is ready.
pub(crate) const SHIM: &str = "image-cri-shim/shim.sock";
pub(crate) const SERVICE: &str = "image-cri-shim.service";
pub(crate) const BYPASS: &str = "image-cri-shim-bypass.socket";

const KUBELET_UNIT: &str = "[Service]\nEnvironmentFile=-/etc/default/kubelet\nExecStart=/usr/bin/kubelet $KUBELET_EXTRA_ARGS\nRestart=always\n\
     [Install]\nWantedBy=multi-user.target\n";

pub(crate) struct Node {
    pub(crate) machine: Machine,
    _containerd: Containerd,
}

impl Node {
    /// Boots with these files at hand in `/packages`, and with kubelet's own settings.
    pub(crate) async fn boot(packages: &Path, kubelet: &str, prepare: impl FnOnce(&Path)) -> Self {
        let containerd = Containerd::start().await.unwrap();
        let mounts = [
            (containerd.dir(), "/run/containerd"),
            (packages, "/packages"),
        ];
        let machine = Machine::boot_alone(
            |tree| {
                put(tree, "usr/bin/kubelet", KUBELET, 0o755);
                put(
                    tree,
                    "etc/systemd/system/kubelet.service",
                    KUBELET_UNIT,
                    0o644,
                );
                put(tree, "etc/default/kubelet", kubelet, 0o644);
                prepare(tree);
                Ok(())
            },
            &mounts,
        );
        let machine = machine.await.unwrap();
        machine.run(&["systemctl", "start", "kubelet"]).unwrap();
        Self {
            machine,
            _containerd: containerd,
        }
    }

    /// Runs a shell's line, which has to succeed.
    pub(crate) fn sh(&self, line: &str) -> String {
        self.machine
            .run(&["sh", "-c", line])
            .unwrap_or_else(|error| panic!("{error}\n{}", self.machine.journal(SERVICE)))
    }

    /// Runs a shell's line, which has to fail; what it says.
    pub(crate) fn fails(&self, line: &str) -> String {
        let output = self.machine.output(&["sh", "-c", line]).unwrap();
        let said = text(&output);
        assert!(!output.status.success(), "{line}: {said}");
        said
    }

    /// Where the link leads that kubelet dials.
    pub(crate) fn link(&self) -> String {
        fs::read_link(self.machine.path(LINK))
            .map(|target| target.display().to_string())
            .unwrap_or_default()
    }

    pub(crate) async fn until_served(&self) {
        wait::until("the link to lead to the shim", || async {
            (self.link() == SHIM).then_some(())
        })
        .await;
    }

    /// Starts calling by the link.
    pub(crate) fn call_on(&self) -> Calls {
        Calls::on(self.machine.path(LINK))
    }

    /// Something that changes when the unit is started anew.
    pub(crate) fn invocation(&self, unit: &str) -> String {
        self.machine.property(unit, "InvocationID").unwrap()
    }

    /// Waits until the running kubelet is connected to the shim, or until it is not.
    pub(crate) async fn until_kubelet_dials_the_shim(&self, dials: bool) {
        wait::until("kubelet to be connected as it is told", || async {
            // unix(7): state 3 is connected.
            let table = fs::read_to_string(self.machine.path("/proc/1/net/unix")).ok()?;
            let connected = |line: &str| {
                line.contains(" 03 ") && line.ends_with("/run/image-cri-shim/shim.sock")
            };
            (table.lines().any(connected) == dials).then_some(())
        })
        .await;
    }

    /// The process that systemd looks after as the shim.
    pub(crate) fn main_pid(&self) -> String {
        self.machine.property(SERVICE, "MainPID").unwrap()
    }

    /// All that stands on the node's disk and is no package manager's own, with modes and owners.
    pub(crate) fn everything(&self) -> Vec<String> {
        let listed = self.sh(
            "find /etc /opt /root /srv /usr /var -xdev -printf '%p %m %U %G %l\\n' | sort; \
             sort /etc/passwd /etc/group; find /run -name '*image-cri-shim*'",
        );
        let others = [
            "/etc/passwd- ",
            "/etc/group- ",
            "/etc/shadow- ",
            "/etc/gshadow- ",
            "/etc/.pwd.lock ",
            "/var/cache/",
            "/var/lib/dpkg/",
            "/var/lib/systemd",
            "/var/log/",
            "/root/.rpmdb",
        ];
        listed
            .lines()
            .filter(|line| !others.iter().any(|other| line.starts_with(other)))
            .map(str::to_owned)
            .collect()
    }
}
