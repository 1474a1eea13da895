//! containerd, by its socket: distributions that bring one of their own keep its files elsewhere.

use std::path::Path;

/// Where a containerd has what it is told about registries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryFiles {
    /// Its `config_path`: directories that hold one directory per host, with a `hosts.toml`.
    pub certs_d: &'static [&'static str],
    /// Where the distribution writes `certs_d` itself: what it does that from, so that an operator edits this file.
    pub written_from: &'static [&'static str],
}

const USUAL: RegistryFiles = RegistryFiles {
    certs_d: &["/etc/containerd/certs.d"],
    written_from: &[],
};
/// k3s and RKE2 listen on the same socket. Their containerd is told nothing in `/etc/containerd`.
const RANCHER: RegistryFiles = RegistryFiles {
    certs_d: &[
        "/var/lib/rancher/k3s/agent/etc/containerd/certs.d",
        "/var/lib/rancher/rke2/agent/etc/containerd/certs.d",
    ],
    written_from: &[
        "/etc/rancher/k3s/registries.yaml",
        "/etc/rancher/rke2/registries.yaml",
    ],
};
/// k0s leaves `config_path` to the operator; the first is the one of its documentation, the second containerd's own default.
const K0S: RegistryFiles = RegistryFiles {
    certs_d: &["/etc/k0s/containerd.d/certs.d", "/etc/containerd/certs.d"],
    written_from: &[],
};

impl RegistryFiles {
    /// Those of the containerd behind a socket, by where it listens below `/run`.
    pub fn of(socket: &Path) -> Self {
        if socket.ends_with("run/k3s/containerd/containerd.sock") {
            return RANCHER;
        }
        if socket.ends_with("run/k0s/containerd.sock") {
            return K0S;
        }
        USUAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_distribution_has_its_own_files() {
        for (socket, first) in [
            ("/run/containerd/containerd.sock", "/etc/containerd/certs.d"),
            ("/var/run/cri-dockerd.sock", "/etc/containerd/certs.d"),
            (
                "/run/k3s/containerd/containerd.sock",
                "/var/lib/rancher/k3s/agent/etc/containerd/certs.d",
            ),
            (
                "/var/run/k3s/containerd/containerd.sock",
                "/var/lib/rancher/k3s/agent/etc/containerd/certs.d",
            ),
            ("/run/k0s/containerd.sock", "/etc/k0s/containerd.d/certs.d"),
        ] {
            let files = RegistryFiles::of(Path::new(socket));
            assert_eq!(files.certs_d.first(), Some(&first), "{socket}");
        }
    }
}
