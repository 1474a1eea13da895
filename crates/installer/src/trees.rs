//! Trees as the kinds of nodes leave them, and what stands in a tree, for comparison.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::file::State;
use crate::root::Root;

/// A tree in a temporary directory.
pub(crate) struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for (path, text) in files {
            tree.write(path, text);
        }
        tree
    }

    pub(crate) fn root(&self) -> Root {
        Root::new(self.dir.path())
    }

    pub(crate) fn place(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let place = self.place(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, text).unwrap();
    }

    pub(crate) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.place(path)).unwrap()
    }

    pub(crate) fn chmod(&self, path: &str, mode: u32) {
        fs::set_permissions(self.place(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Gives a file that is there a mode, an owner and an attribute that nobody gives by himself.
    pub(crate) fn mark(&self, path: &str) {
        let place = self.place(path);
        if !place.exists() {
            return;
        }
        self.chmod(path, 0o640);
        std::os::unix::fs::chown(&place, Some(12), Some(34)).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(place, "user.note", b"kept", flags).unwrap();
    }

    /// Everything in the tree: files with content, mode, owner and attributes; directories with mode and owner.
    pub(crate) fn snapshot(&self) -> BTreeMap<PathBuf, (u32, u32, u32, Option<State>)> {
        let mut all = BTreeMap::new();
        walk(self.dir.path(), &mut all);
        all
    }
}

fn walk(folder: &Path, all: &mut BTreeMap<PathBuf, (u32, u32, u32, Option<State>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let state = (!metadata.is_dir()).then(|| State::read(&path).unwrap());
        let seen = (metadata.mode(), metadata.uid(), metadata.gid(), state);
        all.insert(path.clone(), seen);
        if metadata.is_dir() {
            walk(&path, all);
        }
    }
}

/// A Debian node as kubeadm up to 1.31 leaves it.
pub(crate) fn kubeadm_deb() -> Tree {
    Tree::new(&[
        (
            "/usr/lib/systemd/system/kubelet.service",
            "[Unit]\nDescription=kubelet\n[Service]\nExecStart=/usr/bin/kubelet\nRestart=always\n[Install]\nWantedBy=multi-user.target\n",
        ),
        (
            "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf",
            concat!(
                "# Note: This dropin only works with kubeadm and kubelet v1.11+\n[Service]\n",
                "Environment=\"KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf\"\n",
                "Environment=\"KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml\"\n",
                "EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\n",
                "EnvironmentFile=-/etc/default/kubelet\nExecStart=\n",
                "ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS\n",
            ),
        ),
        (
            "/var/lib/kubelet/kubeadm-flags.env",
            "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///run/containerd/containerd.sock --pod-infra-container-image=registry.k8s.io/pause:3.9\"\n",
        ),
        (
            "/var/lib/kubelet/config.yaml",
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nstaticPodPath: /etc/kubernetes/manifests\n",
        ),
        ("/etc/default/kubelet", "KUBELET_EXTRA_ARGS=\n"),
    ])
}

/// A Debian node as kubeadm 1.32 and 1.33 leave it: `config.yaml` has fields for both endpoints, which are empty.
pub(crate) fn kubeadm_132() -> Tree {
    let tree = kubeadm_deb();
    tree.write(
        "/var/lib/kubelet/config.yaml",
        "apiVersion: kubelet.config.k8s.io/v1beta1\ncontainerRuntimeEndpoint: \"\"\nimageServiceEndpoint: \"\"\nkind: KubeletConfiguration\nstaticPodPath: /etc/kubernetes/manifests\n",
    );
    tree.write(
        "/etc/default/kubelet",
        "# Ours.\nKUBELET_EXTRA_ARGS='--node-labels=\"a=b\"'\n",
    );
    tree
}

/// A Red Hat node as kubeadm from 1.34 leaves it: the endpoint stands in a file of the instance.
pub(crate) fn kubeadm_rpm() -> Tree {
    Tree::new(&[
        (
            "/usr/lib/systemd/system/kubelet.service",
            "[Service]\nExecStart=/usr/bin/kubelet\n",
        ),
        (
            "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf",
            concat!(
                "[Service]\nEnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\n",
                "EnvironmentFile=-/etc/sysconfig/kubelet\nExecStart=\n",
                "ExecStart=/usr/bin/kubelet $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS\n",
            ),
        ),
        (
            "/var/lib/kubelet/kubeadm-flags.env",
            "KUBELET_KUBEADM_ARGS=\"\"\n",
        ),
        (
            "/var/lib/kubelet/instance-config.yaml",
            "apiVersion: kubelet.config.k8s.io/v1beta1\ncontainerRuntimeEndpoint: \"unix:///var/run/crio/crio.sock\"\nkind: KubeletConfiguration\n",
        ),
        ("/etc/sysconfig/kubelet", "KUBELET_EXTRA_ARGS=\"--v=2\"\n"),
    ])
}

pub(crate) fn k3s() -> Tree {
    Tree::new(&[
        (
            "/etc/systemd/system/k3s-agent.service",
            "[Service]\nType=exec\nEnvironmentFile=-/etc/default/%N\nExecStart=/usr/local/bin/k3s \\\n    agent \\\n\n",
        ),
        ("/usr/local/bin/k3s", "#!/bin/false\n"),
        (
            "/etc/rancher/k3s/config.yaml",
            "server: https://10.0.0.1:6443\ntoken: hunter2\n",
        ),
    ])
}

pub(crate) fn rke2() -> Tree {
    Tree::new(&[
        (
            "/usr/local/lib/systemd/system/rke2-agent.service",
            "[Service]\nType=notify\nExecStart=/usr/local/bin/rke2 agent\n",
        ),
        (
            "/etc/rancher/rke2/config.yaml",
            "server: https://10.0.0.1:9345\nkubelet-arg:\n  - \"max-pods=200\"\n",
        ),
    ])
}

pub(crate) fn k0s() -> Tree {
    Tree::new(&[(
        "/etc/systemd/system/k0sworker.service",
        "[Service]\nExecStart=/usr/local/bin/k0s worker --token-file=/etc/k0s/token --kubelet-extra-args=\"--max-pods=200\"\n",
    )])
}

/// A kubelet that somebody's own unit starts, with CRI-O.
pub(crate) fn bare() -> Tree {
    Tree::new(&[(
        "/etc/systemd/system/kubelet.service",
        "[Service]\nExecStart=/opt/bin/kubelet --config=/etc/kubelet.yaml \\\n  --container-runtime-endpoint unix:///var/run/crio/crio.sock\n",
    )])
}

/// A node with CRI-O, whose kubelet is told of it by the administrator's variable.
pub(crate) fn crio() -> Tree {
    Tree::new(&[
        (
            "/usr/lib/systemd/system/kubelet.service",
            "[Unit]\nAfter=crio.service\n[Service]\nEnvironmentFile=-/etc/sysconfig/kubelet\nExecStart=/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml $KUBELET_EXTRA_ARGS\n",
        ),
        (
            "/usr/lib/systemd/system/crio.service",
            "[Service]\nExecStart=/usr/bin/crio\n",
        ),
        ("/etc/crio/crio.conf.d/10-crio.conf", "[crio.image]\n"),
        (
            "/etc/sysconfig/kubelet",
            "KUBELET_EXTRA_ARGS=\"--container-runtime-endpoint=unix:///var/run/crio/crio.sock \\\n  --runtime-request-timeout=10m\"\n",
        ),
    ])
}

/// A node with Docker behind cri-dockerd, as kubeadm leaves it.
pub(crate) fn cri_dockerd() -> Tree {
    let tree = kubeadm_deb();
    tree.write(
        "/var/lib/kubelet/kubeadm-flags.env",
        "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///var/run/cri-dockerd.sock\"\n",
    );
    tree.write(
        "/lib/systemd/system/cri-docker.service",
        "[Service]\nExecStart=/usr/bin/cri-dockerd --container-runtime-endpoint fd://\n",
    );
    tree
}

/// How a tree is made, by its name.
pub(crate) type Named = (&'static str, fn() -> Tree);

/// Every kind of node, by the name under which its expected diff is kept.
pub(crate) fn all() -> [Named; 10] {
    [
        ("kubeadm-to-1.31", kubeadm_deb),
        ("kubeadm-1.32-1.33", kubeadm_132),
        ("kubeadm-from-1.34", kubeadm_rpm),
        ("k3s", k3s),
        ("rke2", rke2),
        ("k0s", k0s),
        ("bare", bare),
        ("cri-o", crio),
        ("cri-dockerd", cri_dockerd),
        ("predecessor", predecessor),
    ]
}

/// What sealos leaves: its shim, and a kubelet that dials it.
pub(crate) fn predecessor() -> Tree {
    let tree = kubeadm_deb();
    tree.write(
        "/etc/default/kubelet",
        "KUBELET_EXTRA_ARGS=--image-service-endpoint=unix:///var/run/image-cri-shim.sock\n",
    );
    tree.write(
        "/etc/systemd/system/image-cri-shim.service",
        "[Service]\nExecStart=/usr/bin/image-cri-shim -f /etc/image-cri-shim.yaml\n",
    );
    tree.write("/usr/bin/image-cri-shim", "the Go program\n");
    tree.chmod("/usr/bin/image-cri-shim", 0o755);
    tree.write(
        "/etc/image-cri-shim.yaml",
        "shim: /var/run/image-cri-shim.sock\ncri: /run/containerd/containerd.sock\naddress: http://sealos.hub:5000\n",
    );
    tree
}
