//! CRI-O's own config, as far as it judges images by the name that they are pulled by.
//!
//! An image that comes from a mirror has the mirror's name to CRI-O. Its signature policy, its list of pinned
//! images and its `registries.conf` then judge that name, not the one in the Pod. [`CrioConfig::hints`] says
//! what to write there for the places of a config. `docs/runtimes.md` explains the same to people.
//!
//! Finding and reading the files is somebody else's business.
//!
//! ```
//! use policy::config::Settings;
//! use policy::crio::{CrioConfig, Files};
//!
//! let (settings, _) = Settings::read("address: http://sealos.hub:5000", &|_name| None);
//! let (crio, problems) = CrioConfig::read(&Files::default());
//! assert!(problems.is_empty());
//! assert!(crio.hints(&settings.rules)[0].contains("insecure = true"));
//! ```

mod names;
mod signatures;

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use self::signatures::SignaturePolicy;
use crate::registries_conf::RegistriesConf;
use crate::rules::{MirrorOf, Rules};
use crate::{Endpoint, Scheme, TlsOptions};

/// Whether this is the socket of a CRI-O: `/var/run/crio/crio.sock`, and others by its name.
pub fn is_crio_socket(socket: &Path) -> bool {
    socket.file_name().is_some_and(|name| name == "crio.sock")
}

/// The texts of CRI-O's files, as pairs of path and text, each list in the order in which CRI-O reads it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files<'a> {
    /// `/etc/crio/crio.conf` and `/etc/crio/crio.conf.d/*`.
    pub crio_conf: &'a [(&'a str, &'a str)],
    /// `/etc/containers/registries.conf` and `/etc/containers/registries.conf.d/*.conf`.
    pub registries_conf: &'a [(&'a str, &'a str)],
    /// `/var/cache/containers/short-name-aliases.conf`, which no person writes; None where there is none.
    pub short_name_aliases: Option<(&'a str, &'a str)>,
    /// `/etc/containers/policy.json`; None where there is none.
    pub policy_json: Option<(&'a str, &'a str)>,
    /// Names of the folders in `/etc/containers/certs.d` and `/etc/docker/certs.d`: hosts whose certificates
    /// CRI-O knows more about.
    pub certs_d: &'a [&'a str],
}

/// What the files say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrioConfig {
    registries: RegistriesConf,
    signatures: SignaturePolicy,
    pinned_images: Vec<String>,
    pause_image: Option<String>,
    hosts_with_certificates: BTreeSet<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CrioFile {
    crio: CrioTable,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CrioTable {
    image: ImageTable,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ImageTable {
    pinned_images: Option<Vec<String>>,
    pause_image: Option<String>,
}

impl CrioConfig {
    /// Reads the files. The second part has a line for each that can't be read: it is passed over.
    pub fn read(files: &Files<'_>) -> (Self, Vec<String>) {
        let (mut registries, mut problems) =
            RegistriesConf::read(files.registries_conf.iter().copied());
        if let Some((path, text)) = files.short_name_aliases {
            problems.extend(registries.read_recorded_aliases(path, text).err());
        }
        let mut crio = Self {
            registries,
            hosts_with_certificates: files.certs_d.iter().map(ToString::to_string).collect(),
            ..Self::default()
        };
        for (path, text) in files.crio_conf {
            match toml::from_str::<CrioFile>(text.trim_start_matches('\u{feff}')) {
                Ok(file) => crio.take(file.crio.image),
                // Without the library's excerpt: nobody knows what stands there.
                Err(error) => problems.push(format!(
                    "{path} can't be read, so it is passed over: {}",
                    error.message()
                )),
            }
        }
        if let Some((path, text)) = files.policy_json {
            match SignaturePolicy::read(text) {
                Ok(signatures) => crio.signatures = signatures,
                Err(line) => problems.push(format!(
                    "{path} can't be read, so it is passed over: line {line} is no JSON of a signature policy"
                )),
            }
        }
        (crio, problems)
    }

    /// What `registries.conf` and its drop-ins say.
    pub fn registries(&self) -> &RegistriesConf {
        &self.registries
    }

    fn take(&mut self, image: ImageTable) {
        if let Some(pinned) = image.pinned_images {
            self.pinned_images = pinned;
        }
        if let Some(pause) = image.pause_image {
            self.pause_image = Some(pause);
        }
    }

    /// What to write into CRI-O's files so that images come from the places of `rules`: one line for each
    /// thing, in the order of the places.
    pub fn hints(&self, rules: &Rules) -> Vec<String> {
        let mut hints = Vec::new();
        for place in places(rules) {
            self.transport(&place, &mut hints);
        }
        for place in places(rules) {
            hints.extend(self.signatures.hints(&place));
        }
        hints.extend(self.pinned(rules));
        hints.extend(self.pause(rules));
        let mut seen = BTreeSet::new();
        hints.retain(|hint| seen.insert(hint.clone()));
        hints
    }

    /// How CRI-O speaks to a place. It reads neither our scheme nor our TLS options.
    fn transport(&self, place: &Place<'_>, hints: &mut Vec<String>) {
        let host = place.endpoint.domain();
        let is_insecure = self.registries.is_insecure(&host, place.endpoint.path());
        if self.registries.is_blocked(&host, place.endpoint.path()) {
            hints.push(format!(
                "CRI-O pulls nothing from {host}: registries.conf has `blocked = true` for it"
            ));
            return;
        }
        if is_insecure {
            return;
        }
        if place.endpoint.scheme() == Scheme::Http {
            hints.push(format!(
                "CRI-O pulls from {host} by TLS only, unless /etc/containers/registries.conf.d/ has \
                 `[[registry]]`, `location = \"{host}\"`, `insecure = true`"
            ));
        } else if place.tls.insecure_skip_verify {
            hints.push(format!(
                "`insecureSkipVerify` for {host} is not CRI-O's: write `[[registry]]`, `location = \"{host}\"`, \
                 `insecure = true` into /etc/containers/registries.conf.d/, too"
            ));
        } else if place.tls.ca_file.is_some() && !self.hosts_with_certificates.contains(&host) {
            hints.push(format!(
                "`caFile` for {host} is not CRI-O's: copy the file to /etc/containers/certs.d/{host}/ca.crt, too"
            ));
        }
    }
}

/// A place that images may come from, other than their own registry.
struct Place<'a> {
    endpoint: &'a Endpoint,
    tls: &'a TlsOptions,
    /// Hosts whose images it may have; None is every host's.
    hosts: Option<Vec<&'a str>>,
}

fn places(rules: &Rules) -> impl Iterator<Item = Place<'_>> {
    let registries = rules.registries.iter().map(|registry| Place {
        endpoint: &registry.endpoint,
        tls: &registry.tls,
        hosts: match &registry.mirror_of {
            MirrorOf::Any => None,
            MirrorOf::Hosts(hosts) => Some(hosts.iter().map(String::as_str).collect()),
        },
    });
    let redirects = rules.redirects.iter().map(|redirect| Place {
        endpoint: &redirect.to,
        tls: &redirect.tls,
        hosts: Some(vec![redirect.src_domain.as_str()]),
    });
    registries.chain(redirects)
}

#[cfg(test)]
mod tests;
