//! The certificates and keys that one host is spoken to with, read from their files.

use std::path::Path;

use policy::{Scheme, TlsOptions};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use url::Url;

use super::certs_d::{self, CertsDirs, HostTls, read_bounded};
use crate::http::guard::Reach;
use crate::registry::Registry;

/// Whose TLS is wanted, and what its entry says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    /// `host[:port]`, the name of its directory in `certs.d`.
    pub(crate) domain: String,
    /// Other names that `hosts.toml` may use for it.
    pub(crate) also_known_as: Vec<String>,
    /// Of its entry in our config. The default says nothing.
    pub(crate) options: TlsOptions,
    /// Accept any certificate where nobody says anything, as containerd does for loopback
    /// registries without a scheme. They are spoken to plainly if TLS fails, so checking would
    /// guard nothing.
    pub(crate) lenient: bool,
    /// What the client may connect to.
    pub(crate) reach: Reach,
    /// A registry whose CAs are trusted here as well: it named this host as its token service.
    pub(crate) trusts_cas_of: Option<Box<Wanted>>,
}

impl Wanted {
    /// The registry of an entry of our config.
    pub(crate) fn of_registry(registry: &Registry) -> Self {
        let endpoint = &registry.endpoint;
        let mut also_known_as = Vec::new();
        if endpoint.api_host() != endpoint.host() {
            also_known_as.push(endpoint.api_host().to_owned());
        }
        Self {
            domain: endpoint.domain(),
            also_known_as,
            options: registry.tls.clone(),
            lenient: endpoint.scheme() == Scheme::HttpsThenHttp,
            reach: Reach::Anywhere,
            trusts_cas_of: None,
        }
    }

    /// A host that no entry is about: where a redirect leads.
    pub(crate) fn of_url(url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        Self {
            domain: match url.port() {
                Some(port) => format!("{host}:{port}"),
                None => host.to_owned(),
            },
            also_known_as: Vec::new(),
            options: TlsOptions::default(),
            lenient: false,
            reach: Reach::Anywhere,
            trusts_cas_of: None,
        }
    }

    /// The token service that `registry` named.
    pub(crate) fn of_token_service(realm: &Url, registry: &Self) -> Self {
        Self {
            trusts_cas_of: Some(Box::new(registry.clone())),
            ..Self::of_url(realm)
        }
    }
}

/// What a TLS configuration is made of.
#[derive(Default)]
pub(crate) struct Material {
    /// Trusted on top of the system's roots.
    pub(crate) cas: Vec<CertificateDer<'static>>,
    /// Client certificate chain and its key.
    pub(crate) identity: Option<Identity>,
    /// Accept any certificate.
    pub(crate) skip_verify: bool,
    /// What could not be used, in words for a log.
    pub(crate) problems: Vec<String>,
}

/// Equal for equal material, so that hosts with the same one share connections' machinery.
pub(crate) type Fingerprint = [u8; 32];

impl Material {
    /// Reads the files. Blocking. What can't be read or parsed is a problem, not an error: the rest
    /// is used.
    pub(crate) fn load(wanted: &Wanted, dirs: &CertsDirs) -> Self {
        let told = certs_d::look_up(dirs, &wanted.domain, &wanted.also_known_as);
        let mut material = Self::default();
        material.problems.extend(told.problems.iter().cloned());
        material.trust(wanted, &told);
        material.identify(&told);
        if let Some(registry) = &wanted.trusts_cas_of {
            let told = certs_d::look_up(dirs, &registry.domain, &registry.also_known_as);
            let mut lent = Self::default();
            lent.trust(registry, &told);
            material.cas.extend(lent.cas);
            material.problems.extend(lent.problems);
        }
        material
    }

    /// The entry's word counts; where it says nothing, what the runtime is told.
    fn trust(&mut self, wanted: &Wanted, told: &HostTls) {
        if wanted.options == TlsOptions::default() {
            for path in &told.ca {
                self.add_ca(path);
            }
            let quiet = told.ca.is_empty() && told.skip_verify.is_none();
            self.skip_verify = told.skip_verify.unwrap_or(quiet && wanted.lenient);
        } else {
            if let Some(path) = &wanted.options.ca_file {
                self.add_ca(path);
            }
            self.skip_verify = wanted.options.insecure_skip_verify;
        }
    }

    fn add_ca(&mut self, path: &Path) {
        match certificates(path) {
            Ok(found) => self.cas.extend(found),
            Err(problem) => self
                .problems
                .push(format!("CA file {} is not used: {problem}", path.display())),
        }
    }

    /// Client certificates only ever come from `certs.d`: an entry has no field for them. The first
    /// usable one is presented.
    fn identify(&mut self, told: &HostTls) {
        for (cert, key) in &told.clients {
            if self.identity.is_some() {
                self.problems.push(format!(
                    "client certificate {} is not used: another one for the same host comes first",
                    cert.display()
                ));
                continue;
            }
            match identity(cert, key.as_deref()) {
                Ok(found) => self.identity = Some(found),
                Err(problem) => self.problems.push(format!(
                    "client certificate {} is not used: {problem}",
                    cert.display()
                )),
            }
        }
    }

    /// A hash of everything that matters; nothing can be read back from it.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        let mut add = |kind: u8, bytes: &[u8]| {
            hash.update([kind]);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(0, &[u8::from(self.skip_verify)]);
        for ca in &self.cas {
            add(1, ca);
        }
        if let Some((chain, key)) = &self.identity {
            for cert in chain {
                add(2, cert);
            }
            add(3, key.secret_der());
        }
        hash.finalize().into()
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read_bounded(path).map_err(|error| error.to_string())?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("it holds no PEM certificate".into()),
        Ok(found) => Ok(found),
        Err(_) => Err("it is not a valid PEM file".into()),
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(cert: &Path, key: Option<&Path>) -> Result<Identity, String> {
    let chain = certificates(cert)?;
    let path = key.unwrap_or(cert);
    let pem = read_bounded(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| format!("{} holds no usable private key", path.display()))?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider)
        .map_err(|error| format!("its key {}: {error}", path.display()))?;
    Ok((chain, key))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn wanted(domain: &str) -> Wanted {
        Wanted {
            domain: domain.into(),
            also_known_as: Vec::new(),
            options: TlsOptions::default(),
            lenient: false,
            reach: Reach::Anywhere,
            trusts_cas_of: None,
        }
    }

    fn pem(name: &str) -> String {
        // A PEM block is taken as it is; whether its inside is a certificate shows at use.
        let inside = name.bytes().map(|b| char::from(b'A' + b % 26)).cycle();
        let body: String = inside.take(64).collect();
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    }

    fn certs_d(root: &Path) -> CertsDirs {
        CertsDirs {
            containerd: vec![root.to_owned()],
            docker: Vec::new(),
            written_from: None,
        }
    }

    #[test]
    fn the_entrys_word_goes_before_the_runtimes() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        fs::create_dir(root.join("reg")).unwrap();
        fs::write(root.join("reg/hosts.toml"), "skip_verify = true").unwrap();
        fs::write(root.join("own.pem"), pem("own")).unwrap();
        let dirs = certs_d(root);

        assert!(Material::load(&wanted("reg"), &dirs).skip_verify);
        let mut own = wanted("reg");
        own.options.ca_file = Some(root.join("own.pem"));
        let material = Material::load(&own, &dirs);
        assert!(!material.skip_verify);
        assert_eq!(material.cas.len(), 1);
        assert!(material.problems.is_empty());
    }

    #[test]
    fn lenience_ends_where_somebody_says_something() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        let dirs = certs_d(root);
        let mut lenient = wanted("localhost:5000");
        lenient.lenient = true;
        assert!(Material::load(&lenient, &dirs).skip_verify);
        fs::create_dir(root.join("localhost:5000")).unwrap();
        fs::write(root.join("localhost:5000/ca.crt"), pem("a")).unwrap();
        assert!(!Material::load(&lenient, &dirs).skip_verify);
    }

    #[test]
    fn a_token_service_is_lent_the_cas_and_not_the_blindness() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        fs::write(root.join("own.pem"), pem("own")).unwrap();
        let dirs = certs_d(root);
        let mut registry = wanted("reg");
        registry.options.ca_file = Some(root.join("own.pem"));
        registry.options.insecure_skip_verify = true;
        let mut service = wanted("auth");
        service.trusts_cas_of = Some(Box::new(registry));
        let material = Material::load(&service, &dirs);
        assert_eq!((material.cas.len(), material.skip_verify), (1, false));
    }

    #[test]
    fn what_cannot_be_read_is_a_problem_and_nothing_more() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        fs::create_dir(root.join("reg")).unwrap();
        fs::write(root.join("reg/a.crt"), "no pem").unwrap();
        fs::write(root.join("reg/b.crt"), pem("b")).unwrap();
        fs::write(root.join("reg/c.cert"), pem("c")).unwrap();
        let material = Material::load(&wanted("reg"), &certs_d(root));
        assert_eq!(material.cas.len(), 1);
        assert!(material.identity.is_none());
        assert_eq!(material.problems.len(), 2, "{:?}", material.problems);
    }

    #[test]
    fn fingerprints_tell_material_apart() {
        let plain = Material::default();
        let skipping = Material {
            skip_verify: true,
            ..Material::default()
        };
        let trusting = Material {
            cas: vec![CertificateDer::from(vec![1, 2, 3])],
            ..Material::default()
        };
        assert_eq!(plain.fingerprint(), Material::default().fingerprint());
        assert_ne!(plain.fingerprint(), skipping.fingerprint());
        assert_ne!(plain.fingerprint(), trusting.fingerprint());
    }
}
