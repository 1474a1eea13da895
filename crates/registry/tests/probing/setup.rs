//! Targets and clients for all tests.

use std::time::Duration;

use policy::{Credentials, Endpoint, TlsOptions};
use registry::{Cause, CertsDirs, Client, ClientOptions, Outcome, Probe, ProxySettings, Target};
use testkit::fake_registry::FakeRegistry;
use testkit::images::Image;

pub(crate) const REPOSITORY: &str = "team/app";

/// Options that see nothing of this machine: no proxies, no `certs.d`.
pub(crate) fn options() -> ClientOptions {
    ClientOptions {
        certs_dirs: CertsDirs::none(),
        proxies: ProxySettings::none(),
        ..ClientOptions::default()
    }
}

pub(crate) fn client() -> Client {
    Client::new(options())
}

/// `team/app:1` at an address, with a deadline that only a failing test reaches.
pub(crate) fn target(address: &str) -> Target {
    Target {
        endpoint: Endpoint::parse(address).unwrap().0,
        repository: REPOSITORY.to_owned(),
        manifest: "1".to_owned(),
        credentials: None,
        tls: TlsOptions::default(),
        deadline: Duration::from_secs(30),
    }
}

pub(crate) fn with_auth(address: &str, username: &str, password: &str) -> Target {
    Target {
        credentials: Some(Credentials::new(username, password)),
        ..target(address)
    }
}

/// A registry that has `team/app:1`.
pub(crate) fn registry() -> (FakeRegistry, Image) {
    let registry = FakeRegistry::start().unwrap();
    let image = Image::new("app");
    registry.add(&image, REPOSITORY, "1");
    (registry, image)
}

pub(crate) fn found(image: &Image) -> Outcome {
    Outcome::Found {
        digest: Some(image.manifest_digest.clone()),
    }
}

pub(crate) fn is_found(probe: &Probe) -> bool {
    matches!(probe.outcome, Outcome::Found { .. })
}

pub(crate) fn cause(probe: &Probe) -> Option<Cause> {
    match probe.outcome {
        Outcome::Unavailable { cause, .. } => Some(cause),
        _ => None,
    }
}

/// Methods of the manifest requests that a registry saw, in order.
pub(crate) fn methods(registry: &FakeRegistry) -> Vec<String> {
    registry
        .recording()
        .matching(|request| request.is_manifest())
        .iter()
        .map(|request| request.method.to_string())
        .collect()
}
