//! What the runtime's own files say to us. CRI-O's give short names a meaning, and judge images by the name that they
//! are pulled by; containerd's say to whom it speaks plain HTTP.

mod files;

use std::path::{Path, PathBuf};

use policy::config::Settings;
use policy::containerd::{self, ConfigFile, Hint, Plain, RegistryFiles};
use policy::crio::{self, CrioConfig};
use policy::rules::Rules;

use self::files::Texts;

/// The config of the runtime behind a socket, as far as it matters to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    crio: Option<CrioConfig>,
    containerd: Option<Plain>,
    problems: Vec<String>,
}

impl RuntimeConfig {
    /// Reads the files of the runtime that listens on `socket`. They stand below `root`, which is `/` but in
    /// tests. A file that can't be read is passed over; [`RuntimeConfig::warnings`] names it.
    pub fn read(root: &Path, socket: &Path) -> Self {
        // Where no containerd listens, its files are no matter.
        if containerd::is_containerd_socket(socket) && below(root, socket).exists() {
            return Self::of_containerd(root, socket);
        }
        if !crio::is_crio_socket(socket) {
            return Self::default();
        }
        let mut texts = Texts::new(root);
        let crio_conf = texts.with_drop_ins("etc/crio/crio.conf", "");
        let registries_conf = texts.with_drop_ins("etc/containers/registries.conf", ".conf");
        let short_name_aliases = texts.one("var/cache/containers/short-name-aliases.conf");
        let policy_json = texts.one("etc/containers/policy.json");
        let certs_d = ["etc/containers/certs.d", "etc/docker/certs.d"];
        let certs_d: Vec<String> = certs_d.iter().flat_map(|dir| texts.folders(dir)).collect();
        let certs_d: Vec<&str> = certs_d.iter().map(String::as_str).collect();
        let (crio, unread) = CrioConfig::read(&crio::Files {
            crio_conf: &files::borrowed(&crio_conf),
            registries_conf: &files::borrowed(&registries_conf),
            short_name_aliases: short_name_aliases.as_ref().map(files::borrowed_one),
            policy_json: policy_json.as_ref().map(files::borrowed_one),
            certs_d: &certs_d,
        });
        let mut problems = texts.into_problems();
        problems.extend(unread);
        Self {
            crio: Some(crio),
            containerd: None,
            problems,
        }
    }

    fn of_containerd(root: &Path, socket: &Path) -> Self {
        let mut texts = Texts::new(root);
        // A distribution's socket may be linked to from the usual place.
        let linked = below(root, socket).canonicalize();
        let files = RegistryFiles::of(linked.as_deref().unwrap_or(socket));
        let text = files.config.and_then(|path| texts.one(relative(path)));
        let read = text.map(|(path, text)| (path, ConfigFile::read(&text)));
        let mut problems = Vec::new();
        let config = match read {
            Some((_, Ok(config))) => config,
            Some((path, Err(error))) => {
                problems.push(format!(
                    "{path} can't be read, so it is passed over: {error}"
                ));
                ConfigFile::default()
            }
            None => ConfigFile::default(),
        };
        let usual = files.certs_d.iter().map(ToString::to_string);
        let certs_d: Vec<String> = match config.certs_d.is_empty() {
            true => usual.collect(),
            false => config.certs_d.clone(),
        };
        let mut folders = Vec::new();
        for dir in &certs_d {
            let dir = relative(dir);
            for folder in texts.folders(dir) {
                let text = texts.one(&format!("{dir}/{folder}/hosts.toml"));
                folders.push((folder, text.map(|(_, text)| text)));
            }
        }
        let written_from = files.written_from(|folder| below(root, folder).is_dir());
        let plain = Plain::new(certs_d, written_from, config, folders);
        problems.extend(texts.into_problems());
        Self {
            crio: None,
            containerd: Some(plain),
            problems,
        }
    }

    /// The config as it is in front of this runtime: short names mean what they mean to the runtime, and
    /// what it pulls without checking certificates is asked without checking them.
    #[must_use]
    pub fn applied_to(&self, mut settings: Settings) -> Settings {
        let Some(crio) = &self.crio else {
            return settings;
        };
        let conf = crio.registries();
        let Rules {
            registries,
            redirects,
            short_names,
            ..
        } = &mut settings.rules;
        let registries = registries.iter_mut().map(|r| (&r.endpoint, &mut r.tls));
        let redirects = redirects.iter_mut().map(|r| (&r.to, &mut r.tls));
        for (endpoint, tls) in registries.chain(redirects) {
            // What the config says itself about the certificate goes first.
            if tls.ca_file.is_none() && conf.is_insecure(&endpoint.domain(), endpoint.path()) {
                tls.insecure_skip_verify = true;
                tls.or_plain = true;
            }
        }
        short_names.clone_from(conf.short_names());
        settings
    }

    /// What to tell people: files that can't be read, and what the runtime's files need so that images
    /// come from the places of `rules`.
    pub fn warnings(&self, rules: &Rules) -> Vec<String> {
        let of_crio = self.crio.iter().flat_map(|crio| crio.hints(rules));
        let of_containerd = self.containerd_hints(rules).into_iter();
        let hints = of_crio.chain(of_containerd.map(|hint| hint.text));
        self.problems.iter().cloned().chain(hints).collect()
    }

    /// What containerd's files need so that images come from the places of `rules`.
    pub fn containerd_hints(&self, rules: &Rules) -> Vec<Hint> {
        let plain = self.containerd.iter();
        plain.flat_map(|plain| plain.hints(rules)).collect()
    }
}

/// Where the node's `path` stands in the tree below `root`.
fn below(root: &Path, path: &Path) -> PathBuf {
    match path.starts_with(root) {
        true => path.to_owned(),
        false => root.join(path.strip_prefix("/").unwrap_or(path)),
    }
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const CRIO: &str = "/var/run/crio/crio.sock";

    fn settings(text: &str) -> Settings {
        Settings::read(text, &|_| None).0
    }

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const CONTAINERD: &str = "/run/containerd/containerd.sock";

    #[test]
    fn a_containerd_that_is_here_is_told_to_whom_it_speaks_in_the_clear() {
        let config = settings("address: http://sealos.hub:5000");
        let warned = |files: &[(&str, &str)], socket: &str| {
            let root = root(files);
            let read = RuntimeConfig::read(root.path(), Path::new(socket));
            read.warnings(&config.rules)
        };
        let socket = ("run/containerd/containerd.sock", "");
        let [hint] = warned(&[socket], CONTAINERD).try_into().unwrap();
        assert!(
            hint.contains("unless /etc/containerd/certs.d/sealos.hub:5000/hosts.toml has"),
            "{hint}"
        );
        let told = "server = 'http://sealos.hub:5000'";
        let usual = ("etc/containerd/certs.d/sealos.hub:5000/hosts.toml", told);
        assert_eq!(warned(&[socket, usual], CONTAINERD), [""; 0]);
        // What the config says itself about where hosts are described.
        let config_toml = (
            "etc/containerd/config.toml",
            "[plugins.x.registry]\nconfig_path = '/etc/hosts.d'",
        );
        let [hint] = warned(&[socket, usual, config_toml], CONTAINERD)
            .try_into()
            .unwrap();
        assert!(
            hint.contains("unless /etc/hosts.d/sealos.hub:5000/"),
            "{hint}"
        );
        let other = ("etc/hosts.d/sealos.hub_5000_/hosts.toml", told);
        let files = [socket, config_toml, other];
        assert_eq!(warned(&files, CONTAINERD), [""; 0]);

        let k3s = "/run/k3s/containerd/containerd.sock";
        let socket = ("run/k3s/containerd/containerd.sock", "");
        let files = [socket, usual, ("etc/rancher/rke2/config.yaml", "")];
        let [hint] = warned(&files, k3s).try_into().unwrap();
        assert!(
            hint.contains("unless /etc/rancher/rke2/registries.yaml has `mirrors: "),
            "{hint}"
        );
        let written = (
            "var/lib/rancher/rke2/agent/etc/containerd/certs.d/sealos.hub:5000/hosts.toml",
            told,
        );
        assert_eq!(warned(&[socket, written], k3s), [""; 0]);
    }

    #[test]
    fn other_runtimes_are_not_read() {
        let root = root(&[(
            "etc/containers/registries.conf",
            "unqualified-search-registries = ['a.io']",
        )]);
        let read = RuntimeConfig::read(root.path(), Path::new(CONTAINERD));
        assert_eq!(read, RuntimeConfig::default());
        let config = settings("address: http://sealos.hub:5000");
        assert_eq!(read.applied_to(config.clone()), config);
        assert_eq!(read.warnings(&config.rules), [""; 0]);
    }

    #[test]
    fn drop_ins_are_read_after_the_main_file_in_the_order_of_their_names() {
        let root = root(&[
            (
                "etc/containers/registries.conf",
                "unqualified-search-registries = ['a.io', 'b.io']",
            ),
            (
                "etc/containers/registries.conf.d/20-x.conf",
                "unqualified-search-registries = ['c.io']",
            ),
            (
                "etc/containers/registries.conf.d/10-x.conf",
                "unqualified-search-registries = ['d.io']\n[aliases]\napp = 'q.io/team/app'",
            ),
            (
                "etc/containers/registries.conf.d/30-x.txt",
                "unqualified-search-registries = ['e.io']",
            ),
        ]);
        let read = RuntimeConfig::read(root.path(), Path::new(CRIO));
        let rules = read
            .applied_to(settings("address: http://sealos.hub:5000"))
            .rules;
        assert_eq!(rules.short_names.search, ["c.io"]);
        assert_eq!(rules.short_names.aliases["app"], "q.io/team/app");
    }

    /// containers/image asks that file before every registries.conf.
    #[test]
    fn recorded_aliases_go_before_all_others() {
        let root = root(&[
            (
                "etc/containers/registries.conf",
                "unqualified-search-registries = ['a.io']\n[aliases]\napp = 'q.io/app'\ngone = 'q.io/gone'",
            ),
            (
                "etc/containers/registries.conf.d/99-x.conf",
                "[aliases]\napp = 'r.io/app'\ngone = 'r.io/gone'",
            ),
            (
                "var/cache/containers/short-name-aliases.conf",
                "unqualified-search-registries = ['b.io']\n[aliases]\napp = 's.io/app'\ngone = ''",
            ),
        ]);
        let read = RuntimeConfig::read(root.path(), Path::new(CRIO));
        assert_eq!(read.problems, [""; 0]);
        let config = settings("address: http://sealos.hub:5000");
        let names = read.applied_to(config).rules.short_names;
        assert_eq!(names.search, ["a.io"]);
        let aliases: Vec<_> = names.aliases.into_iter().collect();
        assert_eq!(aliases, [("app".to_owned(), "s.io/app".to_owned())]);
    }

    #[test]
    fn insecure_registries_are_asked_as_crio_pulls_from_them() {
        let root = root(&[(
            "etc/containers/registries.conf",
            "[[registry]]\nlocation = 'a.corp'\ninsecure = true\n[[registry]]\nlocation = 'b.corp'\ninsecure = true\n[[registry]]\nlocation = 'c.corp'\ninsecure = true\n",
        )]);
        let read = RuntimeConfig::read(root.path(), Path::new(CRIO));
        let config = settings(
            "registries: [{address: a.corp}, {address: b.corp, caFile: /ca.pem}, {address: d.corp}]\n\
             imageRedirMapping: [{src: docker.io, to: c.corp}]",
        );
        let rules = read.applied_to(config).rules;
        let registries = rules.registries.iter().map(|r| {
            (
                r.endpoint.host(),
                r.tls.insecure_skip_verify && r.tls.or_plain,
            )
        });
        let redirects = rules
            .redirects
            .iter()
            .map(|r| (r.to.host(), r.tls.insecure_skip_verify && r.tls.or_plain));
        let all: Vec<_> = registries.chain(redirects).collect();
        assert_eq!(
            all,
            [
                ("a.corp", true),
                ("b.corp", false),
                ("d.corp", false),
                ("c.corp", true)
            ]
        );
    }

    #[test]
    fn what_people_should_know() {
        let root = root(&[
            (
                "etc/crio/crio.conf",
                "[crio.image]\npause_image = 'sealos.hub:5000/pause:3'\n",
            ),
            (
                "etc/crio/crio.conf.d/10-pinned",
                "[crio.image]\npinned_images = ['quay.io/a/b:1']\n",
            ),
            (
                "etc/containers/policy.json",
                "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}",
            ),
            ("etc/containers/certs.d/b.corp/ca.crt", ""),
            ("etc/containers/registries.conf", "[[registry]\n"),
        ]);
        let config = settings(
            "address: http://sealos.hub:5000\nregistries: [{address: b.corp, caFile: /ca.pem, mirrorOf: [ghcr.io]}]",
        );
        let warnings = RuntimeConfig::read(root.path(), Path::new(CRIO)).warnings(&config.rules);
        let expected = [
            "registries.conf can't be read",
            "`location = \"sealos.hub:5000\"`",
            "list sealos.hub:5000/a/b:1 too",
        ];
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        for (warning, part) in warnings.iter().zip(expected) {
            assert!(warning.contains(part), "{warning}");
        }
        // No file at all is no problem.
        let empty = tempfile::tempdir().unwrap();
        let read = RuntimeConfig::read(empty.path(), Path::new(CRIO));
        assert_eq!(read.problems, [""; 0]);
    }
}
