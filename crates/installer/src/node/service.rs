//! The unit that starts kubelet, and what has to be known to lead it back: less than an install asks for.

use std::ffi::OsStr;
use std::net::SocketAddr;

use super::{Kind, Kubelet, Node, OUR_DROP_IN, UNITS, Unit, is_ours};
use crate::Error;
use crate::ledger::Ledger;
use crate::root::Root;

/// What starts this node's kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletService {
    /// Of which kind.
    pub kind: Kind,
    /// The unit: `kubelet.service`, `k3s-agent.service`.
    pub unit: String,
    /// Where kubelet answers `/healthz` on this machine; `None` where it is told not to.
    pub healthz: Option<SocketAddr>,
}

impl KubeletService {
    /// The one that `install` has led to the shim, by its record; `None` where that unit is gone. What else stands on the
    /// node is not asked: a second runtime, another kind's unit, or no Kubernetes any more must keep nobody from leaving.
    ///
    /// # Errors
    /// When the record or a file of the unit can't be read.
    pub fn led(root: &Root) -> Result<Option<Self>, Error> {
        for name in units(&Ledger::load(root)?) {
            let known = UNITS.iter().find(|(_, unit)| *unit == name);
            if let (Some((kind, _)), Some(unit)) = (known, Unit::load(root, &name)?) {
                let kubelet = Kubelet::of(root, *kind, &unit)?;
                return Ok(Some(Self {
                    kind: *kind,
                    unit: unit.name,
                    healthz: kubelet.healthz(),
                }));
            }
        }
        Ok(None)
    }

    /// Where kubelet is told to dial the shim's link, when it is: as the files say now.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn told_to_dial_us(&self, root: &Root) -> Result<Option<String>, Error> {
        let Some(unit) = Unit::load(root, &self.unit)? else {
            return Ok(None);
        };
        let kubelet = Kubelet::of(root, self.kind, &unit)?;
        let told = [kubelet.image_endpoint, kubelet.runtime_endpoint];
        Ok(told
            .into_iter()
            .flatten()
            .find_map(|(endpoint, place)| is_ours(&endpoint).then_some(place)))
    }
}

impl From<&Node> for KubeletService {
    fn from(node: &Node) -> Self {
        Self {
            kind: node.kind,
            unit: node.unit.clone(),
            healthz: node.healthz,
        }
    }
}

/// The units of which a drop-in of ours is recorded.
fn units(ledger: &Ledger) -> Vec<String> {
    let wiring = ledger.files.iter().filter(|(_, entry)| entry.wiring);
    let drop_ins = wiring.filter(|(path, _)| path.file_name() == Some(OsStr::new(OUR_DROP_IN)));
    drop_ins
        .filter_map(|(path, _)| {
            let folder = path.parent()?.file_name()?.to_str()?;
            folder.strip_suffix(".d").map(str::to_owned)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::transaction::{install, unwire};
    use crate::trees;
    use crate::wiring::{self, Scope};

    fn installed(tree: &trees::Tree) -> Node {
        let node = Node::look(&tree.root()).unwrap();
        let wanted = wiring::wanted(&tree.root(), &node, Scope::Images).unwrap();
        install(&tree.root(), &wanted).unwrap();
        node
    }

    #[test]
    fn the_record_knows_the_unit_on_every_kind_of_node() {
        for (name, tree) in trees::all() {
            let tree = tree();
            assert_eq!(KubeletService::led(&tree.root()).unwrap(), None, "{name}");
            let node = installed(&tree);
            let led = KubeletService::led(&tree.root()).unwrap().unwrap();
            assert_eq!(led.unit, node.unit, "{name}");
            assert_eq!(led.healthz, node.healthz, "{name}");
        }
    }

    #[test]
    fn another_unit_a_second_runtime_or_no_kubelet_any_more() {
        let tree = trees::kubeadm_deb();
        let node = installed(&tree);
        let led = KubeletService::led(&tree.root()).unwrap();
        tree.write(
            "/etc/systemd/system/k3s.service",
            "[Service]\nExecStart=/k3s\n",
        );
        tree.write("/run/containerd/containerd.sock", "");
        tree.write("/var/run/crio/crio.sock", "");
        assert!(Node::look(&tree.root()).is_err());
        assert_eq!(KubeletService::led(&tree.root()).unwrap(), led);
        fs::remove_file(tree.place("/usr/lib/systemd/system/kubelet.service")).unwrap();
        assert_eq!(KubeletService::led(&tree.root()).unwrap(), None);
        assert_eq!(node.unit, "kubelet.service");
    }

    #[test]
    fn files_that_are_not_ours_may_lead_to_the_link() {
        let tree = trees::kubeadm_deb();
        installed(&tree);
        let led = KubeletService::led(&tree.root()).unwrap().unwrap();
        let told = || led.told_to_dial_us(&tree.root()).unwrap();
        assert_eq!(
            told().as_deref(),
            Some("KUBELET_EXTRA_ARGS in /etc/default/kubelet")
        );
        unwire(&tree.root()).unwrap();
        assert_eq!(told(), None);
        let flags = "/var/lib/kubelet/kubeadm-flags.env";
        tree.write(
            flags,
            "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///var/run/image-cri-shim.sock\"\n",
        );
        assert_eq!(told(), Some(format!("KUBELET_KUBEADM_ARGS in {flags}")));
    }
}
