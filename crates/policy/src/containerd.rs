//! containerd, by its socket: distributions that bring one of their own keep its files elsewhere.
//!
//! containerd speaks plain HTTP to a registry on another machine only where its own files say so. [`Plain::hints`]
//! says what to write there for the places of a config. Finding and reading the files is somebody else's business.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::rules::Rules;
use crate::{Endpoint, Scheme};

/// Whether this is the socket of a containerd, by its name.
pub fn is_containerd_socket(socket: &Path) -> bool {
    socket
        .file_name()
        .is_some_and(|name| name == "containerd.sock")
}

/// Where a containerd has what it is told about registries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryFiles {
    /// Its `config_path`: directories that hold one directory per host, with a `hosts.toml`.
    pub certs_d: &'static [&'static str],
    /// Where the distribution writes `certs_d` itself: what it does that from, so that an operator edits this file.
    written_from: &'static [&'static str],
    /// Its own config, where an operator writes it.
    pub config: Option<&'static str>,
}

const USUAL: RegistryFiles = RegistryFiles {
    certs_d: &["/etc/containerd/certs.d"],
    written_from: &[],
    config: Some("/etc/containerd/config.toml"),
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
    config: None,
};
/// k0s leaves `config_path` to the operator; the first is the one of its documentation, the second containerd's own default.
const K0S: RegistryFiles = RegistryFiles {
    certs_d: &["/etc/k0s/containerd.d/certs.d", "/etc/containerd/certs.d"],
    written_from: &[],
    config: None,
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

    /// The file that `certs_d` is written from by the distribution that is here, by its folder: the first one where
    /// neither is. None where no distribution writes it.
    pub fn written_from(&self, is_dir: impl Fn(&Path) -> bool) -> Option<&'static str> {
        let is_here = |file: &&&str| Path::new(*file).parent().is_some_and(&is_dir);
        let candidates = self.written_from;
        let here = candidates.iter().find(is_here).or(candidates.first());
        here.copied()
    }
}

/// What containerd's own config says about where hosts are described.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFile {
    /// `config_path`, in place of [`RegistryFiles::certs_d`]; empty where it is not written.
    pub certs_d: Vec<String>,
    /// Hosts that are spoken to in plain HTTP by the old `registry.mirrors`.
    plain: BTreeSet<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfigToml {
    plugins: BTreeMap<String, Plugin>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Plugin {
    registry: RegistryTable,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RegistryTable {
    config_path: String,
    mirrors: BTreeMap<String, Mirror>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Mirror {
    endpoint: Vec<String>,
}

impl ConfigFile {
    /// Reads `config.toml`.
    ///
    /// # Errors
    /// Why it is no TOML, without the lines that it quotes.
    pub fn read(text: &str) -> Result<Self, String> {
        let read = toml::from_str::<ConfigToml>(text);
        let read = read.map_err(|error| error.message().to_owned())?;
        let mut config = Self::default();
        for table in read.plugins.into_values().map(|plugin| plugin.registry) {
            let paths = table.config_path.split(':');
            config
                .certs_d
                .extend(paths.filter(|path| !path.is_empty()).map(str::to_owned));
            let plain = table.mirrors.into_iter().filter(|(_, mirror)| {
                let is_plain = |endpoint: &String| endpoint.starts_with("http://");
                mirror.endpoint.iter().any(is_plain)
            });
            config.plain.extend(plain.map(|(host, _)| host));
        }
        Ok(config)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HostsToml {
    server: String,
    host: BTreeMap<String, toml::Value>,
}

/// To which hosts a containerd speaks plain HTTP, as its files have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plain {
    /// Where hosts are described, the first of them for what is to be written.
    certs_d: Vec<String>,
    /// The file to edit instead.
    written_from: Option<String>,
    /// The old way: hosts by name.
    hosts: BTreeSet<String>,
    /// By folder in a `certs.d`: whether it leads to a plain server.
    folders: BTreeMap<String, bool>,
}

/// What to write into the runtime's files, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// What is so, and what would change it.
    pub text: String,
    /// The command.
    pub mend: String,
}

impl Plain {
    /// By containerd's own config, and the folders of `certs_d` with the text of their `hosts.toml`; the first one of a
    /// name counts. `written_from` is the file to edit where a distribution writes `certs_d`.
    pub fn new(
        certs_d: Vec<String>,
        written_from: Option<&str>,
        config: ConfigFile,
        folders: impl IntoIterator<Item = (String, Option<String>)>,
    ) -> Self {
        let mut known = BTreeMap::new();
        for (folder, text) in folders {
            let file = toml::from_str::<HostsToml>(text.as_deref().unwrap_or_default());
            // One that can't be read says nothing to containerd either.
            let file = file.unwrap_or_default();
            let is_plain = |address: &str| address.starts_with("http://");
            let leads_to_plain = is_plain(&file.server) || file.host.keys().any(|h| is_plain(h));
            known.entry(folder).or_insert(leads_to_plain);
        }
        Self {
            certs_d,
            written_from: written_from.map(str::to_owned),
            hosts: config.plain,
            folders: known,
        }
    }

    /// What to write so that images come from the `http://` places of `rules`: one for each host.
    pub fn hints(&self, rules: &Rules) -> Vec<Hint> {
        let registries = rules.registries.iter().map(|registry| &registry.endpoint);
        let redirects = rules.redirects.iter().map(|redirect| &redirect.to);
        let wants_plain =
            |place: &&Endpoint| place.scheme() == Scheme::Http && !place.is_loopback();
        let hosts: BTreeSet<String> = registries
            .chain(redirects)
            .filter(wants_plain)
            .map(Endpoint::domain)
            .collect();
        let unknown = hosts.iter().filter(|host| !self.is_plain(host));
        unknown.filter_map(|host| self.hint(host)).collect()
    }

    fn is_plain(&self, host: &str) -> bool {
        let folder = self.folder(host);
        self.hosts.contains(host) || folder.is_some_and(|(_, is_plain)| *is_plain)
    }

    /// The folder that containerd would read for a host.
    fn folder(&self, host: &str) -> Option<(&String, &bool)> {
        let without_colon = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => format!("{name}_{port}_"),
            _ => host.to_owned(),
        };
        [without_colon.as_str(), host, "_default"]
            .into_iter()
            .find_map(|name| self.folders.get_key_value(name))
    }

    fn hint(&self, host: &str) -> Option<Hint> {
        let by_tls = format!("containerd pulls from {host} by TLS only");
        if let Some(file) = &self.written_from {
            let line = format!("mirrors: {{\"{host}\": {{endpoint: [\"http://{host}\"]}}}}");
            return Some(Hint {
                text: format!("{by_tls}, unless {file} has `{line}`"),
                mend: format!("vi {file}   # {line}; then restart the node's service"),
            });
        }
        let line = format!("server = \"http://{host}\"");
        let certs_d = self.certs_d.first()?;
        let own = self.folder(host).filter(|(name, _)| *name != "_default");
        let folder = own.map_or(host, |(name, _)| name);
        let file = format!("{certs_d}/{folder}/hosts.toml");
        let mend = match own {
            Some(_) => format!("vi {file}   # its first line: {line}"),
            None => format!("mkdir -p {certs_d}/{folder} && echo '{line}' > {file}"),
        };
        let text = format!("{by_tls}, unless {file} has `{line}`");
        Some(Hint { text, mend })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn texts(plain: &Plain, config: &str) -> Vec<String> {
        let rules = Settings::read(config, &|_| None).0.rules;
        let hints = plain.hints(&rules).into_iter();
        hints
            .map(|hint| format!("{}\n{}", hint.text, hint.mend))
            .collect()
    }

    fn plain(folders: &[(&str, &str)], config: &str) -> Plain {
        let folders = folders
            .iter()
            .map(|(name, text)| ((*name).to_owned(), Some((*text).to_owned())));
        let config = ConfigFile::read(config).unwrap();
        Plain::new(vec!["/etc/certs.d".to_owned()], None, config, folders)
    }

    const SEALOS: &str = "address: http://sealos.hub:5000";

    #[test]
    fn a_plain_place_needs_a_word_in_containerds_files() {
        assert_eq!(
            texts(&plain(&[], ""), SEALOS),
            [
                "containerd pulls from sealos.hub:5000 by TLS only, unless /etc/certs.d/sealos.hub:5000/hosts.toml has `server = \"http://sealos.hub:5000\"`\n\
                 mkdir -p /etc/certs.d/sealos.hub:5000 && echo 'server = \"http://sealos.hub:5000\"' > /etc/certs.d/sealos.hub:5000/hosts.toml"
            ]
        );
        for (folder, text, has_hint) in [
            (
                "sealos.hub:5000",
                "server = 'http://sealos.hub:5000'",
                false,
            ),
            ("sealos.hub_5000_", "[host.'http://sealos.hub:5000']", false),
            ("_default", "[host.'http://10.0.0.1:5000']", false),
            (
                "sealos.hub:5000",
                "[host.'https://sealos.hub:5000']\nskip_verify = true",
                true,
            ),
            ("sealos.hub:5000", "server = [", true),
            ("sealos.hub", "server = 'http://sealos.hub'", true),
        ] {
            let hints = texts(&plain(&[(folder, text)], ""), SEALOS);
            assert_eq!(!hints.is_empty(), has_hint, "{folder} {text}: {hints:?}");
        }
        // The host's own folder goes before the one for all.
        let both = [
            ("_default", "server = 'http://a'"),
            ("sealos.hub_5000_", "ca = 'x'"),
        ];
        let hints = texts(&plain(&both, ""), SEALOS);
        assert!(
            hints[0].contains("vi /etc/certs.d/sealos.hub_5000_/hosts.toml "),
            "{hints:?}"
        );
    }

    #[test]
    fn other_places_need_none() {
        for config in [
            "address: https://sealos.hub:5000",
            "address: http://localhost:5000",
            "address: http://127.0.0.1:5000",
            "registries: [{address: localhost:5000}]",
        ] {
            assert!(texts(&plain(&[], ""), config).is_empty(), "{config}");
        }
        let redirect = "imageRedirMapping: [{src: docker.io, to: 'http://m.corp/x'}]\nregistries: [{address: 'http://m.corp/y'}]";
        assert_eq!(texts(&plain(&[], ""), redirect).len(), 1);
    }

    #[test]
    fn the_old_way_of_containerds_config_counts() {
        let config = "[plugins.'io.containerd.grpc.v1.cri'.registry]\n\
                      config_path = '/a:/b'\n\
                      [plugins.'io.containerd.grpc.v1.cri'.registry.mirrors.'sealos.hub:5000']\n\
                      endpoint = ['http://sealos.hub:5000']\n\
                      [plugins.'io.containerd.gc.v1.scheduler']\npause_threshold = 0.02\n";
        assert!(texts(&plain(&[], config), SEALOS).is_empty());
        let read = ConfigFile::read(config).unwrap();
        assert_eq!(read.certs_d, ["/a", "/b"]);
        assert!(ConfigFile::read("[").is_err());
    }

    #[test]
    fn a_distribution_that_writes_the_files_has_another_one_to_edit() {
        let file = Some("/etc/rancher/k3s/registries.yaml");
        let k3s = Plain::new(Vec::new(), file, ConfigFile::default(), []);
        let hints = texts(&k3s, SEALOS);
        assert!(
            hints[0].contains("unless /etc/rancher/k3s/registries.yaml has `mirrors: {\"sealos.hub:5000\": {endpoint: [\"http://sealos.hub:5000\"]}}`"),
            "{hints:?}"
        );
    }

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
