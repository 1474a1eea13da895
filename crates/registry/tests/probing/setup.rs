//! Targets and clients for all tests.

use std::time::Duration;

use policy::{Credentials, Endpoint, ProxySettings};
use registry::{Cause, CertsDirs, Client, ClientOptions, ManifestName, Outcome, Probe, Registry};
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

/// One question, to one registry.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) registry: Registry,
    pub(crate) name: ManifestName,
    pub(crate) deadline: Duration,
}

/// `team/app:1` at an address, with a deadline that only a failing test reaches.
pub(crate) fn target(address: &str) -> Target {
    Target {
        registry: Registry::anonymous(Endpoint::parse(address).unwrap().0),
        name: ManifestName {
            repository: REPOSITORY.to_owned(),
            reference: "1".to_owned(),
        },
        deadline: Duration::from_secs(30),
    }
}

pub(crate) fn with_auth(address: &str, username: &str, password: &str) -> Target {
    let mut target = target(address);
    target.registry.credentials = Some(Credentials::new(username, password));
    target
}

pub(crate) async fn ask(client: &Client, target: &Target) -> Probe {
    client
        .probe(&target.registry, &target.name, target.deadline)
        .await
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
        Outcome::ImageFailed { cause, .. } | Outcome::Unavailable { cause } => Some(cause),
        _ => None,
    }
}

/// Whether what failed is the registry as a whole, and not this one question.
pub(crate) fn is_registrys(probe: &Probe) -> bool {
    matches!(probe.outcome, Outcome::Unavailable { .. })
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
