//! A systemd unit as its files say it: the unit file that wins, and its drop-ins in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::root::Root;

/// Where units are looked for; the first that has a file wins (systemd.unit(5)).
const FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Drop-ins of ours: what a unit says without us is what is looked at.
pub(crate) const OUR_DROP_IN: &str = "90-image-cri-shim.conf";

/// One unit.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    /// Its name: `kubelet.service`.
    pub(crate) name: String,
    /// Unit file and drop-ins, in the order in which they are read.
    pub(crate) files: Vec<PathBuf>,
    /// Their `Key=value` lines in order, with continuations joined.
    settings: Vec<(String, String)>,
}

impl Unit {
    /// The unit of that name; `None` where there is no unit file, or it is masked.
    pub(crate) fn load(root: &Root, name: &str) -> Result<Option<Self>, Error> {
        let Some(file) = FOLDERS
            .iter()
            .map(|folder| Path::new(folder).join(name))
            .find(|path| root.exists(path))
        else {
            return Ok(None);
        };
        let mut unit = Self {
            name: name.to_owned(),
            files: Vec::new(),
            settings: Vec::new(),
        };
        unit.read(root, file)?;
        if unit.settings.is_empty() {
            return Ok(None);
        }
        // By file name over all folders; the same name counts once, in the first folder that has it.
        let mut drop_ins = BTreeMap::new();
        for folder in FOLDERS {
            let folder = Path::new(folder).join(format!("{name}.d"));
            let names = root
                .list(&folder)
                .map_err(|e| Error::at("read", &folder, e))?;
            for file in names.into_iter().filter(|file| file.ends_with(".conf")) {
                let path = folder.join(&file);
                drop_ins.entry(file).or_insert(path);
            }
        }
        drop_ins.remove(OUR_DROP_IN);
        for path in drop_ins.into_values() {
            unit.read(root, path)?;
        }
        Ok(Some(unit))
    }

    /// Where our own drop-in of the unit `name` stands.
    pub(crate) fn our_drop_in_path(name: &str) -> PathBuf {
        Path::new(FOLDERS[0])
            .join(format!("{name}.d"))
            .join(OUR_DROP_IN)
    }

    /// What our own drop-in of the unit `name` says; `None` where there is none.
    pub(crate) fn our_drop_in(root: &Root, name: &str) -> Result<Option<Self>, Error> {
        let path = Self::our_drop_in_path(name);
        if !root.exists(&path) {
            return Ok(None);
        }
        let mut unit = Self {
            name: name.to_owned(),
            files: Vec::new(),
            settings: Vec::new(),
        };
        unit.read(root, path)?;
        Ok(Some(unit))
    }

    /// The values of a key that are in force: an empty one takes back those before it.
    pub(crate) fn values(&self, key: &str) -> Vec<&str> {
        let mut values = Vec::new();
        for (_, value) in self.settings.iter().filter(|(name, _)| name == key) {
            if value.is_empty() {
                values.clear();
            } else {
                values.push(value.as_str());
            }
        }
        values
    }

    fn read(&mut self, root: &Root, path: PathBuf) -> Result<(), Error> {
        let text = root
            .read(&path)
            .map_err(|e| Error::at("read", &path, e))?
            .unwrap_or_default();
        self.settings.extend(settings(&text));
        self.files.push(path);
        Ok(())
    }
}

fn settings(text: &str) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    let mut line = String::new();
    for part in text.lines() {
        let trimmed = part.trim();
        // Comments may stand between the parts of a continued line.
        if trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(continued) = trimmed.strip_suffix('\\') {
            line.push_str(continued);
            line.push(' ');
            continue;
        }
        line.push_str(trimmed);
        if let Some((key, value)) = line.split_once('=')
            && !line.starts_with('[')
        {
            settings.push((key.trim().to_owned(), value.trim().to_owned()));
        }
        line.clear();
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ins_come_in_order_and_an_empty_value_takes_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let write = |path: &str, text: &str| {
            let place = dir.path().join(path);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(place, text).unwrap();
        };
        write(
            "usr/lib/systemd/system/kubelet.service",
            "[Service]\nExecStart=/usr/bin/kubelet\n",
        );
        write(
            "usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf",
            "[Service]\nExecStart=\nExecStart=/usr/bin/kubelet \\\n# why\n  $KUBELET_EXTRA_ARGS\n",
        );
        write(
            "etc/systemd/system/kubelet.service.d/05-first.conf",
            "[Service]\nExecStart=/never\n",
        );
        write(
            "etc/systemd/system/kubelet.service.d/90-image-cri-shim.conf",
            "[Service]\nExecStart=/ours\n",
        );
        let unit = Unit::load(&root, "kubelet.service").unwrap().unwrap();
        assert_eq!(
            unit.values("ExecStart"),
            ["/usr/bin/kubelet  $KUBELET_EXTRA_ARGS"]
        );
        assert_eq!(unit.files.len(), 3);
        assert!(Unit::load(&root, "k3s.service").unwrap().is_none());
        std::os::unix::fs::symlink(
            "/dev/null",
            dir.path().join("etc/systemd/system/k3s.service"),
        )
        .unwrap();
        assert!(Unit::load(&root, "k3s.service").unwrap().is_none());
    }
}
