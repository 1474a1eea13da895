//! A node: systemd, our units, a real containerd behind, and a client that never stops calling.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use testkit::calls::Calls;
use testkit::containerd::Containerd;
use testkit::systemd::Machine;
use testkit::wait;

/// What kubelet dials.
pub(crate) const LINK: &str = "/run/image-cri-shim.sock";

pub(crate) struct Node {
    pub(crate) machine: Machine,
    pub(crate) containerd: Containerd,
}

impl Node {
    /// Boots with the units installed and enabled and `config` as the config.
    pub(crate) async fn boot(config: &str) -> Self {
        let node = Self::boot_with(config, |_| ()).await;
        node.until_link("image-cri-shim/shim.sock").await;
        // The link turns while the unit starts; a reload at that time would be one with the start, and succeed.
        wait::until("the start to be over", || async {
            let state = node
                .machine
                .property("image-cri-shim.service", "ActiveState");
            (state.unwrap() == "active").then_some(())
        })
        .await;
        node
    }

    /// As [`Self::boot`], without waiting for the shim; `prepare` changes the tree first.
    pub(crate) async fn boot_with(config: &str, prepare: impl FnOnce(&Path)) -> Self {
        let containerd = Containerd::start().await.unwrap();
        let machine = Machine::boot(
            |tree| {
                install(tree, config);
                prepare(tree);
                Ok(())
            },
            &[(containerd.dir(), "/run/containerd")],
        )
        .await
        .unwrap();
        Self {
            machine,
            containerd,
        }
    }

    /// Waits until the link that kubelet dials leads there.
    pub(crate) async fn until_link(&self, target: &str) {
        wait::until(&format!("the link to lead to {target}"), || async {
            (self.link() == target).then_some(())
        })
        .await;
    }

    /// The process of the shim that systemd looks after; `0` is none.
    pub(crate) fn main_pid(&self) -> String {
        let pid = self.machine.property("image-cri-shim.service", "MainPID");
        pid.unwrap()
    }

    /// Waits until another process than `before` serves as the shim. The bypass in between may be too short to be seen.
    pub(crate) async fn until_another_serves(&self, before: &str) {
        wait::until("another shim to serve", || async {
            let now = self.main_pid();
            (now != before && now != "0" && self.link() == "image-cri-shim/shim.sock").then_some(())
        })
        .await;
    }

    /// Where the link leads.
    pub(crate) fn link(&self) -> String {
        fs::read_link(self.machine.path(LINK))
            .map(|target| target.display().to_string())
            .unwrap_or_default()
    }

    pub(crate) fn systemctl(&self, arguments: &[&str]) {
        let command: Vec<_> = std::iter::once("systemctl")
            .chain(arguments.iter().copied())
            .collect();
        self.machine.run(&command).unwrap();
    }

    /// Puts another program in the shim's place, in one step.
    pub(crate) fn replace_binary(&self, with: &Path) {
        let program = self.machine.path("/usr/bin/image-cri-shim");
        let new = program.with_extension("new");
        fs::copy(with, &new).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&new, &program).unwrap();
    }

    /// Starts calling by the link, each time on a new connection, until [`Calls::end`].
    pub(crate) fn call_on(&self) -> Calls {
        Calls::on(self.machine.path(LINK))
    }
}

/// What the package puts on a node.
fn install(tree: &Path, config: &str) {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    let put = |from: &Path, to: &str, mode: u32| {
        let to = tree.join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(mode)).unwrap();
    };
    for unit in fs::read_dir(packaging.join("systemd")).unwrap() {
        let path = unit.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        put(&path, &format!("usr/lib/systemd/system/{name}"), 0o644);
    }
    put(
        &packaging.join("tmpfiles.d/image-cri-shim.conf"),
        "usr/lib/tmpfiles.d/image-cri-shim.conf",
        0o644,
    );
    put(
        &packaging.join("lib/link"),
        "usr/lib/image-cri-shim/link",
        0o755,
    );
    put(
        Path::new(env!("CARGO_BIN_EXE_image-cri-shim")),
        "usr/bin/image-cri-shim",
        0o755,
    );
    for (target, unit) in [
        ("multi-user.target", "image-cri-shim.service"),
        ("sockets.target", "image-cri-shim-bypass.socket"),
    ] {
        let wants = tree.join(format!("etc/systemd/system/{target}.wants"));
        fs::create_dir_all(&wants).unwrap();
        symlink(format!("/usr/lib/systemd/system/{unit}"), wants.join(unit)).unwrap();
    }
    let file = tree.join("etc/image-cri-shim.yaml");
    fs::write(&file, format!("metricsAddress: off\n{config}")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
}
