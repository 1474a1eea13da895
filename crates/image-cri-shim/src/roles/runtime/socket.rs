//! Finding the container runtime's socket.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::bail;
use installer::RUNTIME_VARIABLE;
use policy::config::Settings;

/// Where runtimes listen by default, and a directory that is there before they listen.
const KNOWN: [Known; 6] = [
    Known {
        socket: "/var/run/cri-dockerd.sock",
        directories: &[],
    },
    // K3s with Docker.
    Known {
        socket: "/run/k3s/cri-dockerd/cri-dockerd.sock",
        directories: &[],
    },
    Known {
        socket: CONTAINERD,
        directories: &[],
    },
    // RKE2's is the same.
    Known {
        socket: "/run/k3s/containerd/containerd.sock",
        directories: &["/etc/rancher/k3s", "/etc/rancher/rke2", "/var/lib/rancher"],
    },
    Known {
        socket: "/run/k0s/containerd.sock",
        directories: &["/etc/k0s", "/var/lib/k0s"],
    },
    Known {
        socket: "/var/run/crio/crio.sock",
        directories: &["/etc/crio"],
    },
];
const CONTAINERD: &str = "/run/containerd/containerd.sock";

struct Known {
    socket: &'static str,
    directories: &'static [&'static str],
}

/// The runtime's socket: the configured one, else the one that `install` found, else the only one that is there.
/// Where none is there yet, the one of the distribution that is installed, since that starts its runtime after us; else containerd's.
///
/// # Errors
/// There are several, and only people know which one kubelet uses.
pub(crate) fn of(settings: &Settings) -> anyhow::Result<PathBuf> {
    if let Some(configured) = &settings.runtime_socket {
        return Ok(configured.clone());
    }
    if let Some(installed) = std::env::var_os(RUNTIME_VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(installed));
    }
    find(Path::new("/"), &settings.shim_socket)
}

/// Below `root`, which is `/` but in tests.
fn find(root: &Path, shim: &Path) -> anyhow::Result<PathBuf> {
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let identity = |path: &Path| path.metadata().map(|file| (file.dev(), file.ino())).ok();
    let ours = identity(shim);
    let mut found: Vec<PathBuf> = Vec::new();
    for known in &KNOWN {
        let socket = below(known.socket);
        let itself = identity(&socket);
        // By what it is: distributions link one place to another, and `/var/run` is `/run`.
        let is_known = found.iter().any(|other| identity(other) == itself);
        if is_there(&socket) && itself != ours && !is_known {
            found.push(socket);
        }
    }
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => {
            let is_installed =
                |known: &&Known| known.directories.iter().any(|dir| below(dir).is_dir());
            let installed = KNOWN.iter().find(is_installed);
            Ok(below(installed.map_or(CONTAINERD, |known| known.socket)))
        }
        several => {
            let list: Vec<_> = several.iter().map(|p| p.display().to_string()).collect();
            bail!(
                "several container runtimes are here: {}; write the one that kubelet uses as `cri:` in the config",
                list.join(", ")
            )
        }
    }
}

/// Whether a socket is there; nobody need be listening yet.
pub(crate) fn is_there(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A file system with these sockets and directories in it.
    fn root(sockets: &[&str], directories: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("run")).unwrap();
        fs::create_dir_all(root.path().join("var")).unwrap();
        symlink("../run", root.path().join("var/run")).unwrap();
        for directory in directories {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        for socket in sockets {
            let path = root.path().join(socket);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            UnixListener::bind(path).unwrap();
        }
        root
    }

    fn found(root: &tempfile::TempDir) -> String {
        let shim = root.path().join("run/image-cri-shim.sock");
        let found = find(root.path(), &shim).unwrap();
        let found = found.strip_prefix(root.path()).unwrap();
        format!("/{}", found.display())
    }

    #[test]
    fn the_only_one_that_is_there() {
        for known in KNOWN {
            let root = root(&[known.socket.trim_start_matches('/')], &[]);
            assert_eq!(found(&root), known.socket);
        }
    }

    #[test]
    fn none_yet_is_the_one_of_what_is_installed() {
        assert_eq!(found(&root(&[], &[])), CONTAINERD);
        for (directory, socket) in [
            (
                "var/lib/rancher/rke2",
                "/run/k3s/containerd/containerd.sock",
            ),
            ("etc/rancher/k3s", "/run/k3s/containerd/containerd.sock"),
            ("etc/k0s", "/run/k0s/containerd.sock"),
            ("etc/crio", "/var/run/crio/crio.sock"),
        ] {
            assert_eq!(found(&root(&[], &[directory])), socket);
        }
    }

    #[test]
    fn several_are_listed_and_one_by_two_names_is_one() {
        let two = ["run/cri-dockerd.sock", "run/crio/crio.sock"];
        let root = root(&two, &[]);
        let shim = root.path().join("run/shim.sock");
        let error = find(root.path(), &shim).unwrap_err().to_string();
        assert!(error.contains("/var/run/cri-dockerd.sock, "), "{error}");
        assert!(error.contains("/var/run/crio/crio.sock; write"), "{error}");
        // Our own socket is no runtime, whatever it is called.
        let crio = root.path().join("run/crio/crio.sock");
        fs::remove_file(&crio).unwrap();
        UnixListener::bind(&shim).unwrap();
        symlink(&shim, &crio).unwrap();
        let found = find(root.path(), &shim).unwrap();
        assert!(found.ends_with("var/run/cri-dockerd.sock"), "{found:?}");
        let linked = self::root(&["run/k3s/containerd/containerd.sock"], &["run/containerd"]);
        symlink(
            "../k3s/containerd/containerd.sock",
            linked.path().join("run/containerd/containerd.sock"),
        )
        .unwrap();
        assert_eq!(self::found(&linked), CONTAINERD);
    }

    #[test]
    fn a_configured_socket_is_not_looked_for() {
        let (settings, _) = Settings::read("cri: unix:///nowhere.sock", &|_| None);
        assert_eq!(of(&settings).unwrap(), Path::new("/nowhere.sock"));
    }
}
