//! Finding the container runtime's socket.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::bail;
use policy::config::Settings;

/// Where runtimes listen by default.
const KNOWN_SOCKETS: [&str; 3] = [
    "/var/run/cri-dockerd.sock",
    CONTAINERD,
    "/var/run/crio/crio.sock",
];
const CONTAINERD: &str = "/run/containerd/containerd.sock";

/// The runtime's socket: the configured one, else the only one that is there, else containerd's.
pub(crate) fn runtime_socket(settings: &Settings) -> anyhow::Result<PathBuf> {
    if let Some(configured) = &settings.runtime_socket {
        return Ok(configured.clone());
    }
    let found: Vec<_> = KNOWN_SOCKETS
        .into_iter()
        .map(Path::new)
        .filter(|path| is_socket(path) && *path != settings.shim_socket)
        .collect();
    choose(&found)
}

fn choose(found: &[&Path]) -> anyhow::Result<PathBuf> {
    match found {
        [] => Ok(PathBuf::from(CONTAINERD)),
        [only] => Ok(only.to_path_buf()),
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
pub(crate) fn is_socket(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_taken_none_is_containerd_and_several_are_listed() {
        let [dockerd, containerd, crio] = KNOWN_SOCKETS.map(Path::new);
        assert_eq!(choose(&[]).unwrap(), containerd);
        assert_eq!(choose(&[crio]).unwrap(), crio);
        let error = choose(&[dockerd, crio]).unwrap_err().to_string();
        assert!(
            error.contains("/var/run/cri-dockerd.sock, /var/run/crio/crio.sock"),
            "{error}"
        );
    }

    #[test]
    fn a_configured_socket_is_not_looked_for() {
        let (settings, _) = Settings::read("cri: unix:///nowhere.sock", &|_| None);
        assert_eq!(
            runtime_socket(&settings).unwrap(),
            Path::new("/nowhere.sock")
        );
    }
}
