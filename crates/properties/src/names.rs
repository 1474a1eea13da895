//! Image names and registry addresses.

use std::sync::LazyLock;

use policy::config::Settings;
use policy::{Endpoint, Plan, Reference};

use crate::{CANARY, keeps_the_secret};

/// A name that is accepted is shown as it was written, and its canonical form is a name that means the same.
pub(crate) fn reference(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(reference) = Reference::parse(&text) else {
        return;
    };
    assert_eq!(reference.to_string(), text);
    let canonical = reference.canonical();
    let again = Reference::parse(&canonical).expect("a canonical name is a name");
    assert_eq!(again.canonical(), canonical);
    assert_eq!(again.domain(), reference.domain());
    assert_eq!(again.repository(), reference.repository());
    assert_eq!(again.digest(), reference.digest());
    assert_eq!(again.manifest(), reference.manifest());
    assert!(!policy::reference::is_image_id(&text));
}

/// An address that is accepted means the same when it is written down; one that is not is explained without its
/// password.
pub(crate) fn endpoint(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let scheme = text.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = text.split_at(scheme);
    for address in [text.to_string(), format!("{scheme}user:{CANARY}@{rest}")] {
        match Endpoint::parse(&address) {
            Ok((endpoint, _credentials)) => {
                let shown = endpoint.to_string();
                keeps_the_secret(&shown);
                let (again, credentials) = Endpoint::parse(&shown).expect("what is shown is read");
                assert!(credentials.is_none());
                assert_eq!(again.to_string(), shown);
                assert!(again.same_place(&endpoint));
                assert_eq!(again.path(), endpoint.path());
            }
            Err(error) => keeps_the_secret(&error.to_string()),
        }
    }
}

static SITES: LazyLock<Vec<Settings>> = LazyLock::new(|| {
    [
        "address: http://sealos.hub:5000\nregistries: [{address: 'https://harbor.corp/proxy', priority: 800}, {address: ghcr.io}]",
        "registries: [{address: 'http://harbor', layout: host}, {address: '[::1]:5000/a/b'}]\n\
         imageRedirMapping: [{src: docker.io/, to: a.azurecr.io/m/}, {src: quay.io/x, to: 'http://mirror/y', canonical: true, priority: 900}]",
        "useNodeCache: true\nfallbackToOrigin: false\nimageRedirMapping: [{src: docker.io/library, to: localhost/l}]",
    ]
    .map(|file| {
        let (settings, findings) = Settings::read(file, &|_| None);
        assert!(findings.iter().all(|finding| !finding.is_error()), "{findings:?}");
        settings
    })
    .into()
});

/// Every name that a plan makes parses back to the host it was made for, and keeps the digest (rule 2).
pub(crate) fn plan(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(reference) = Reference::parse(&text) else {
        return;
    };
    for settings in SITES.iter() {
        let plan = Plan::new(&settings.rules, &reference);
        for candidate in &plan.candidates {
            let made = Reference::parse(&candidate.image).expect("a made name is a name");
            let (host, written) = (made.domain(), candidate.endpoint.domain());
            let port = |scheme| match scheme {
                policy::Scheme::Http => ":80",
                _ => ":443",
            };
            let with_port = format!("{written}{}", port(candidate.endpoint.scheme()));
            assert!(
                host == written || host == with_port,
                "{} is on {host}, not on {written}",
                candidate.image
            );
            assert_eq!(made.digest(), reference.digest(), "{}", candidate.image);
            assert_eq!(made.manifest(), reference.manifest(), "{}", candidate.image);
        }
        assert_eq!(plan.key, Plan::key_of(&settings.rules, &reference));
    }
}
