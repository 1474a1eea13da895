//! The files that lead a node's kubelet to the shim: own files where the node's own mechanics allow it.

use std::path::{Path, PathBuf};

use crate::node::{self, Kind, Node, Unit, kubelet};
use crate::root::Root;
use crate::transaction::{Content, Wanted};
use crate::{Error, LINK, env_file, flags};

const IMAGE_FLAG: &str = "image-service-endpoint";
const RUNTIME_FLAG: &str = "container-runtime-endpoint";

/// What to lead to the shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The image service only: a shim that is down costs new pulls at most, never a running container.
    Images,
    /// The runtime service too.
    Both,
}

/// The endpoint that kubelet is given.
pub fn endpoint() -> String {
    format!("unix://{LINK}")
}

/// The files by which `node`'s kubelet dials the shim. None where it does so already, by a file that is not
/// ours.
///
/// # Errors
/// When kubelet is told to use another image service, when the kind has no way for `scope`, or when a file
/// can't be read.
pub fn wanted(root: &Root, node: &Node, scope: Scope) -> Result<Vec<Wanted>, Error> {
    if let Some((endpoint, place)) = &node.image_endpoint
        && !node::is_ours(endpoint)
    {
        return Err(Error::Unsupported(format!(
            "kubelet uses another image service already: {endpoint}, by {place}; take that setting away first, or leave this node to the webhook"
        )));
    }
    if scope == Scope::Both && !matches!(node.kind, Kind::Kubeadm | Kind::Kubelet) {
        return Err(Error::Unsupported(format!(
            "--both is not possible on {}: it starts its runtime itself only while kubelet's runtime endpoint is its own",
            node.kind
        )));
    }
    match node.kind {
        Kind::Kubeadm | Kind::Kubelet => under_systemd(root, node, scope),
        Kind::K3s => k3s(root, node),
        Kind::Rke2 => Ok(vec![
            after_the_shim(node, ""),
            file(
                "/etc/rancher/rke2/config.yaml.d/90-image-cri-shim.yaml",
                format!(
                    "# kubelet's image service; written by image-cri-shim install\n\"kubelet-arg+\":\n  - \"{IMAGE_FLAG}={}\"\n",
                    endpoint()
                ),
            ),
        ]),
        Kind::K0s => k0s(root, node),
    }
}

fn k3s(root: &Root, node: &Node) -> Result<Vec<Wanted>, Error> {
    let mut texts = Vec::new();
    let folder = Path::new("/etc/rancher/k3s");
    let drop_ins = folder.join("config.yaml.d");
    let names = root
        .list(&drop_ins)
        .map_err(|e| Error::at("read", &drop_ins, e))?;
    let files = names.iter().map(|name| drop_ins.join(name));
    for path in std::iter::once(folder.join("config.yaml")).chain(files) {
        texts.extend(root.read(&path).map_err(|e| Error::at("read", &path, e))?);
    }
    let unit = Unit::load(root, &node.unit)?;
    let version = match &unit {
        Some(unit) => node::k3s::version(root, unit)
            .map_err(|e| Error::at("read the program of", Path::new(&node.unit), e))?,
        None => None,
    };
    if let Some(version) = version.filter(|version| !version.has_image_service_endpoint()) {
        return Err(Error::Unsupported(format!(
            "k3s {version} has no setting for kubelet's image service; it needs 1.25.15, 1.26.10, 1.27.7, 1.28.3 or newer. Upgrade k3s, or leave this node to the webhook"
        )));
    }
    let started_with = unit.iter().flat_map(|unit| unit.values("ExecStart"));
    let stargz = started_with
        .flat_map(|start| flags::values(start, "snapshotter"))
        .chain(
            texts
                .iter()
                .filter_map(|text| kubelet::top_level(text, "snapshotter")),
        )
        .any(|snapshotter| snapshotter == "stargz");
    if stargz {
        return Err(Error::Unsupported(format!(
            "k3s runs with `snapshotter: stargz`, for which {IMAGE_FLAG} means the snapshotter's own image service; use another snapshotter, or the cache by the runtime's own mirrors (docs/install.md)"
        )));
    }
    Ok(vec![
        after_the_shim(node, ""),
        file(
            "/etc/rancher/k3s/config.yaml.d/90-image-cri-shim.yaml",
            format!(
                "# kubelet's image service; written by image-cri-shim install\n{IMAGE_FLAG}: \"{}\"\n",
                endpoint()
            ),
        ),
    ])
}

/// k0s hands `--kubelet-extra-args` to kubelet after its own arguments.
fn k0s(root: &Root, node: &Node) -> Result<Vec<Wanted>, Error> {
    let start = start_of(root, node)?;
    let before = flags::values(&start, "kubelet-extra-args").pop();
    let arguments = flags::appended(
        before.as_deref().unwrap_or_default(),
        IMAGE_FLAG,
        &endpoint(),
    );
    // The last of two wins, so the old one need not be cut out of a line that somebody wrote.
    let start = format!(
        "{start} --kubelet-extra-args=\"{}\"",
        arguments.replace('"', "\\\"")
    );
    Ok(vec![after_the_shim(node, &restart_line(&start))])
}

fn under_systemd(root: &Root, node: &Node, scope: Scope) -> Result<Vec<Wanted>, Error> {
    let Some(unit) = Unit::load(root, &node.unit)? else {
        return Err(Error::Unsupported(format!(
            "{} is not there any more",
            node.unit
        )));
    };
    // `${…}` would hand all of it to kubelet as one argument (systemd.service(5)): one flag more would break it.
    let variable = format!("${}", kubelet::EXTRA_ARGS);
    let starts = unit.values("ExecStart");
    let start = starts.last().copied().unwrap_or_default();
    let extra = extra_args(root, &unit)?;
    match extra {
        Some((path, arguments)) if start.contains(&variable) => {
            let text = root
                .read(&path)
                .map_err(|e| Error::at("read", &path, e))?
                .unwrap_or_default();
            let wired = with_endpoints(&arguments, scope);
            // Also where it is wired already: a file that is ours must stay wanted. One that is not ours is left
            // as it is, and unrecorded.
            let text = if wired == arguments {
                text
            } else {
                env_file::with(&path, text, kubelet::EXTRA_ARGS, &wired)?
            };
            Ok(vec![
                after_the_shim(node, ""),
                Wanted {
                    path,
                    content: Content::File {
                        bytes: text.into_bytes(),
                        mode: 0o644,
                    },
                    wiring: true,
                    keep_existing: false,
                    shared: true,
                },
            ])
        }
        _ => {
            let start = start_of(root, node)?;
            let wired = with_endpoints(&start, scope);
            let line = if wired == start {
                String::new()
            } else {
                restart_line(&wired)
            };
            Ok(vec![after_the_shim(node, &line)])
        }
    }
}

/// `arguments` with our endpoints, unless they are there.
fn with_endpoints(arguments: &str, scope: Scope) -> String {
    let mut wired = arguments.to_owned();
    let names: &[&str] = match scope {
        Scope::Images => &[IMAGE_FLAG],
        Scope::Both => &[IMAGE_FLAG, RUNTIME_FLAG],
    };
    for name in names {
        let there = flags::values(&wired, name).pop();
        if !there.is_some_and(|endpoint| node::is_ours(&endpoint)) {
            wired = flags::appended(&wired, name, &endpoint());
        }
    }
    wired
}

/// The file by which kubelet's extra arguments are set, with these arguments: the last one that sets them now, since it
/// takes the place of all before it, else the one that is there for it. `None` where only the command itself is certain to
/// be heard.
fn extra_args(root: &Root, unit: &Unit) -> Result<Option<(PathBuf, String)>, Error> {
    let files = kubelet::environment_files(unit);
    // Patterns and specifiers (systemd.exec(5)): what they stand for may come last.
    let is_plain = |file: &PathBuf| !file.to_string_lossy().contains(['*', '?', '[', '%']);
    if !files.iter().all(is_plain) {
        return Ok(None);
    }
    let known = kubelet::variables(root, unit)?
        .into_iter()
        .find(|variable| variable.name == kubelet::EXTRA_ARGS);
    let (arguments, sets_it) =
        known.map_or_else(Default::default, |known| (known.value, known.file));
    let file = match sets_it {
        // Kubeadm writes it anew.
        Some(file) if file.ends_with("kubeadm-flags.env") => None,
        Some(file) => Some(file),
        None => files
            .into_iter()
            .rfind(|file| file.ends_with("default/kubelet") || file.ends_with("sysconfig/kubelet")),
    };
    Ok(file.map(|file| (file, arguments)))
}

fn start_of(root: &Root, node: &Node) -> Result<String, Error> {
    let unit = Unit::load(root, &node.unit)?;
    unit.as_ref()
        .and_then(|unit| {
            unit.values("ExecStart")
                .last()
                .map(|start| (*start).to_owned())
        })
        .ok_or_else(|| {
            Error::Unsupported(format!(
                "{} has no ExecStart; is it a unit that starts kubelet?",
                node.unit
            ))
        })
}

fn restart_line(start: &str) -> String {
    format!("\n[Service]\nExecStart=\nExecStart={start}\n")
}

/// Kubelet starts after the shim where both start, and without it where it can't: `Wants=`, never
/// `Requires=`.
fn after_the_shim(node: &Node, more: &str) -> Wanted {
    let path = Unit::our_drop_in_path(&node.unit);
    Wanted {
        path,
        content: Content::File {
            bytes: format!(
                "# Written by image-cri-shim install; removed by image-cri-shim uninstall.\n[Unit]\nWants=image-cri-shim.service image-cri-shim-bypass.socket\nAfter=image-cri-shim.service image-cri-shim-bypass.socket\n{more}"
            )
            .into_bytes(),
            mode: 0o644,
        },
        wiring: true,
        keep_existing: false,
        shared: false,
    }
}

fn file(path: &str, text: String) -> Wanted {
    Wanted {
        path: PathBuf::from(path),
        content: Content::File {
            bytes: text.into_bytes(),
            mode: 0o600,
        },
        wiring: true,
        keep_existing: false,
        shared: false,
    }
}

#[cfg(test)]
mod tests;
