//! The files of the shim itself: program, units, the link's script. A package brings them; `install` writes
//! them where no package did.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::node::Node;
use crate::root::Root;
use crate::transaction::{Content, Wanted};
use crate::{DEFAULTS, Error, RUNTIME_VARIABLE, env_file};

/// Where a package puts the program, and what the packaged units say.
const PACKAGED_PROGRAM: &str = "/usr/bin/image-cri-shim";
/// Where a package puts the script that turns the link.
const PACKAGED_SCRIPTS: &str = "/usr/lib/image-cri-shim";
/// The config.
pub const CONFIG: &str = "/etc/image-cri-shim.yaml";

/// Units by name, as the packages have them.
pub const UNITS: [(&str, &str); 4] = [
    (
        "image-cri-shim.service",
        include_str!("../../../packaging/systemd/image-cri-shim.service"),
    ),
    (
        "image-cri-shim-bypass.socket",
        include_str!("../../../packaging/systemd/image-cri-shim-bypass.socket"),
    ),
    (
        "image-cri-shim-bypass.service",
        include_str!("../../../packaging/systemd/image-cri-shim-bypass.service"),
    ),
    (
        "image-cri-shim-link.service",
        include_str!("../../../packaging/systemd/image-cri-shim-link.service"),
    ),
];
const TMPFILES: &str = include_str!("../../../packaging/tmpfiles.d/image-cri-shim.conf");
const LINK_SCRIPT: &str = include_str!("../../../packaging/lib/link");

/// Units that start at boot, and the target that starts them.
const ENABLED: [(&str, &str); 2] = [
    ("multi-user.target", "image-cri-shim.service"),
    ("sockets.target", "image-cri-shim-bypass.socket"),
];

const NEW_CONFIG: &str = "\
# Where this node's images come from. docs/rules.md has the rules, examples/ has complete configs.
# Nothing is routed until a registry or a redirect stands here.
registries: []
";

/// What `install` was told to put on the node.
pub struct Payload {
    /// The program's bytes.
    pub program: Vec<u8>,
    /// Where program and script go on a node without a package: `/usr/local`.
    pub prefix: PathBuf,
    /// The config of a node that has none of its own. It is followed by later runs as long as nobody edits the file. `None`
    /// leaves what stands there, whoever has written it; where nothing does, it is a config that routes nothing.
    pub config: Option<Vec<u8>>,
}

impl Payload {
    /// The shim's own files for `node`.
    ///
    /// # Errors
    /// When [`DEFAULTS`] can't be read, or nothing can be added to it; when [`CONFIG`] can't be read.
    pub fn wanted(&self, root: &Root, node: &Node) -> Result<Vec<Wanted>, Error> {
        let mut wanted = Vec::new();
        let units = if node.packaged {
            Path::new("/usr/lib/systemd/system")
        } else {
            let program = self.prefix.join("bin/image-cri-shim");
            let scripts = self.prefix.join("lib/image-cri-shim");
            wanted.push(file(&program, self.program.clone(), 0o755));
            wanted.push(file(&scripts.join("link"), LINK_SCRIPT.into(), 0o755));
            for (name, text) in UNITS {
                let text = text
                    .replace(PACKAGED_PROGRAM, &program.display().to_string())
                    .replace(PACKAGED_SCRIPTS, &scripts.display().to_string());
                let path = Path::new("/etc/systemd/system").join(name);
                wanted.push(file(&path, text.into_bytes(), 0o644));
            }
            let tmpfiles = Path::new("/etc/tmpfiles.d/image-cri-shim.conf");
            wanted.push(file(tmpfiles, TMPFILES.into(), 0o644));
            Path::new("/etc/systemd/system")
        };
        for (target, unit) in ENABLED {
            wanted.push(Wanted {
                path: PathBuf::from(format!("/etc/systemd/system/{target}.wants")).join(unit),
                content: Content::Link(units.join(unit)),
                wiring: false,
                keep_existing: root.exists(format!("/etc/systemd/system/{target}.wants/{unit}")),
                shared: false,
            });
        }
        // Closed to others where it is new: people put credentials there.
        wanted.push(Wanted {
            shared: true,
            ..file(
                Path::new(DEFAULTS),
                defaults(root, node)?.into_bytes(),
                0o600,
            )
        });
        wanted.push(Wanted {
            keep_existing: true,
            ..file(Path::new(CONFIG), self.config(root)?, 0o600)
        });
        Ok(wanted)
    }

    fn config(&self, root: &Root) -> Result<Vec<u8>, Error> {
        if let Some(config) = &self.config {
            return Ok(config.clone());
        }
        // A run that brings no config has nothing to say about the one that an earlier run has brought, or about what the
        // shim has merged into it: both count as ours, so they would be written over by anything else.
        let path = Path::new(CONFIG);
        let read = root.resolve(path).and_then(std::fs::read);
        match read {
            Ok(standing) => Ok(standing),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(NEW_CONFIG.into()),
            Err(error) => Err(Error::at("read", path, error)),
        }
    }
}

/// [`DEFAULTS`] with the runtime's socket. Everything else in it is the administrator's: credentials that the config
/// names, proxies.
fn defaults(root: &Root, node: &Node) -> Result<String, Error> {
    let path = Path::new(DEFAULTS);
    let runtime = node.runtime.display().to_string();
    let Some(text) = root.read(path).map_err(|e| Error::at("read", path, e))? else {
        return Ok(format!(
            "# The container runtime behind the shim and behind its bypass; written by image-cri-shim install.\n{RUNTIME_VARIABLE}={runtime}\n"
        ));
    };
    env_file::with(path, text, RUNTIME_VARIABLE, &runtime)
}

fn file(path: &Path, bytes: Vec<u8>, mode: u32) -> Wanted {
    Wanted {
        path: path.to_owned(),
        content: Content::File { bytes, mode },
        wiring: false,
        keep_existing: false,
        shared: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::{
        changes, install, install_by_steps, note_rewrite, uninstall, uninstall_by_steps,
    };
    use crate::trees;
    use crate::wiring::{self, Scope};

    fn whole(tree: &trees::Tree) -> Vec<Wanted> {
        let node = Node::look(&tree.root()).unwrap();
        let payload = Payload {
            program: b"program".to_vec(),
            prefix: PathBuf::from("/usr/local"),
            config: None,
        };
        let mut wanted = payload.wanted(&tree.root(), &node).unwrap();
        wanted.extend(wiring::wanted(&tree.root(), &node, Scope::Images).unwrap());
        wanted
    }

    #[test]
    fn everything_comes_and_goes() {
        for (_, tree) in trees::all() {
            let tree = tree();
            let before = tree.snapshot();
            install(&tree.root(), &whole(&tree)).unwrap();
            let unit = tree.text("/etc/systemd/system/image-cri-shim.service");
            assert!(
                unit.contains("ExecStart=/usr/local/bin/image-cri-shim serve --listen"),
                "{unit}"
            );
            // `/usr/bin/env` starts the script that turns the link.
            assert!(!unit.contains(PACKAGED_PROGRAM), "{unit}");
            assert!(!unit.contains("/usr/lib/"), "{unit}");
            assert!(
                tree.text(DEFAULTS).contains(
                    &Node::look(&tree.root())
                        .unwrap()
                        .runtime
                        .display()
                        .to_string()
                )
            );
            let installed = tree.snapshot();
            assert_eq!(install(&tree.root(), &whole(&tree)).unwrap(), []);
            assert_eq!(tree.snapshot(), installed);
            uninstall(&tree.root()).unwrap();
            assert_eq!(tree.snapshot(), before);
        }
    }

    #[test]
    fn what_else_stands_beside_the_runtime_is_kept() {
        const MINE: &str = "# mine\nHARBOR_TOKEN=x\nHTTPS_PROXY=http://proxy:3128\n";
        let tree = trees::kubeadm_deb();
        tree.write(DEFAULTS, MINE);
        tree.chmod(DEFAULTS, 0o640);
        let before = tree.snapshot();
        install(&tree.root(), &whole(&tree)).unwrap();
        let set = format!("{RUNTIME_VARIABLE}=\"/run/containerd/containerd.sock\"\n");
        assert_eq!(tree.text(DEFAULTS), format!("{MINE}{set}"));
        uninstall(&tree.root()).unwrap();
        assert_eq!(tree.snapshot(), before);

        // A line that comes later is no change of ours, and no reason for one.
        install(&tree.root(), &whole(&tree)).unwrap();
        let more = format!("{MINE}{set}OTHER=y\n");
        tree.write(DEFAULTS, &more);
        assert_eq!(install(&tree.root(), &whole(&tree)).unwrap(), []);
        assert_eq!(tree.text(DEFAULTS), more);
        // Another runtime changes one line of it.
        tree.write(
            "/var/lib/kubelet/kubeadm-flags.env",
            "KUBELET_KUBEADM_ARGS=--container-runtime-endpoint=unix:///run/crio/crio.sock\n",
        );
        install(&tree.root(), &whole(&tree)).unwrap();
        assert_eq!(
            tree.text(DEFAULTS),
            more.replace("/run/containerd/containerd.sock", "/run/crio/crio.sock")
        );

        // What nobody closed swallows what would stand behind it.
        let tree = trees::kubeadm_deb();
        tree.write(DEFAULTS, "HARBOR_TOKEN=\"x\n");
        let node = Node::look(&tree.root()).unwrap();
        let payload = Payload {
            program: Vec::new(),
            prefix: PathBuf::from("/usr/local"),
            config: None,
        };
        let error = payload.wanted(&tree.root(), &node).unwrap_err().to_string();
        assert!(
            error.contains(DEFAULTS) && error.contains("quote"),
            "{error}"
        );
    }

    #[test]
    fn a_new_file_of_variables_is_closed_to_others() {
        let tree = trees::kubeadm_deb();
        install(&tree.root(), &whole(&tree)).unwrap();
        let (mode, ..) = tree.snapshot()[&tree.place(DEFAULTS)];
        assert_eq!(mode & 0o777, 0o600);
    }

    /// SELinux's policies of Fedora and RHEL let systemd start programs (`bin_t`) as unconfined services. What lies in
    /// `/usr/lib` it may not start at all (`lib_t`), or only in a domain that can't connect to the runtime.
    #[test]
    fn units_start_what_is_labelled_as_a_program() {
        for (name, text) in UNITS {
            let settings = text.lines().filter(|line| line.starts_with("Exec"));
            for (_, command) in settings.filter_map(|line| line.split_once('=')) {
                let program = command.trim_start_matches('+').split(' ').next();
                assert!(
                    program.is_some_and(|program| program.starts_with("/usr/bin/")),
                    "{name}: {command}"
                );
            }
        }
    }

    #[test]
    fn a_package_s_files_are_not_written_again() {
        let tree = trees::kubeadm_deb();
        tree.write(
            "/usr/lib/systemd/system/image-cri-shim.service",
            "[Service]\n",
        );
        tree.write(CONFIG, "registries: [{address: mine}]\n");
        install(&tree.root(), &whole(&tree)).unwrap();
        assert!(!tree.root().exists("/usr/local/bin/image-cri-shim"));
        assert!(
            !tree
                .root()
                .exists("/etc/systemd/system/image-cri-shim.service")
        );
        assert_eq!(tree.text(CONFIG), "registries: [{address: mine}]\n");
        assert_eq!(
            std::fs::read_link(
                tree.place("/etc/systemd/system/multi-user.target.wants/image-cri-shim.service")
            )
            .unwrap(),
            Path::new("/usr/lib/systemd/system/image-cri-shim.service")
        );
    }

    /// `kill -9` at every step of both commands, on each kind of node: finished by the next run, or undone.
    #[test]
    fn a_crash_at_any_step_on_any_kind_of_node() {
        for (name, tree) in trees::all() {
            let tree = tree();
            tree.mark("/etc/default/kubelet");
            tree.mark("/etc/sysconfig/kubelet");
            let before = tree.snapshot();
            let all = whole(&tree);
            let count = |run: &mut dyn FnMut(&mut Steps<'_>)| {
                let mut steps = 0;
                run(&mut |_| {
                    steps += 1;
                    Ok(())
                });
                steps
            };
            let steps = count(&mut |step| {
                install_by_steps(&tree.root(), &all, step).unwrap();
            });
            let installed = tree.snapshot();
            let back = count(&mut |step| {
                uninstall_by_steps(&tree.root(), step).unwrap();
            });
            assert_eq!(tree.snapshot(), before, "{name}");
            assert!(steps > 10 && back > 10, "{name}: {steps} and {back}");
            for at in 0..steps {
                install_by_steps(&tree.root(), &all, &mut crash_at(at)).unwrap_err();
                if at % 2 == 0 {
                    install(&tree.root(), &whole(&tree)).unwrap();
                    assert_eq!(tree.snapshot(), installed, "{name}: {at}");
                }
                uninstall(&tree.root()).unwrap();
                assert_eq!(tree.snapshot(), before, "{name}: {at}");
            }
            for at in 0..back {
                install(&tree.root(), &all).unwrap();
                uninstall_by_steps(&tree.root(), &mut crash_at(at)).unwrap_err();
                if at % 2 == 0 {
                    install(&tree.root(), &whole(&tree)).unwrap();
                    assert_eq!(tree.snapshot(), installed, "{name}: {at}");
                }
                uninstall(&tree.root()).unwrap();
                assert_eq!(tree.snapshot(), before, "{name}: {at}");
            }
        }
    }

    type Steps<'s> = dyn FnMut(&str) -> Result<(), crate::Error> + 's;

    fn crash_at(at: usize) -> impl FnMut(&str) -> Result<(), crate::Error> {
        let mut step = 0;
        move |what| {
            step += 1;
            if step > at {
                return Err(crate::Error::Unsupported(format!("crash before: {what}")));
            }
            Ok(())
        }
    }

    #[test]
    fn a_config_that_is_given_is_for_nodes_without_one_and_is_followed_until_somebody_edits_it() {
        let with = |tree: &trees::Tree, config: &str| {
            let node = Node::look(&tree.root()).unwrap();
            let payload = Payload {
                program: b"program".to_vec(),
                prefix: PathBuf::from("/usr/local"),
                config: Some(config.into()),
            };
            install(&tree.root(), &payload.wanted(&tree.root(), &node).unwrap()).unwrap();
            tree.text(CONFIG)
        };
        let tree = trees::kubeadm_deb();
        let before = tree.snapshot();
        assert_eq!(with(&tree, "one"), "one");
        assert_eq!(with(&tree, "two"), "two");
        uninstall(&tree.root()).unwrap();
        assert_eq!(tree.snapshot(), before);
        assert_eq!(with(&tree, "one"), "one");
        tree.write(CONFIG, "mine");
        assert_eq!(with(&tree, "two"), "mine");
        let tree = trees::kubeadm_deb();
        tree.write(CONFIG, "mine");
        assert_eq!(with(&tree, "one"), "mine");
    }

    #[test]
    fn a_run_that_brings_no_config_leaves_the_one_that_was_brought() {
        let wanted = |tree: &trees::Tree, config: Option<&[u8]>| {
            let node = Node::look(&tree.root()).unwrap();
            let payload = Payload {
                program: b"program".to_vec(),
                prefix: PathBuf::from("/usr/local"),
                config: config.map(<[u8]>::to_vec),
            };
            payload.wanted(&tree.root(), &node).unwrap()
        };
        // A comment in an old encoding is no reason to fail.
        for brought in [b"fallbackToOrigin: false\n".as_slice(), b"# caf\xe9\n"] {
            let tree = trees::kubeadm_deb();
            let before = tree.snapshot();
            install(&tree.root(), &wanted(&tree, Some(brought))).unwrap();
            let nothing_to_do = || {
                let standing = tree.snapshot();
                let wanted = wanted(&tree, None);
                assert_eq!(changes(&tree.root(), &wanted).unwrap(), []);
                assert_eq!(install(&tree.root(), &wanted).unwrap(), []);
                assert_eq!(tree.snapshot(), standing);
            };
            nothing_to_do();
            // As the shim does it with the ConfigMap.
            let merged = "fallbackToOrigin: false\nbypass: false\n";
            let path = Path::new(CONFIG);
            note_rewrite(&tree.root(), path, brought, merged.as_bytes()).unwrap();
            tree.write(CONFIG, merged);
            nothing_to_do();
            // It still is the install's own.
            install(&tree.root(), &wanted(&tree, Some(b"next"))).unwrap();
            assert_eq!(tree.text(CONFIG), "next");
            uninstall(&tree.root()).unwrap();
            assert_eq!(tree.snapshot(), before);
        }
    }
}
