//! What stands on a node: which distribution of Kubernetes, how its kubelet is started, which runtime it
//! talks to, and whether the predecessor is there.

pub(crate) mod k3s;
pub(crate) mod kubelet;
mod service;
mod unit;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::root::Root;
use crate::{DEFAULTS, Error, LINK, RUNTIME_VARIABLE, env_file, flags};

pub use kubelet::Kubelet;
pub use service::KubeletService;
pub(crate) use unit::{OUR_DROP_IN, Unit};

/// Kinds of nodes that can be wired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// kubelet as a systemd unit, configured by kubeadm.
    Kubeadm,
    /// kubelet as a systemd unit that somebody wrote.
    Kubelet,
    /// k3s, which has kubelet and containerd inside.
    K3s,
    /// RKE2, which starts kubelet and containerd itself.
    Rke2,
    /// k0s, which starts kubelet and containerd itself.
    K0s,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kubeadm => "kubeadm",
            Self::Kubelet => "a kubelet under systemd",
            Self::K3s => "k3s",
            Self::Rke2 => "RKE2",
            Self::K0s => "k0s",
        })
    }
}

/// One node, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Node {
    /// What kind it is.
    pub kind: Kind,
    /// The unit that starts kubelet, and that would have to be restarted: `kubelet.service`, `k3s-agent.service`.
    pub unit: String,
    /// The runtime's socket: what kubelet dials today, or what the kind's own runtime listens on.
    pub runtime: PathBuf,
    /// How [`Self::runtime`] was found, for people.
    pub runtime_from: String,
    /// Where kubelet is told to find the image service, when it is told: the value and the place.
    pub image_endpoint: Option<(String, String)>,
    /// Whether `install --both` has led kubelet to the shim: for its containers too, and not for images alone.
    pub both: bool,
    /// Where kubelet answers `/healthz` on this machine; `None` where it is told not to.
    pub healthz: Option<SocketAddr>,
    /// Whether the Go program of the same name is installed.
    pub predecessor: bool,
    /// Whether a package of ours is installed: its files are not written again.
    pub packaged: bool,
}

/// Where k3s serves Docker to its kubelet, when it is told to use that.
const K3S_CRI_DOCKERD: &str = "/run/k3s/cri-dockerd/cri-dockerd.sock";

/// Units that start a kubelet, by kind. A server's unit stands before an agent's.
const UNITS: [(Kind, &str); 7] = [
    (Kind::K3s, "k3s.service"),
    (Kind::K3s, "k3s-agent.service"),
    (Kind::Rke2, "rke2-server.service"),
    (Kind::Rke2, "rke2-agent.service"),
    (Kind::K0s, "k0scontroller.service"),
    (Kind::K0s, "k0sworker.service"),
    (Kind::Kubelet, "kubelet.service"),
];

impl Node {
    /// Finds out what stands in `root`.
    ///
    /// # Errors
    /// When no kubelet is found, when several kinds are, or several runtimes, or when a file can't be read.
    pub fn look(root: &Root) -> Result<Self, Error> {
        Self::look_with(root, None)
    }

    /// The same, where somebody has named the runtime's socket: it is not looked for.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn look_with(root: &Root, named: Option<&Path>) -> Result<Self, Error> {
        let mut found = Vec::new();
        for (kind, name) in UNITS {
            if let Some(unit) = Unit::load(root, name)? {
                found.push((kind, unit));
            }
        }
        let (mut kind, unit) = match found.len() {
            0 => {
                return Err(Error::Unsupported(format!(
                    "no kubelet was found: none of the units {} is there. On Talos and managed clusters use the webhook and the cache instead (docs/install.md)",
                    UNITS.map(|(_, name)| name).join(", ")
                )));
            }
            1 => found.remove(0),
            _ => {
                let names: Vec<_> = found.iter().map(|(_, unit)| unit.name.clone()).collect();
                return Err(Error::Unsupported(format!(
                    "several kinds of nodes are here: {}; remove the unit files of those that are not used",
                    names.join(", ")
                )));
            }
        };
        if kind == Kind::Kubelet
            && unit
                .files
                .iter()
                .any(|file| file.ends_with("10-kubeadm.conf"))
        {
            kind = Kind::Kubeadm;
        }
        let kubelet = Kubelet::of(root, kind, &unit)?;
        let (runtime, runtime_from) = match named {
            Some(socket) => (socket.to_owned(), "--runtime".to_owned()),
            None => runtime(root, kind, &kubelet)?,
        };
        Ok(Self {
            kind,
            both: is_led_with_both(root, &unit)?,
            unit: unit.name,
            runtime,
            runtime_from,
            healthz: kubelet.healthz(),
            image_endpoint: kubelet.image_endpoint,
            predecessor: root.exists("/etc/systemd/system/image-cri-shim.service")
                && root.exists("/usr/bin/image-cri-shim")
                && !root.exists(crate::ledger::FOLDER),
            packaged: root.exists("/usr/lib/systemd/system/image-cri-shim.service")
                || root.exists("/lib/systemd/system/image-cri-shim.service"),
        })
    }
}

/// Whether kubelet's containers go through the shim by what `install --both` writes: by kubelet's extra arguments, or by our
/// drop-in, without which a unit is read. Other files may name the shim too, as sealos has kubeadm's do; then an install of
/// images alone is all that was asked for.
fn is_led_with_both(root: &Root, unit: &Unit) -> Result<bool, Error> {
    let variables = kubelet::variables(root, unit)?;
    let extra_args = variables
        .iter()
        .filter(|variable| variable.name == kubelet::EXTRA_ARGS && variable.file.is_some())
        .map(|variable| variable.value.as_str());
    let ours = Unit::our_drop_in(root, &unit.name)?;
    let starts = ours.iter().flat_map(|ours| ours.values("ExecStart"));
    let mut endpoints = extra_args
        .chain(starts)
        .filter_map(|words| flags::values(words, "container-runtime-endpoint").pop());
    Ok(endpoints.any(|endpoint| is_ours(&endpoint)))
}

/// The runtime's socket.
fn runtime(root: &Root, kind: Kind, kubelet: &Kubelet) -> Result<(PathBuf, String), Error> {
    // K3s goes by this first.
    if let Some(place) = &kubelet.docker {
        return Ok((PathBuf::from(K3S_CRI_DOCKERD), place.clone()));
    }
    if let Some((endpoint, place)) = &kubelet.runtime_endpoint {
        if !is_ours(endpoint) {
            return Ok((socket(endpoint), place.clone()));
        }
        // The predecessor, or `--both`: the config knows what stands behind.
        let config = root
            .read("/etc/image-cri-shim.yaml")
            .map_err(|e| Error::Unsupported(e.to_string()))?
            .unwrap_or_default();
        if let Some(cri) = kubelet::top_level(&config, "cri") {
            return Ok((
                socket(&cri),
                "`cri:` in /etc/image-cri-shim.yaml".to_owned(),
            ));
        }
        if let Some((endpoint, place)) = &kubelet.behind {
            return Ok((socket(endpoint), place.clone()));
        }
        if let Some(known) = known_before(root)? {
            return Ok(known);
        }
    }
    let default = match kind {
        Kind::K3s | Kind::Rke2 => "/run/k3s/containerd/containerd.sock",
        Kind::K0s => "/run/k0s/containerd.sock",
        Kind::Kubeadm | Kind::Kubelet => {
            let known = [
                "/run/containerd/containerd.sock",
                "/var/run/crio/crio.sock",
                "/var/run/cri-dockerd.sock",
            ];
            let there: Vec<_> = known.into_iter().filter(|path| root.exists(path)).collect();
            match there.as_slice() {
                [] => "/run/containerd/containerd.sock",
                [only] => only,
                several => {
                    // Somebody has named it by then: the shim and its bypass go there.
                    if let Some(known) = known_before(root)? {
                        return Ok(known);
                    }
                    return Err(Error::Unsupported(format!(
                        "several container runtimes are here: {}; name the one that kubelet uses with --runtime",
                        several.join(", ")
                    )));
                }
            }
        }
    };
    Ok((PathBuf::from(default), format!("the default of {kind}")))
}

/// The runtime's socket as an earlier run has found it, or was told.
fn known_before(root: &Root) -> Result<Option<(PathBuf, String)>, Error> {
    let path = Path::new(DEFAULTS);
    let defaults = root.read(path).map_err(|e| Error::at("read", path, e))?;
    let known = env_file::value(&defaults.unwrap_or_default(), RUNTIME_VARIABLE);
    let known = known.filter(|known| !known.is_empty() && !is_ours(known));
    Ok(known.map(|known| (socket(&known), format!("{RUNTIME_VARIABLE} in {DEFAULTS}"))))
}

/// The path in an endpoint, with or without `unix://`.
pub(crate) fn socket(endpoint: &str) -> PathBuf {
    let path = endpoint
        .strip_prefix("unix://")
        .or_else(|| endpoint.strip_prefix("unix:"))
        .unwrap_or(endpoint);
    PathBuf::from(path)
}

/// The container runtime's socket as somebody names it: a path, or `unix://` and one. The shim and its bypass take a path
/// alone.
///
/// # Errors
/// When it is no absolute path, or the shim's own socket.
pub fn runtime_socket(named: &str) -> Result<PathBuf, Error> {
    let path = socket(named);
    if !path.is_absolute() {
        return Err(Error::Unsupported(format!(
            "{named} is no socket of a container runtime: write its absolute path, as /run/containerd/containerd.sock"
        )));
    }
    if is_ours(named) {
        return Err(Error::Unsupported(format!(
            "{named} is the shim's own socket; write the container runtime's, as /run/containerd/containerd.sock"
        )));
    }
    Ok(path)
}

/// Whether an endpoint is the shim's: the link, under either of its names.
pub fn is_ours(endpoint: &str) -> bool {
    let path = socket(endpoint);
    let path = path
        .strip_prefix("/var/run")
        .map_or(path.clone(), |rest| PathBuf::from("/run").join(rest));
    path == Path::new(LINK)
}
