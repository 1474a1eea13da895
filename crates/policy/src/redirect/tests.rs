//! Rule 3 as a table: what is written, and where it leads. `None` is left alone.

use crate::config::Settings;
use crate::{CandidateKind, Plan, Reference};

const HEX: &str = "4444444444444444444444444444444444444444444444444444444444444444";

/// What the redirect makes of `image`; `None` where no rule applies or `image` is no name.
fn redirected(config: &str, image: &str) -> Option<String> {
    let (settings, findings) = Settings::read(config, &|_| None);
    assert!(findings.is_empty(), "{findings:?}");
    let reference = Reference::parse(image).ok()?;
    let plan = Plan::new(&settings.rules, &reference);
    let target = plan
        .candidates
        .into_iter()
        .find(|candidate| matches!(candidate.kind, CandidateKind::Redirect(_)))?;
    Some(target.image)
}

fn check(config: &str, table: &[(&str, Option<&str>)]) {
    for (image, target) in table {
        let image = image.replace("HEX", HEX);
        let target = target.map(|target| target.replace("HEX", HEX));
        assert_eq!(redirected(config, &image), target, "{image} by {config}");
    }
}

#[test]
fn the_example_of_the_rule_in_every_spelling_of_src_and_to() {
    for src in [
        "docker.io",
        "docker.io/",
        "index.docker.io",
        "index.docker.io/",
        "registry-1.docker.io/",
    ] {
        for to in [
            "project-a.azurecr.io/docker-mirror",
            "project-a.azurecr.io/docker-mirror/",
            "https://project-a.azurecr.io/docker-mirror/",
            "http://project-a.azurecr.io/docker-mirror",
        ] {
            let config = format!("imageRedirMapping: [{{src: '{src}', to: '{to}'}}]");
            let mirror = |rest: &str| Some(format!("project-a.azurecr.io/docker-mirror/{rest}"));
            for (image, rest) in [
                ("docker.io/nats:2.10.26-alpine", "nats:2.10.26-alpine"),
                ("nats:2.10.26-alpine", "nats:2.10.26-alpine"),
                ("docker.io/bitnami/nats:2", "bitnami/nats:2"),
            ] {
                assert_eq!(redirected(&config, image), mirror(rest), "{config}");
            }
        }
    }
}

#[test]
fn every_form_of_a_reference() {
    let config = "imageRedirMapping: [{src: docker.io/, to: m.io/hub/}]";
    check(
        config,
        &[
            ("nats", Some("m.io/hub/nats:latest")),
            ("nats:2", Some("m.io/hub/nats:2")),
            ("nats:2.10.26-alpine", Some("m.io/hub/nats:2.10.26-alpine")),
            ("nats:V1_x.y-z", Some("m.io/hub/nats:V1_x.y-z")),
            ("nats@sha256:HEX", Some("m.io/hub/nats@sha256:HEX")),
            ("nats:2@sha256:HEX", Some("m.io/hub/nats:2@sha256:HEX")),
            ("library/nats:2", Some("m.io/hub/library/nats:2")),
            ("docker.io/nats:2", Some("m.io/hub/nats:2")),
            ("docker.io/library/nats:2", Some("m.io/hub/library/nats:2")),
            ("docker.io/nats", Some("m.io/hub/nats:latest")),
            (
                "docker.io/nats@sha256:HEX",
                Some("m.io/hub/nats@sha256:HEX"),
            ),
            ("index.docker.io/nats:2", Some("m.io/hub/nats:2")),
            (
                "index.docker.io/library/nats:2",
                Some("m.io/hub/library/nats:2"),
            ),
            ("registry-1.docker.io/nats:2", Some("m.io/hub/nats:2")),
            ("bitnami/nats:2", Some("m.io/hub/bitnami/nats:2")),
            ("bitnami/a/b/c:2", Some("m.io/hub/bitnami/a/b/c:2")),
            (
                "docker.io/bitnami/nats:2@sha256:HEX",
                Some("m.io/hub/bitnami/nats:2@sha256:HEX"),
            ),
            ("a__b/c-d.e_f:1", Some("m.io/hub/a__b/c-d.e_f:1")),
            // Hosts that only look like the one of the rule.
            ("docker.io.evil.com/nats:2", None),
            ("mydocker.io/nats:2", None),
            ("hub.docker.io/nats:2", None),
            ("docker.io:443/nats:2", None),
            ("docker.io:5000/nats:2", None),
            ("localhost/nats:2", None),
            ("localhost:5000/nats:2", None),
            ("Docker/nats:2", None),
            ("ghcr.io/docker.io/nats:2", None),
            ("127.0.0.1:5000/nats:2", None),
            ("[::1]:5000/nats:2", None),
            ("[2001:db8::1]/nats:2", None),
            // What is no name.
            ("", None),
            ("HEX", None),
            ("sha256:HEX", None),
            ("Nats:2", None),
            ("nats:", None),
            ("nats:-1", None),
            ("nats@sha256:abc", None),
            ("nats@md5:HEX", None),
            ("nats:2@", None),
            ("/nats:2", None),
            ("nats//x:2", None),
            ("docker.io/", None),
            ("nats 2", None),
            ("_nats:2", None),
            // Already there.
            ("m.io/hub/nats:2", None),
            ("m.io/hub/library/nats@sha256:HEX", None),
            // Elsewhere on the target's host.
            ("m.io/hubble/nats:2", None),
        ],
    );
}

#[test]
fn whole_segments_and_the_longest_src() {
    let config = "imageRedirMapping:\n\
        - {src: docker.io, to: short.io/all}\n\
        - {src: docker.io/lib, to: wrong.io/lib}\n\
        - {src: docker.io/bitnami/, to: b.io/legacy}\n\
        - {src: docker.io/bitnami/charts/, to: c.io}\n\
        - {src: 'a.io:50', to: fifty.io/x}\n\
        - {src: 'a.io:5000/team', to: team.io}\n\
        - {src: '[::1]:5000/', to: six.io/x}\n\
        - {src: localhost/p, to: l.io}\n\
        - {src: 10.0.0.1, to: 'ten.io:8443/x'}\n\
        - {src: grafana/loki, to: loki.io/mirror}\n";
    check(
        config,
        &[
            ("lib:1", Some("wrong.io/lib:1")),
            ("lib/x:1", Some("wrong.io/lib/x:1")),
            ("library/x:1", Some("short.io/all/library/x:1")),
            ("libx/x:1", Some("short.io/all/libx/x:1")),
            ("x:1", Some("short.io/all/x:1")),
            ("bitnami/nats:1", Some("b.io/legacy/nats:1")),
            (
                "docker.io/bitnami/nats@sha256:HEX",
                Some("b.io/legacy/nats@sha256:HEX"),
            ),
            (
                "bitnamilegacy/nats:1",
                Some("short.io/all/bitnamilegacy/nats:1"),
            ),
            ("bitnami/charts/nats:1", Some("c.io/nats:1")),
            // By the longest rule nothing would be left of the name; the next one leaves something.
            ("bitnami/charts:1", Some("b.io/legacy/charts:1")),
            ("a.io:50/x:1", Some("fifty.io/x/x:1")),
            ("a.io:5000/x:1", None),
            ("a.io/x:1", None),
            ("a.io:5000/team/x:1", Some("team.io/x:1")),
            ("a.io:5000/teams/x:1", None),
            ("[::1]:5000/x:1", Some("six.io/x/x:1")),
            ("[::1]:500/x:1", None),
            ("[::1]/x:1", None),
            ("localhost/p/x:1", Some("l.io/x:1")),
            ("localhost/q/x:1", None),
            ("localhost:80/p/x:1", None),
            ("10.0.0.1/x:1", Some("ten.io:8443/x/x:1")),
            ("10.0.0.10/x:1", None),
            ("10.0.0.1:80/x:1", None),
            ("grafana/loki:3", Some("loki.io/mirror:3")),
            ("docker.io/grafana/loki:3", Some("loki.io/mirror:3")),
            (
                "grafana/loki-canary:3",
                Some("short.io/all/grafana/loki-canary:3"),
            ),
            ("ghcr.io/grafana/loki:3", None),
        ],
    );
}

#[test]
fn canonical_rules_keep_library() {
    let config = "imageRedirMapping: [{src: docker.io, to: m.io/hub, canonical: true}, \
                  {src: ghcr.io, to: g.io, canonical: true}]";
    check(
        config,
        &[
            ("nginx", Some("m.io/hub/library/nginx:latest")),
            ("docker.io/nginx:1", Some("m.io/hub/library/nginx:1")),
            ("library/nginx:1", Some("m.io/hub/library/nginx:1")),
            (
                "nginx:1@sha256:HEX",
                Some("m.io/hub/library/nginx:1@sha256:HEX"),
            ),
            ("bitnami/nginx:1", Some("m.io/hub/bitnami/nginx:1")),
            ("ghcr.io/nginx:1", Some("g.io/nginx:1")),
        ],
    );
}

#[test]
fn a_target_that_can_not_be_a_name_is_none() {
    let long = "x".repeat(250);
    let config = "imageRedirMapping: [{src: docker.io, to: m.io/hub}]";
    assert_eq!(redirected(config, &long), None);
}
