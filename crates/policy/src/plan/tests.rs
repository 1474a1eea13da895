//! Rules 1 to 5, as the plans they lead to.

use super::*;
use proptest::prelude::*;

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
    // On a cloud whose tenants share a host, a path is one tenant's own.
    let cloud = "registries: [{address: registry.cn-hangzhou.aliyuncs.com}]";
    assert!(images(cloud, "ghcr.io/team/app").is_empty());
    let tenant = "registries: [{address: registry.cn-hangzhou.aliyuncs.com/us}]";
    assert_eq!(
        images(tenant, "ghcr.io/team/app:1"),
        ["registry.cn-hangzhou.aliyuncs.com/us/team/app:1"]
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

#[test]
fn a_host_of_one_word_is_written_with_its_port_everywhere() {
    let config = "address: http://harbor\nauth: 'u:p'\nregistries: [{address: 'https://vault/hub'}]\n\
                  imageRedirMapping: [{src: docker.io, to: 'http://depot/hub'}]";
    assert_eq!(
        images(config, "app:1"),
        [
            "harbor:80/library/app:1",
            "vault:443/hub/library/app:1",
            "depot:80/hub/app:1"
        ]
    );
    // It is the caller's own host under that name, and under no other.
    let config = "registries: [{address: 'http://harbor'}]";
    let credentials = |image| plan(config, image).candidates[0].credentials.clone();
    assert_eq!(credentials("harbor:80/app:1"), CredentialChoice::Callers);
    assert_eq!(credentials("harbor/app:1"), CredentialChoice::Anonymous);
}

#[test]
fn a_name_that_can_not_be_used_is_left_out_with_its_reason() {
    let long = "x".repeat(250);
    let config = "registries: [{address: a.io/path}, {address: b.io}]\nimageRedirMapping: [{src: docker.io, to: c.io/path, priority: 900}]";
    let plan = plan(config, &format!("y/{long}:1"));
    assert_eq!(plan.candidates.len(), 1, "{:?}", plan.candidates);
    assert_eq!(plan.candidates[0].endpoint.host(), "b.io");
    let out: Vec<_> = plan.left_out.iter().map(|l| l.registry.as_str()).collect();
    assert_eq!(out, ["https://c.io/path", "https://a.io/path"]);
    assert!(
        plan.left_out[1]
            .why
            .contains("257 characters; 255 are allowed"),
        "{:?}",
        plan.left_out
    );
    // The grammar has no IPv4 part in an IPv6 address.
    let plan = super::tests::plan(
        "registries: [{address: 'http://[::ffff:10.0.0.1]:5000'}]",
        "app",
    );
    assert!(plan.candidates.is_empty());
    assert_eq!(plan.left_out.len(), 1);
}

#[test]
fn what_is_probed_is_what_would_be_pulled() {
    // To Docker Hub a name without namespace is `library/`'s.
    let plan = plan(
        "registries: [{address: docker.io, mirrorOf: ['*']}]\nimageRedirMapping: [{src: ghcr.io/hub, to: docker.io, priority: 900}]",
        "ghcr.io/hub/nginx:1",
    );
    let repositories: Vec<_> = plan
        .candidates
        .iter()
        .map(|c| c.repository.as_str())
        .collect();
    assert_eq!(repositories, ["library/nginx", "hub/nginx"]);
}

#[test]
fn layout_host_keeps_hosts_apart() {
    let config = "registries: [{address: 'http://cache.corp:5000/edge', layout: host}]";
    for (image, candidate) in [
        ("nginx:1", "cache.corp:5000/edge/docker.io/library/nginx:1"),
        ("quay.io/a/b:1", "cache.corp:5000/edge/quay.io/a/b:1"),
        (
            "sealos.hub:5000/a:1",
            "cache.corp:5000/edge/sealos.hub_5000/a:1",
        ),
        ("Foo.corp/bar:1", "cache.corp:5000/edge/foo.corp/bar:1"),
        // What is there already stays as it is.
        (
            "cache.corp:5000/edge/quay.io/a/b:1",
            "cache.corp:5000/edge/quay.io/a/b:1",
        ),
    ] {
        assert_eq!(images(config, image), [candidate], "{image}");
    }
    let reason = &plan(config, "nginx").candidates[0].reason;
    assert!(
        reason.ends_with("images below their host's name"),
        "{reason}"
    );
    // `edge/foo/bar` would be read as Docker Hub's `foo/bar`: a stranger's image.
    for image in ["[::1]:5000/a:1", "Foo/bar:1"] {
        let unreadable = plan(config, image);
        assert!(unreadable.candidates.is_empty(), "{image}");
        let why = &unreadable.left_out[0].why;
        assert!(why.contains("can't be read back"), "{why}");
    }
}

#[test]
fn the_node_cache_in_short() {
    for (config, candidate) in [
        (
            "useNodeCache: true\naddress: s.io",
            "localhost:7439/docker.io/library/app:1",
        ),
        (
            "useNodeCache: http://10.0.0.1:7439/x\naddress: s.io",
            "10.0.0.1:7439/x/docker.io/library/app:1",
        ),
    ] {
        assert_eq!(images(config, "app:1"), [candidate, "s.io/library/app:1"]);
    }
    let plan = plan("useNodeCache: true", "app:1");
    assert_eq!(
        plan.candidates[0].reason,
        "priority 10000, the node's cache, configured for every host, images below their host's name"
    );
    assert_eq!(
        plan.candidates[0].endpoint.to_string(),
        "http://localhost:7439"
    );
    assert_eq!(
        images("useNodeCache: false\naddress: s.io", "app:1"),
        ["s.io/library/app:1"]
    );
}

#[test]
fn credentials_of_a_tls_entry_never_go_over_plain_http() {
    let choice = |config: &str| {
        let candidates = plan(config, "app:1").candidates;
        assert_eq!(candidates.len(), 1, "{config}");
        (
            candidates[0].credentials.clone(),
            candidates[0].note.clone(),
        )
    };
    let secret = CredentialChoice::Configured(Credentials::new("u", "p"));
    for config in [
        "registries: [{address: 'http://a.io:5000', priority: 900}, {address: 'https://a.io:5000', auth: 'u:p'}]",
        "address: http://a.io:5000\nregistries: [{address: 'a.io:5000', auth: 'u:p'}]",
        "registries: [{address: 'localhost:5000', priority: 900}, {address: 'https://localhost:5000', auth: 'u:p'}]",
        "registries: [{address: 'http://localhost:5000', priority: 900}, {address: 'localhost:5000', auth: 'u:p'}]",
        // The same place by a redirect.
        "registries: [{address: 'http://a.io:5000'}]\nimageRedirMapping: [{src: docker.io/library, to: 'https://a.io:5000/library', auth: 'u:p'}]",
    ] {
        let (credentials, note) = choice(config);
        assert_eq!(credentials, CredentialChoice::Anonymous, "{config}");
        assert!(
            note.unwrap().contains("not sent over plain HTTP"),
            "{config}"
        );
    }
    for config in [
        "registries: [{address: 'https://a.io:5000', priority: 900}, {address: 'http://a.io:5000', auth: 'u:p'}]",
        "registries: [{address: 'http://a.io:5000', priority: 900}, {address: 'http://a.io:5000', auth: 'u:p'}]",
        "registries: [{address: 'https://a.io:5000'}]\nimageRedirMapping: [{src: docker.io/library, to: 'https://a.io:5000/library', auth: 'u:p'}]",
    ] {
        assert_eq!(choice(config), (secret.clone(), None), "{config}");
    }
}

#[test]
fn credentials_of_a_verified_entry_never_go_where_nothing_is_verified() {
    for config in [
        "registries: [{address: 'https://a.io', insecureSkipVerify: true, priority: 900}, {address: 'https://a.io', auth: 'u:p'}]",
        "registries: [{address: 'a.io', insecureSkipVerify: true, priority: 900}, {address: 'https://a.io:443', auth: 'u:p'}]",
        "address: https://a.io\nauth: u:p\nofflinePriority: 1\nregistries: [{address: a.io, insecureSkipVerify: true}]",
        // The same place by a redirect.
        "registries: [{address: 'https://a.io', insecureSkipVerify: true}]\nimageRedirMapping: [{src: docker.io/library, to: 'https://a.io/library', auth: 'u:p'}]",
        "registries: [{address: 'https://a.io'}]\nimageRedirMapping: [{src: docker.io/library, to: 'https://a.io/library', auth: 'u:p', priority: 1}, {src: docker.io/, to: 'https://a.io/', insecureSkipVerify: true}]",
    ] {
        let candidates = plan(config, "app:1").candidates;
        let first = &candidates[0];
        if first.tls.insecure_skip_verify {
            assert_eq!(first.credentials, CredentialChoice::Anonymous, "{config}");
            let note = first.note.as_ref().unwrap();
            assert!(note.contains("not sent where it is not"), "{note}");
        }
        let unverified = candidates.iter().filter(|c| c.tls.insecure_skip_verify);
        for candidate in unverified {
            let choice = &candidate.credentials;
            assert_eq!(*choice, CredentialChoice::Anonymous, "{config}");
        }
    }
    let secret = CredentialChoice::Configured(Credentials::new("u", "p"));
    for config in [
        // Written for one that verifies nothing, or for one that has nothing to verify.
        "registries: [{address: 'https://a.io', priority: 900}, {address: 'https://a.io', auth: 'u:p', insecureSkipVerify: true}]",
        "registries: [{address: 'https://a.io', insecureSkipVerify: true, priority: 900}, {address: 'https://a.io', auth: 'u:p', insecureSkipVerify: true}]",
        "registries: [{address: 'https://a.io:5000', insecureSkipVerify: true, priority: 900}, {address: 'http://a.io:5000', auth: 'u:p'}]",
    ] {
        let candidates = plan(config, "app:1").candidates;
        assert_eq!(candidates[0].credentials, secret, "{config}");
        assert_eq!(candidates[0].note, None, "{config}");
    }
}

#[test]
fn a_short_name_means_what_the_runtime_makes_of_it() {
    let (settings, _) = Settings::read(
        "registries: [{address: s.io}]\nimageRedirMapping: [{src: quay.io, to: q.io/m}]",
        &|_| None,
    );
    let rules = |search: &[&str]| {
        settings
            .rules
            .clone()
            .with_short_names(crate::short_names::ShortNames {
                aliases: [("app".to_owned(), "quay.io/team/app".to_owned())].into(),
                search: search.iter().map(ToString::to_string).collect(),
            })
    };
    let plan = |search, image| Plan::new(&rules(search), &Reference::parse(image).unwrap());
    let alias = plan(&[], "app:1");
    assert_eq!(alias.key, "quay.io/team/app:1");
    assert_eq!(alias.reference.as_written(), "app:1");
    let names: Vec<_> = alias.candidates.iter().map(|c| c.image.as_str()).collect();
    assert_eq!(names, ["s.io/team/app:1", "q.io/m/team/app:1"]);
    assert_eq!(
        plan(&["harbor.corp"], "nginx").key,
        "harbor.corp/nginx:latest"
    );
    assert_eq!(
        plan(&["harbor.corp"], "docker.io/nginx").key,
        "docker.io/library/nginx:latest"
    );
    let several = plan(&["a.io", "b.io"], "nginx:1");
    assert!(several.candidates.is_empty());
    assert_eq!(several.key, "nginx:1");
    assert!(several.untouched.is_some());
}

#[test]
fn what_kubelet_sent_for_a_short_name_is_docker_hubs() {
    let (settings, _) = Settings::read(
        "registries: [{address: quay.io}, {address: docker.io}]",
        &|_| None,
    );
    let rules = settings
        .rules
        .with_short_names(crate::short_names::ShortNames {
            aliases: std::collections::BTreeMap::new(),
            search: vec!["quay.io".to_owned()],
        });
    let plan = Plan::new(&rules, &Reference::parse("app:1").unwrap());
    assert_eq!(plan.candidates.len(), 1);
    assert_eq!(plan.candidates[0].image, "quay.io/app:1");
    assert_eq!(plan.candidates[0].credentials, CredentialChoice::Anonymous);
}

/// Addresses as people write them, those of one word and of Docker Hub's other names among them.
fn address() -> impl Strategy<Value = String> {
    let host = prop_oneof![
        "[a-zA-Z]{1,8}",
        "[a-z]{1,5}\\.[a-z]{2,3}",
        Just("localhost".to_owned()),
        Just("LOCALHOST".to_owned()),
        Just("docker.io".to_owned()),
        Just("index.docker.io".to_owned()),
        Just("Registry-1.Docker.IO".to_owned()),
        Just("[::1]".to_owned()),
        Just("[fd00::5]".to_owned()),
        Just("[::ffff:1.2.3.4]".to_owned()),
        Just("10.0.0.1".to_owned()),
    ];
    let scheme = prop_oneof![Just(""), Just("http://"), Just("https://")];
    let path = prop_oneof![
        Just(String::new()),
        Just("/hub".to_owned()),
        Just("/library".to_owned()),
        "/[a-z]{240}",
    ];
    (scheme, host, prop::option::of(1..65535u16), path).prop_map(|(scheme, host, port, path)| {
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        format!("{scheme}{host}{port}{path}")
    })
}

fn image() -> impl Strategy<Value = String> {
    let host = prop_oneof![
        Just(""),
        Just("docker.io/"),
        Just("index.docker.io/"),
        Just("Foo/"),
        Just("harbor:80/"),
        Just("localhost/"),
        Just("[::1]:5000/"),
        Just("ghcr.io/"),
    ];
    let repository = prop_oneof!["[a-z]{1,6}", "[a-z]{1,5}/[a-z]{1,5}", "[a-z]{200,250}"];
    let suffix = prop_oneof![Just(""), Just(":1"), Just(":V2")];
    (host, repository, suffix).prop_map(|(h, r, s)| format!("{h}{r}{s}"))
}

proptest! {
    /// The invariant behind every name that we make: it parses back to the host it was made for, and is
    /// probed where it would be pulled.
    #[test]
    fn every_name_made_parses_back_to_its_host(
        addresses in prop::collection::vec((address(), any::<bool>()), 1..4),
        to in address(),
        image in image(),
    ) {
        let entries: Vec<_> = addresses
            .iter()
            .map(|(address, host)| {
                let layout = if *host { "host" } else { "repository" };
                format!("{{address: '{address}', auth: 'u:p', mirrorOf: ['*'], layout: {layout}}}")
            })
            .collect();
        let config = format!(
            "registries: [{}]\nimageRedirMapping: [{{src: docker.io, to: '{to}', auth: 'u:p'}}]\nuseNodeCache: '{to}'\n",
            entries.join(", ")
        );
        let (settings, _) = Settings::read(&config, &|_| None);
        let reference = Reference::parse(&image);
        prop_assume!(reference.is_ok());
        let plan = Plan::new(&settings.rules, &reference.unwrap());
        for candidate in &plan.candidates {
            let read = Reference::parse(&candidate.image).unwrap();
            prop_assert_eq!(read.domain(), candidate.endpoint.domain());
            prop_assert_eq!(read.repository(), candidate.repository.as_str());
            let (host, _) = Endpoint::parse(read.domain()).unwrap();
            prop_assert_eq!(host.host(), candidate.endpoint.host());
        }
    }
}
