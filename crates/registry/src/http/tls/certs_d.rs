//! What the container runtimes are told about a host's certificates: containerd's `certs.d` with its
//! `hosts.toml`, and the layout of Docker and CRI-O (`*.crt`, `*.cert`, `*.key`).
//!
//! Follows containerd's `core/remotes/docker/config/hosts.go`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use policy::containerd::RegistryFiles;
use policy::crio::is_crio_socket;

use super::hosts_toml;

/// Directories that hold one directory per host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertsDirs {
    /// Read as containerd reads its `config_path`: `hosts.toml`, else certificate files; the first of
    /// `host_port_`, `host:port` and `_default` that exists.
    pub containerd: Vec<PathBuf>,
    /// Read as Docker and CRI-O do: certificate files in `host:port`.
    pub docker: Vec<PathBuf>,
    /// The file that `containerd` is written from, where a distribution does so: what is put there by hand
    /// may not stay.
    pub written_from: Option<PathBuf>,
}

/// Where an operator puts a host's CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaPlace {
    /// As a file in this directory.
    Directory(PathBuf),
    /// By its path in this `registries.yaml`, which k3s and RKE2 read at their start.
    RegistriesYaml(PathBuf),
}

impl Default for CertsDirs {
    fn default() -> Self {
        Self {
            containerd: vec!["/etc/containerd/certs.d".into()],
            docker: vec![
                "/etc/containers/certs.d".into(),
                "/etc/docker/certs.d".into(),
            ],
            written_from: None,
        }
    }
}

impl CertsDirs {
    /// No directories: only the system's roots and what an entry names.
    pub fn none() -> Self {
        Self {
            containerd: Vec::new(),
            docker: Vec::new(),
            written_from: None,
        }
    }

    /// What the runtime behind a socket reads. Looks which of two distributions with the same socket is here.
    pub fn of(runtime: &Path) -> Self {
        // A distribution's socket may be linked to from the usual place.
        let linked = fs::canonicalize(runtime);
        let runtime = linked.as_deref().unwrap_or(runtime);
        Self::by_socket(runtime, |path| path.is_dir())
    }

    fn by_socket(runtime: &Path, is_dir: impl Fn(&Path) -> bool) -> Self {
        if is_crio_socket(runtime) {
            return Self {
                // Containerd's files say nothing to it.
                containerd: Vec::new(),
                ..Self::default()
            };
        }
        let files = RegistryFiles::of(runtime);
        Self {
            containerd: files.certs_d.iter().map(PathBuf::from).collect(),
            written_from: files.written_from(is_dir).map(PathBuf::from),
            ..Self::default()
        }
    }

    /// Where an operator is told to put a host's CA.
    pub fn ca_place(&self, domain: &str) -> Option<CaPlace> {
        if let Some(file) = &self.written_from {
            return Some(CaPlace::RegistriesYaml(file.clone()));
        }
        let first = self.containerd.first().or(self.docker.first());
        first.map(|root| CaPlace::Directory(root.join(domain)))
    }
}

/// What was found about one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostTls {
    /// PEM files of CAs.
    pub(crate) ca: Vec<PathBuf>,
    /// PEM files of a client certificate and its key; without a key file, the key is in the first.
    pub(crate) clients: Vec<(PathBuf, Option<PathBuf>)>,
    /// Whether certificates are checked at all, where the file says so.
    pub(crate) skip_verify: Option<bool>,
    /// What could not be read, in words for a log.
    pub(crate) problems: Vec<String>,
}

/// Configuration files longer than this are not read.
const MAX_FILE: u64 = 1024 * 1024;

/// Reads at most [`MAX_FILE`] bytes of a regular file.
pub(crate) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    files::read_regular(path, MAX_FILE)
}

/// Collects what the runtimes know about `domain` (`host[:port]`). `also_known_as` are other names
/// that `hosts.toml` may use for it.
pub(crate) fn look_up(dirs: &CertsDirs, domain: &str, also_known_as: &[String]) -> HostTls {
    let mut found = HostTls::default();
    for root in &dirs.containerd {
        let existing = containerd_names(domain)
            .into_iter()
            .map(|name| root.join(name))
            .find(|dir| dir.is_dir());
        if let Some(dir) = existing {
            containerd_dir(&dir, domain, also_known_as, &mut found);
        }
    }
    for root in &dirs.docker {
        certificate_files(&root.join(domain), &mut found);
    }
    found
}

fn containerd_names(domain: &str) -> Vec<String> {
    let mut names = Vec::with_capacity(3);
    // Windows has no `:` in names, so containerd takes `host_port_` everywhere.
    if let Some((host, port)) = domain.rsplit_once(':')
        && !port.ends_with(']')
    {
        names.push(format!("{host}_{port}_"));
    }
    names.push(domain.to_owned());
    names.push("_default".to_owned());
    names
}

fn containerd_dir(dir: &Path, domain: &str, also_known_as: &[String], found: &mut HostTls) {
    let file = dir.join("hosts.toml");
    let text = match read_bounded(&file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            found
                .problems
                .push(format!("can't read {}: {error}", file.display()));
            String::new()
        }
    };
    if text.is_empty() {
        certificate_files(dir, found);
        return;
    }
    match hosts_toml::parse(&text, dir, domain, also_known_as) {
        Ok(host) => {
            found.ca.extend(host.ca);
            found.clients.extend(host.clients);
            found.skip_verify = found.skip_verify.or(host.skip_verify);
        }
        Err(error) => {
            found.problems.push(format!(
                "can't use {}: {error}; looking for certificate files beside it",
                file.display()
            ));
            certificate_files(dir, found);
        }
    }
}

/// `*.crt` are CAs; `*.cert` are client certificates with their keys in `*.key` of the same name.
fn certificate_files(dir: &Path, found: &mut HostTls) {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            found
                .problems
                .push(format!("can't read {}: {error}", dir.display()));
            return;
        }
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| !path.is_dir())
        .collect();
    // The order of a directory is chance; which client certificate is used should not be.
    paths.sort();
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => found.ca.push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                let key = key.exists().then_some(key);
                found.clients.push((path, key));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(root: &Path) -> CertsDirs {
        CertsDirs {
            containerd: vec![root.join("containerd")],
            docker: vec![root.join("docker")],
            written_from: None,
        }
    }

    fn write(path: PathBuf, text: &str) -> PathBuf {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn the_first_directory_that_exists_counts() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        let dirs = dirs(root);
        let silent = look_up(&dirs, "reg:5000", &[]);
        assert!(silent.ca.is_empty() && silent.clients.is_empty() && silent.skip_verify.is_none());

        write(
            root.join("containerd/_default/hosts.toml"),
            "skip_verify = true",
        );
        assert_eq!(look_up(&dirs, "reg:5000", &[]).skip_verify, Some(true));
        let plain = write(root.join("containerd/reg:5000/ca.crt"), "x");
        let found = look_up(&dirs, "reg:5000", &[]);
        assert_eq!((found.ca, found.skip_verify), (vec![plain], None));
        write(
            root.join("containerd/reg_5000_/hosts.toml"),
            "ca = 'mine.pem'",
        );
        let found = look_up(&dirs, "reg:5000", &[]);
        assert_eq!(found.ca, [root.join("containerd/reg_5000_/mine.pem")]);
    }

    #[test]
    fn docker_files_add_to_containerds() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        write(root.join("containerd/reg/hosts.toml"), "ca = '/a.pem'");
        let ca = write(root.join("docker/reg/z.crt"), "x");
        let with_key = write(root.join("docker/reg/a.cert"), "x");
        let key = write(root.join("docker/reg/a.key"), "x");
        let alone = write(root.join("docker/reg/b.cert"), "x");
        let found = look_up(&dirs(root), "reg", &[]);
        assert_eq!(found.ca, [PathBuf::from("/a.pem"), ca]);
        assert_eq!(found.clients, [(with_key, Some(key)), (alone, None)]);
        assert!(found.problems.is_empty());
    }

    #[test]
    fn a_broken_file_is_told_and_the_rest_used() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        write(root.join("containerd/reg/hosts.toml"), "ca = [");
        let ca = write(root.join("containerd/reg/ca.crt"), "x");
        let found = look_up(&dirs(root), "reg", &[]);
        assert_eq!(found.ca, [ca]);
        assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
    }

    #[test]
    fn each_runtime_reads_directories_of_its_own() {
        let of = |socket: &str| CertsDirs::of(Path::new(socket));
        let directory = |path: &str| Some(CaPlace::Directory(path.into()));
        let crio = of("/var/run/crio/crio.sock");
        let place = crio.ca_place("reg:5000");
        assert_eq!(place, directory("/etc/containers/certs.d/reg:5000"));
        assert!(crio.containerd.is_empty(), "hosts.toml says nothing to it");
        assert!(crio.docker.contains(&PathBuf::from("/etc/docker/certs.d")));
        let usual = of("/run/containerd/containerd.sock");
        assert_eq!(usual, CertsDirs::default());
        let place = usual.ca_place("reg:5000");
        assert_eq!(place, directory("/etc/containerd/certs.d/reg:5000"));
        let k0s = of("/run/k0s/containerd.sock");
        assert_eq!(
            k0s.containerd,
            [
                Path::new("/etc/k0s/containerd.d/certs.d"),
                Path::new("/etc/containerd/certs.d")
            ]
        );
    }

    #[test]
    fn k3s_and_rke2_write_their_directories_from_another_file() {
        let socket = Path::new("/run/k3s/containerd/containerd.sock");
        for (here, file) in [
            ("/etc/rancher/k3s", "/etc/rancher/k3s/registries.yaml"),
            ("/etc/rancher/rke2", "/etc/rancher/rke2/registries.yaml"),
            ("/etc", "/etc/rancher/k3s/registries.yaml"),
        ] {
            let dirs = CertsDirs::by_socket(socket, |dir| dir == Path::new(here));
            assert_eq!(
                dirs.containerd,
                [
                    Path::new("/var/lib/rancher/k3s/agent/etc/containerd/certs.d"),
                    Path::new("/var/lib/rancher/rke2/agent/etc/containerd/certs.d")
                ]
            );
            let place = CaPlace::RegistriesYaml(file.into());
            assert_eq!(dirs.ca_place("reg:5000"), Some(place));
        }
    }

    /// The socket of a distribution may be linked to from the usual place.
    #[test]
    fn a_link_is_what_it_leads_to() {
        let temp = tempfile::tempdir().unwrap();
        let real = write(temp.path().join("run/k3s/containerd/containerd.sock"), "");
        let link = temp.path().join("containerd.sock");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(CertsDirs::of(&link), CertsDirs::of(&real));
        assert_ne!(CertsDirs::of(&link), CertsDirs::default());
    }

    #[test]
    fn ipv6_hosts_have_their_colons_inside_brackets() {
        assert_eq!(containerd_names("[::1]"), ["[::1]", "_default"]);
        assert_eq!(
            containerd_names("[::1]:5000"),
            ["[::1]_5000_", "[::1]:5000", "_default"]
        );
    }
}
