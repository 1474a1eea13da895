//! Whether the node's files lead kubelet to the shim. Lost wiring looks like a shim that nobody calls.

use std::path::{Path, PathBuf};

use installer::transaction::{self, Content};
use installer::wiring::{self, Scope};
use installer::{Error, Kind, LINK, Node, is_ours};

use crate::host::Host;
use crate::patience::Timely;
use crate::report::{Area, Line};

/// What the node's files say.
pub(crate) struct Facts {
    /// What stands on the node; why it can't be told.
    pub(crate) node: Result<Node, String>,
    /// Whether the installer has been here; why its record can't be read.
    is_installed: Result<bool, String>,
    /// The files by which kubelet would be led to the shim.
    files: Vec<File>,
    /// Why it can't be led there.
    refused: Option<String>,
}

/// A file by which kubelet would be led to the shim.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    path: PathBuf,
    /// Whether kubelet's endpoint stands in it when it is as it should be, and not the order of units alone.
    should_name_us: bool,
    names_us: bool,
    is_as_wanted: bool,
}

/// On the thread that calls.
pub(crate) fn gather(host: &Host) -> Facts {
    let root = &host.root;
    let node = Node::look(root);
    let is_installed = transaction::is_installed(root).map_err(|error| error.to_string());
    let wanted = match &node {
        Ok(node) if node.both => wiring::wanted(root, node, Scope::Both),
        Ok(node) => wiring::wanted(root, node, Scope::Images),
        Err(_) => Ok(Vec::new()),
    };
    let (files, refused) = match wanted {
        Ok(wanted) => {
            let files = wanted.iter().filter(|wanted| wanted.wiring);
            let files = files.filter_map(|wanted| match &wanted.content {
                Content::File { bytes, .. } => Some(file(host, &wanted.path, bytes)),
                Content::Link(_) => None,
            });
            (files.collect(), None)
        }
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    Facts {
        node: node.map_err(|error: Error| error.to_string()),
        is_installed,
        files,
        refused,
    }
}

fn file(host: &Host, path: &Path, wanted: &[u8]) -> File {
    let text = host.text(path).unwrap_or_default();
    File {
        path: path.to_owned(),
        should_name_us: names_us(&String::from_utf8_lossy(wanted)),
        names_us: names_us(&text),
        is_as_wanted: text.as_bytes() == wanted,
    }
}

fn names_us(text: &str) -> bool {
    let mut lines = text.lines();
    lines.any(|line| !line.trim_start().starts_with('#') && line.contains(LINK))
}

/// The command that leads kubelet of such a node to the shim.
pub(crate) fn install(node: Option<&Node>) -> String {
    let whole = node.is_some_and(|node| matches!(node.kind, Kind::K3s | Kind::Rke2 | Kind::K0s));
    let more = match whole {
        true => " --yes-restart-k3s",
        false => "",
    };
    format!("{} --restart-kubelet{more}", install_files(node))
}

/// The command that writes the files alone, for as much of kubelet as goes through the shim now.
pub(crate) fn install_files(node: Option<&Node>) -> String {
    let both = match node.is_some_and(|node| node.both) {
        true => " --both",
        false => "",
    };
    format!("image-cri-shim install{both}")
}

impl Facts {
    /// The node, where it is known.
    pub(crate) fn node(&self) -> Option<&Node> {
        self.node.as_ref().ok()
    }

    /// The files by which kubelet is led to the shim.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let files = self.files.iter().filter(|file| file.names_us);
        files.map(|file| file.path.clone()).collect()
    }

    /// Whether its files lead kubelet to the shim.
    pub(crate) fn leads_here(&self) -> bool {
        self.place().is_some()
    }

    /// Where that is said.
    fn place(&self) -> Option<String> {
        let told = self.node().and_then(|node| node.image_endpoint.as_ref());
        match told {
            Some((endpoint, place)) if is_ours(endpoint) => Some(place.clone()),
            Some(_) => None,
            None => {
                let ours = self.files.iter().find(|file| file.names_us);
                ours.map(|file| file.path.display().to_string())
            }
        }
    }
}

/// The lines of it.
pub(crate) fn judge(facts: &Timely<Facts>) -> Vec<Line> {
    const CHECK: &str = "wiring";
    let bad = |text: String, mend: String| vec![Line::bad(Area::Wiring, CHECK, text, mend)];
    let facts = match facts {
        Ok(facts) => facts,
        Err(late) => {
            return bad(
                format!("the files of this node can't be read: {late}"),
                "findmnt -t nfs,nfs4,cifs,fuse   # mend or unmount the file system that hangs"
                    .to_owned(),
            );
        }
    };
    let node = match &facts.node {
        Ok(node) => node,
        Err(why) => return bad(why.clone(), "image-cri-shim install --dry-run".to_owned()),
    };
    let mend = install(Some(node));
    if let Some(why) = &facts.refused {
        let place = node.image_endpoint.as_ref().map(|(_, place)| place);
        let first = match place {
            Some(place) => format!("take image-service-endpoint out of {place}, then: {mend}"),
            None => "image-cri-shim install --dry-run".to_owned(),
        };
        return bad(why.clone(), first);
    }
    let mut lines = Vec::new();
    match facts.place() {
        Some(place) => lines.push(Line::ok(
            Area::Wiring,
            CHECK,
            format!("{}: kubelet is told to dial {LINK}, by {place}", node.kind),
        )),
        None => {
            let files = facts.files.iter().filter(|file| file.should_name_us);
            let files: Vec<_> = files.map(|file| file.path.display().to_string()).collect();
            let files = files.join(", ");
            let text = match facts.is_installed {
                Ok(true) => format!(
                    "the wiring is lost: {files} was written anew since `install`, and kubelet is no longer told to dial {LINK}; its images do not come through the shim"
                ),
                _ => format!(
                    "kubelet is not led to the shim: nothing tells it to dial {LINK} ({files} would)"
                ),
            };
            lines.push(Line::bad(Area::Wiring, CHECK, text, mend));
        }
    }
    match &facts.is_installed {
        Err(why) => lines.push(Line::bad(
            Area::Wiring,
            "install.record",
            why.clone(),
            "restore /var/lib/image-cri-shim/install from a backup; until then `uninstall` can't put this node back",
        )),
        Ok(true) if facts.leads_here() => {
            let other = facts.files.iter().find(|file| !file.is_as_wanted);
            if let Some(file) = other {
                lines.push(Line::warn(
                    Area::Wiring,
                    "wiring.files",
                    format!(
                        "{} is not as `install` would write it now: the unit that it belongs to has changed since, or somebody has edited it",
                        file.path.display()
                    ),
                    install_files(Some(node)),
                ));
            }
        }
        Ok(_) => {}
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::report::Verdict;

    const UNIT: &str = "[Service]\nEnvironmentFile=-/etc/default/kubelet\nExecStart=/usr/bin/kubelet $KUBELET_EXTRA_ARGS\n";

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(extra_args: &str) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            tree.write("etc/systemd/system/kubelet.service", UNIT);
            tree.write("etc/default/kubelet", extra_args);
            tree
        }

        fn write(&self, path: &str, text: &str) {
            let place = self.0.path().join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, text).unwrap();
        }

        fn first(&self) -> Line {
            let host = Host::new(self.0.path(), false);
            judge(&Ok(gather(&host))).remove(0)
        }
    }

    #[test]
    fn wired_lost_never_wired_and_led_elsewhere() {
        let tree = Tree::new(&format!(
            "KUBELET_EXTRA_ARGS=--image-service-endpoint=unix://{LINK}\n"
        ));
        let line = tree.first();
        assert_eq!(line.verdict, Verdict::Ok, "{line:?}");
        assert!(
            line.text
                .contains("KUBELET_EXTRA_ARGS in /etc/default/kubelet")
        );

        tree.write("etc/default/kubelet", "KUBELET_EXTRA_ARGS=\n");
        let line = tree.first();
        assert_eq!(line.verdict, Verdict::Bad);
        assert!(
            line.text.contains("(/etc/default/kubelet would)"),
            "{line:?}"
        );

        let ledger = format!("{}/ledger.json", installer::ledger::FOLDER);
        tree.write(
            ledger.trim_start_matches('/'),
            r#"{"directories":["/var/lib/image-cri-shim"],"files":{}}"#,
        );
        let line = tree.first();
        assert!(
            line.text
                .starts_with("the wiring is lost: /etc/default/kubelet"),
            "{line:?}"
        );
        assert_eq!(
            line.mend.as_deref(),
            Some("image-cri-shim install --restart-kubelet")
        );

        tree.write(
            "etc/default/kubelet",
            "KUBELET_EXTRA_ARGS=--image-service-endpoint=unix:///run/other.sock\n",
        );
        let line = tree.first();
        assert_eq!(line.verdict, Verdict::Bad);
        assert!(line.text.contains("/run/other.sock"), "{line:?}");
        assert!(
            line.mend
                .unwrap()
                .starts_with("take image-service-endpoint out of")
        );
    }

    #[test]
    fn a_drop_in_of_ours_leads_here_also_when_it_is_old() {
        let tree = Tree::new("");
        let unit = "[Service]\nExecStart=/opt/kubelet --v=2\n";
        tree.write("etc/systemd/system/kubelet.service", unit);
        tree.write(
            "etc/systemd/system/kubelet.service.d/90-image-cri-shim.conf",
            &format!("[Service]\nExecStart=\nExecStart=/opt/kubelet --image-service-endpoint=unix://{LINK}\n"),
        );
        let ledger = format!("{}/ledger.json", installer::ledger::FOLDER);
        tree.write(
            ledger.trim_start_matches('/'),
            r#"{"directories":["/var/lib/image-cri-shim"],"files":{}}"#,
        );
        let host = Host::new(tree.0.path(), false);
        let lines = judge(&Ok(gather(&host)));
        let verdicts: Vec<_> = lines.iter().map(|line| line.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Warn], "{lines:?}");
    }

    #[test]
    fn containers_through_the_shim_too_are_as_wanted() {
        let tree = Tree::new("");
        let start = "/opt/kubelet --container-runtime-endpoint=unix:///run/a.sock";
        let unit = format!("[Service]\nExecStart={start}\n");
        tree.write("etc/systemd/system/kubelet.service", &unit);
        let host = Host::new(tree.0.path(), false);
        let node = Node::look(&host.root).unwrap();
        let both = wiring::wanted(&host.root, &node, Scope::Both).unwrap();
        transaction::install(&host.root, &both).unwrap();
        let lines = judge(&Ok(gather(&host)));
        let verdicts: Vec<_> = lines.iter().map(|line| line.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok], "{lines:?}");
        // What mends it asks for the same again.
        tree.write(
            "etc/systemd/system/kubelet.service",
            &unit.replace("a.sock", "a.sock --v=2"),
        );
        let lines = judge(&Ok(gather(&host)));
        assert_eq!(
            lines[1].mend.as_deref(),
            Some("image-cri-shim install --both"),
            "{lines:?}"
        );
        let node = Node::look(&host.root).unwrap();
        assert_eq!(
            install(Some(&node)),
            "image-cri-shim install --both --restart-kubelet"
        );
    }

    /// Sealos leads kubelet's containers to the shim's link by kubeadm's file, and `install` adds what is missing to its own.
    #[test]
    fn containers_that_a_file_of_others_leads_here_need_no_more_of_install() {
        let tree = Tree::new("KUBELET_EXTRA_ARGS=\n");
        let unit = UNIT.replace(
            "[Service]\n",
            "[Service]\nEnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\n",
        );
        let unit = unit.replace("kubelet $", "kubelet $KUBELET_KUBEADM_ARGS $");
        tree.write("etc/systemd/system/kubelet.service", &unit);
        tree.write(
            "var/lib/kubelet/kubeadm-flags.env",
            &format!("KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix://{LINK}\"\n"),
        );
        let host = Host::new(tree.0.path(), false);
        let node = Node::look(&host.root).unwrap();
        let images = wiring::wanted(&host.root, &node, Scope::Images).unwrap();
        transaction::install(&host.root, &images).unwrap();
        let lines = judge(&Ok(gather(&host)));
        let verdicts: Vec<_> = lines.iter().map(|line| line.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok], "{lines:?}");
        // Once it is asked for, it stays asked for.
        let node = Node::look(&host.root).unwrap();
        let both = wiring::wanted(&host.root, &node, Scope::Both).unwrap();
        transaction::install(&host.root, &both).unwrap();
        let node = Node::look(&host.root).unwrap();
        assert_eq!(install_files(Some(&node)), "image-cri-shim install --both");
        let lines = judge(&Ok(gather(&host)));
        assert_eq!(lines.len(), 1, "{lines:?}");
    }

    #[test]
    fn no_kubelet_at_all() {
        let tree = tempfile::tempdir().unwrap();
        let facts = gather(&Host::new(tree.path(), false));
        let lines = judge(&Ok(facts));
        assert!(lines[0].text.contains("no kubelet was found"), "{lines:?}");
        assert!(lines[0].mend.is_some());
    }
}
