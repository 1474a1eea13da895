//! Rules 1 to 5, as the plans they lead to.

use super::*;
use crate::config::Settings;

fn plan(config: &str, image: &str) -> Plan {
    let (settings, findings) = Settings::read(config, &|_| None);
    assert!(findings.is_empty(), "{findings:?}");
    Plan::new(&settings.rules, &Reference::parse(image).unwrap())
}

fn images(config: &str, image: &str) -> Vec<String> {
    plan(config, image)
        .candidates
        .into_iter()
        .map(|candidate| candidate.image)
        .collect()
}

#[test]
fn candidates_keep_path_tag_and_digest() {
    let digest = format!("sha256:{}", "b".repeat(64));
    let config = "address: http://sealos.hub:5000\nregistries: [{address: 'https://harbor.corp/proxy-cache'}]";
    assert_eq!(
        images(config, &format!("nginx:1@{digest}")),
        [
            format!("sealos.hub:5000/library/nginx:1@{digest}"),
            format!("harbor.corp/proxy-cache/library/nginx:1@{digest}"),
        ]
    );
    assert_eq!(
        images(config, "ghcr.io/team/app"),
        [
            "sealos.hub:5000/team/app:latest",
            "harbor.corp/proxy-cache/team/app:latest"
        ]
    );
}

#[test]
fn an_image_that_is_at_the_registry_stays_as_it_is() {
    let config = "registries: [{address: 'harbor.corp/proxy'}, {address: 'sealos.hub:5000'}]";
    assert_eq!(
        images(config, "harbor.corp/proxy/library/nginx:1"),
        [
            "harbor.corp/proxy/library/nginx:1",
            "sealos.hub:5000/proxy/library/nginx:1"
        ]
    );
    assert_eq!(
        images(config, "harbor.corp/proxyish/nginx:1")[0],
        "harbor.corp/proxy/proxyish/nginx:1"
    );
}

#[test]
fn public_registries_are_not_asked_for_other_hosts() {
    assert!(images("registries: [{address: docker.io}]", "ghcr.io/team/app").is_empty());
    assert_eq!(
        images("registries: [{address: docker.io}]", "team/app:1"),
        ["docker.io/team/app:1"]
    );
    assert_eq!(
        images(
            "registries: [{address: docker.io, mirrorOf: ['*']}]",
            "ghcr.io/team/app:1"
        ),
        ["docker.io/team/app:1"]
    );
    let mirror = "registries: [{address: mirror.corp, mirrorOf: [index.docker.io]}]";
    assert_eq!(images(mirror, "nginx:1"), ["mirror.corp/library/nginx:1"]);
    assert!(images(mirror, "quay.io/a/b").is_empty());
}

#[test]
fn callers_credentials_stay_on_the_callers_host() {
    let config = "registries: [{address: a.io, auth: 'u:p'}, {address: b.io}, {address: 'b.io:5000'}, {address: c.io}]";
    let choices: Vec<_> = plan(config, "b.io/x:1")
        .candidates
        .into_iter()
        .map(|c| c.credentials)
        .collect();
    assert!(matches!(choices[0], CredentialChoice::Configured(_)));
    assert_eq!(
        choices[1..],
        [
            CredentialChoice::Callers,
            CredentialChoice::Anonymous,
            CredentialChoice::Anonymous,
        ]
    );
}

#[test]
fn reasons_are_for_people() {
    let config = "address: s.io\nregistries: [{address: b.io, priority: 800, mirrorOf: [docker.io]}, {address: c.io}]";
    let reasons: Vec<_> = plan(config, "x:1")
        .candidates
        .into_iter()
        .map(|c| c.reason)
        .collect();
    assert_eq!(
        reasons,
        [
            "priority 1000 (default), offline registry, configured for every host",
            "priority 800, configured for docker.io",
            "priority 500 (default), configured for every host",
        ]
    );
}

#[test]
fn redirects_come_after_the_registries_or_among_them() {
    let base = "address: s.io\nregistries: [{address: b.io}]\nimageRedirMapping: [{src: docker.io/, to: x.io/m/";
    assert_eq!(
        images(&format!("{base}}}]"), "nats:2"),
        [
            "s.io/library/nats:2",
            "b.io/library/nats:2",
            "x.io/m/nats:2"
        ]
    );
    assert_eq!(
        images(&format!("{base}, priority: 600}}]"), "nats:2"),
        [
            "s.io/library/nats:2",
            "x.io/m/nats:2",
            "b.io/library/nats:2"
        ]
    );
    assert_eq!(
        images(&format!("{base}, priority: 500}}]"), "nats:2"),
        [
            "s.io/library/nats:2",
            "b.io/library/nats:2",
            "x.io/m/nats:2"
        ]
    );
}

#[test]
fn what_redirects_lead_to() {
    let table = "imageRedirMapping:\n- {src: docker.io/, to: project-a.azurecr.io/docker-mirror/}\n\
         - {src: docker.io/bitnami, to: b.io/bitnami-mirror, canonical: true}\n\
         - {src: 'a.io:50/', to: five.io}\n- {src: quay.io, to: 'http://q.io:80/x'}\n\
         - {src: gcr.io/p/app, to: g.io/other}\n- {src: docker.io/library/redis, to: r.io/redis}\n";
    let digest = format!("sha256:{}", "c".repeat(64));
    let pinned = format!("nats:1@{digest}");
    let pinned_target = format!("project-a.azurecr.io/docker-mirror/nats:1@{digest}");
    for (image, target) in [
        (
            "docker.io/nats:2.10.26-alpine",
            Some("project-a.azurecr.io/docker-mirror/nats:2.10.26-alpine"),
        ),
        (
            "nats:2.10.26-alpine",
            Some("project-a.azurecr.io/docker-mirror/nats:2.10.26-alpine"),
        ),
        (
            "index.docker.io/nats",
            Some("project-a.azurecr.io/docker-mirror/nats:latest"),
        ),
        (
            "library/nats:1",
            Some("project-a.azurecr.io/docker-mirror/library/nats:1"),
        ),
        (&pinned, Some(&pinned_target)),
        (
            "docker.io/bitnami/nats:2",
            Some("b.io/bitnami-mirror/nats:2"),
        ),
        (
            "bitnamilegacy/nats:2",
            Some("project-a.azurecr.io/docker-mirror/bitnamilegacy/nats:2"),
        ),
        ("a.io:5000/x:1", None),
        ("a.io:50/x:1", Some("five.io/x:1")),
        ("quay.io/team/app:1", Some("q.io:80/x/team/app:1")),
        ("quay.io.evil.com/app:1", None),
        ("gcr.io/p/app:1", Some("g.io/other:1")),
        ("gcr.io/p/app/sub:1", Some("g.io/other/sub:1")),
        ("gcr.io/p/apple:1", None),
        ("redis:7", Some("r.io/redis:7")),
        ("library/redis:7", Some("r.io/redis:7")),
        ("project-a.azurecr.io/docker-mirror/nats:1", None),
    ] {
        assert_eq!(
            images(table, image).first().map(String::as_str),
            target,
            "{image}"
        );
    }
}

#[test]
fn a_canonical_rule_keeps_the_canonical_remainder() {
    let config = "imageRedirMapping: [{src: docker.io, to: x.io/m, canonical: true}]";
    assert_eq!(images(config, "nginx:1"), ["x.io/m/library/nginx:1"]);
}

#[test]
fn a_target_is_never_redirected_again() {
    let config = "imageRedirMapping: [{src: docker.io, to: docker.io/mirror}, {src: a.io, to: b.io/x}, {src: b.io, to: a.io/y}]";
    assert_eq!(images(config, "nginx:1"), ["docker.io/mirror/nginx:1"]);
    assert!(images(config, "mirror/nginx:1").is_empty());
    assert_eq!(images(config, "a.io/q:1"), ["b.io/x/q:1"]);
    assert!(images(config, "b.io/x/q:1").is_empty());
}

#[test]
fn the_original_is_known_as_such() {
    let plan = plan("registries: [{address: docker.io}]", "nginx");
    assert!(plan.is_original(&plan.candidates[0]));
    let plan = super::tests::plan("registries: [{address: docker.io, auth: 'u:p'}]", "nginx");
    assert!(!plan.is_original(&plan.candidates[0]));
}
