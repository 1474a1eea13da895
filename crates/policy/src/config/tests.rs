//! The file, field by field.

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::rules::{EntryKind, MirrorOf};

fn settings(text: &str) -> (Settings, Vec<String>) {
    let environment = |name: &str| (name == "REGISTRY_PASSWORD").then(|| "from:env".to_owned());
    let (settings, findings) = Settings::read(text, &environment);
    let lines = findings
        .iter()
        .map(|finding| finding.in_file("f.yaml").to_string())
        .collect();
    (settings, lines)
}

fn findings(text: &str) -> Vec<String> {
    settings(text).1
}

#[test]
fn defaults() {
    let (settings, findings) = settings("");
    assert_eq!(findings.len(), 1);
    assert!(findings[0].contains("nothing is routed"), "{findings:?}");
    assert_eq!(
        settings.shim_socket,
        PathBuf::from("/var/run/image-cri-shim.sock")
    );
    assert_eq!(settings.runtime_socket, None);
    assert_eq!(settings.timeout, Duration::from_secs(900));
    assert_eq!(settings.reload_interval, Duration::from_secs(15));
    assert_eq!(settings.probe_timeout, Duration::from_secs(2));
    assert_eq!(
        settings.metrics_address.unwrap().to_string(),
        "127.0.0.1:7441"
    );
    assert_eq!(settings.state_dir, PathBuf::from("/var/lib/image-cri-shim"));
    assert!(settings.rules.fallback_to_origin);
    assert!(!settings.force && !settings.debug);
    assert_eq!(
        settings.cache,
        CacheSettings {
            image_cache_size: 1024,
            image_cache_ttl: Duration::from_secs(1800),
            domain_cache_ttl: Duration::from_secs(600),
            negative_ttl: Duration::from_secs(30),
            stats_log_interval: Some(Duration::from_secs(60)),
        }
    );
}

#[test]
fn a_file_that_the_predecessor_wrote_with_every_zero_value() {
    let (settings, findings) = settings(
        "shim: \"\"\ncri: \"\"\naddress: http://sealos.hub:5000\nforce: false\ndebug: false\n\
         timeout: 0s\nreloadInterval: 0s\nauth: \"\"\ncache:\n  imageCacheSize: 0\n  \
         imageCacheTTL: 0s\n  domainCacheTTL: 0s\n  statsLogInterval: 0s\n  disableStats: false\n\
         offlinePriority: 0\nregistries: null\nversion: v1\nsync: 5\nimage: /var/lib/x\n",
    );
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!(settings.timeout, Duration::from_secs(900));
    assert_eq!(settings.cache.image_cache_size, 1024);
    let offline = &settings.rules.registries[0];
    assert_eq!(
        (offline.priority.get(), offline.default_priority),
        (1000, true)
    );
    assert!(offline.credentials.is_none());
    assert_eq!(settings.state_dir, PathBuf::from("/var/lib/x"));
}

#[test]
fn a_public_mirror_should_say_whose_images_it_has() {
    let (_, findings) = settings(
        "registries: [{address: docker.m.daocloud.io}, {address: hub-mirror.c.163.com, mirrorOf: [docker.io]}, \
         {address: mirror.gcr.io}, {address: harbor.corp}]",
    );
    let [daocloud, google] = findings.as_slice() else {
        panic!("{findings:?}");
    };
    assert!(daocloud.contains("registries[1].mirrorOf"), "{daocloud}");
    assert!(
        daocloud.contains("write `mirrorOf: [docker.io]`"),
        "{daocloud}"
    );
    assert!(google.contains("registries[3].mirrorOf"), "{google}");
}

#[test]
fn every_field_is_read() {
    let (settings, findings) = settings(
        "shim: unix:///run/s.sock\ncri: unix:///run/c.sock\naddress: sealos.hub:5000\n\
         auth: admin:pass:word\nofflinePriority: 700\nforce: true\ndebug: true\ntimeout: 1h30m\n\
         reloadInterval: 30s\nprobeTimeout: 500ms\nfallbackToOrigin: false\n\
         metricsAddress: localhost:9999\ncache: {imageCacheSize: -1, imageCacheTTL: 1m, \
         domainCacheTTL: 2m, negativeTTL: 3s, statsLogInterval: 4s}\nregistries:\n\
         - {address: 'https://harbor.corp/proxy', auth: {username: u, password: 'p:q'}, \
         priority: 800, mirrorOf: [docker.io, 'ghcr.io:443'], caFile: /ca.pem}\n\
         - {address: docker.io, insecureSkipVerify: true, mirrorOf: '*'}\n\
         imageRedirMapping:\n- {src: index.docker.io/, to: 'http://x.io/mirror/', canonical: true, \
         auth: 'u:p', priority: 900}\n",
    );
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!(settings.shim_socket, PathBuf::from("/run/s.sock"));
    assert_eq!(settings.runtime_socket, Some(PathBuf::from("/run/c.sock")));
    assert!(settings.force && settings.debug && !settings.rules.fallback_to_origin);
    assert_eq!(settings.timeout, Duration::from_secs(5400));
    assert_eq!(settings.probe_timeout, Duration::from_millis(500));
    assert_eq!(
        settings.metrics_address.unwrap().to_string(),
        "127.0.0.1:9999"
    );
    assert_eq!(settings.cache.image_cache_size, 0);
    assert_eq!(
        settings.cache.stats_log_interval,
        Some(Duration::from_secs(4))
    );
    let [harbor, offline, hub] = settings.rules.registries.as_slice() else {
        panic!("{:?}", settings.rules.registries);
    };
    assert_eq!(
        offline.credentials.as_ref().unwrap().expose_password(),
        "pass:word"
    );
    assert_eq!(
        harbor.credentials.as_ref().unwrap().expose_password(),
        "p:q"
    );
    assert_eq!(
        harbor.mirror_of,
        MirrorOf::Hosts(vec!["docker.io".into(), "ghcr.io:443".into()])
    );
    assert_eq!(harbor.tls.ca_file, Some(PathBuf::from("/ca.pem")));
    assert_eq!(hub.mirror_of, MirrorOf::Any);
    assert!(hub.tls.insecure_skip_verify);
    let redirect = &settings.rules.redirects[0];
    assert_eq!(
        (redirect.src_domain.as_str(), redirect.src_path.as_str()),
        ("docker.io", "")
    );
    assert_eq!(redirect.to.to_string(), "http://x.io/mirror");
    assert!(redirect.canonical);
    assert_eq!(redirect.priority.unwrap().get(), 900);
}

#[test]
fn unknown_fields_are_warned_about_with_the_nearest_name() {
    assert_eq!(
        findings("address: a.io\nregistrys: []\ncache: {imageCacheTTl: 1m, foo: 1}\nquux: 3\n"),
        [
            "f.yaml:2:1: warning: registrys: unknown field, ignored; did you mean `registries`?",
            "f.yaml:3:9: warning: cache.imageCacheTTl: read as `imageCacheTTL`; write it so",
            "f.yaml:3:28: warning: cache.foo: unknown field, ignored",
            "f.yaml:4:1: warning: quux: unknown field, ignored",
        ]
    );
}

#[test]
fn every_mistake_is_listed_with_its_place() {
    assert_eq!(
        findings(
            "address: ftp://x\ntimeout: 1d\nforce: maybe\nofflinePriority: high\nregistries:\n  - \
             address: a.io\n    priority: 1.5\n  - address: 'b.io:99999'\n  - {priority: 3}\n\
             imageRedirMapping: [{src: 'Docker.IO/Upper', to: x.io}, {src: a.io}]\n\
             metricsAddress: nowhere\n"
        ),
        [
            "f.yaml:1:10: error: address: unknown scheme before `://`; write `http://`, `https://` or no scheme",
            "f.yaml:2:10: error: timeout: unknown unit; Go's durations know `ns`, `us`, `ms`, `s`, `m` and `h` (a day is `24h`)",
            "f.yaml:3:8: error: force: expected `true` or `false`",
            "f.yaml:4:18: error: offlinePriority: expected a whole number",
            "f.yaml:7:15: error: registries[1].priority: expected a whole number",
            "f.yaml:8:14: error: registries[2].address: the port is not a number from 1 to 65535",
            "f.yaml:9:5: warning: registries[3]: no address, so the entry is ignored; write `address: host[:port]`",
            "f.yaml:10:27: error: imageRedirMapping[1].src: not a prefix of image names; write a host and maybe a path, such as `docker.io/bitnami/`",
            "f.yaml:10:57: warning: imageRedirMapping[2]: a redirect needs `src` and `to`; the entry is ignored",
            "f.yaml:11:17: error: metricsAddress: not an address to listen on; write `127.0.0.1:7441`, or `off`",
        ]
    );
}

#[test]
fn sockets_are_absolute_paths_and_not_the_same() {
    for (text, part) in [
        (
            "cri: tcp://127.0.0.1:1\naddress: a.io\n",
            "f.yaml:1:6: error: cri: not a unix",
        ),
        (
            "shim: run/x.sock\naddress: a.io\n",
            "f.yaml:1:7: error: shim: not a unix",
        ),
        (
            "shim: /a.sock\ncri: unix:///a.sock\naddress: a.io\n",
            "f.yaml:2:6: error: cri: is the same",
        ),
    ] {
        let found = findings(text);
        assert!(found.len() == 1 && found[0].starts_with(part), "{found:?}");
    }
}

#[test]
fn broken_yaml_is_one_error_that_quotes_nothing() {
    let found = findings("auth: admin:hunter2\n  x: [\n");
    assert!(found[0].contains("not valid YAML"), "{found:?}");
    assert!(!found.iter().any(|line| line.contains("hunter2")));
}

#[test]
fn priorities_clamp_with_a_warning_and_a_clamped_one_is_not_the_default() {
    let (settings, findings) = settings(
        "registries: [{address: low.io, priority: -5}, {address: high.io, priority: 20000}, {address: mid.io}]\n",
    );
    let order: Vec<_> = settings
        .rules
        .registries
        .iter()
        .map(|r| {
            (
                r.endpoint.host().to_owned(),
                r.priority.get(),
                r.default_priority,
            )
        })
        .collect();
    assert_eq!(
        order,
        [
            ("high.io".into(), 10000, false),
            ("mid.io".into(), 500, true),
            ("low.io".into(), 0, false),
        ]
    );
    assert_eq!(findings.len(), 2);
    assert!(findings[0].contains("registries[1].priority: -5 is out of range; 0 is used"));
}

#[test]
fn ties_go_by_offline_host_port_and_path() {
    let (settings, _) = settings(
        "address: zz.io\nofflinePriority: 500\nregistries: [{address: 'b.io:6000'}, {address: b.io/y}, \
         {address: b.io/x}, {address: 'b.io:5000'}, {address: a.io}]\n",
    );
    let order: Vec<_> = settings
        .rules
        .registries
        .iter()
        .map(|r| r.endpoint.to_string())
        .collect();
    assert_eq!(
        order,
        [
            "https://zz.io",
            "https://a.io",
            "https://b.io/x",
            "https://b.io/y",
            "https://b.io:5000",
            "https://b.io:6000",
        ]
    );
}

#[test]
fn a_registry_listed_twice_is_one_with_the_credentials_of_whichever_has_them() {
    let (settings, _) = settings(
        "address: a.io\nregistries: [{address: 'https://a.io:443', auth: 'u:p', priority: 3}]\n",
    );
    let [only] = settings.rules.registries.as_slice() else {
        panic!("{:?}", settings.rules.registries);
    };
    assert_eq!(only.kind, EntryKind::Offline);
    assert_eq!(only.credentials.as_ref().unwrap().username(), "u");
}

#[test]
fn public_registries_serve_their_own_images_only() {
    let (settings, _) = settings(
        "registries: [{address: index.docker.io}, {address: ghcr.io}, {address: us-docker.pkg.dev}, \
         {address: us-docker.pkg.dev/project/remote}, {address: harbor.corp}]\n",
    );
    for registry in &settings.rules.registries {
        let private = matches!(registry.endpoint.host(), "harbor.corp")
            || !registry.endpoint.path().is_empty();
        assert_eq!(
            registry.mirror_of == MirrorOf::Any,
            private,
            "{}",
            registry.endpoint
        );
    }
}

#[test]
fn credentials_from_the_environment_and_inside_addresses() {
    let (settings, findings) = settings(
        "address: 'http://u:p@a.io'\nregistries:\n- {address: b.io, auth: 'x:${REGISTRY_PASSWORD}'}\n\
         - {address: c.io, auth: '${MISSING}:p'}\n- {address: d.io, auth: 'u:$X${'}\n",
    );
    let passwords: Vec<_> = settings
        .rules
        .registries
        .iter()
        .map(|r| {
            r.credentials
                .as_ref()
                .map(|c| c.expose_password().to_owned())
        })
        .collect();
    assert_eq!(
        passwords,
        [
            Some("p".into()),
            Some("from:env".into()),
            None,
            Some("$X${".into())
        ]
    );
    assert_eq!(findings.len(), 1);
    assert!(
        findings[0].contains("registries[2].auth: `${MISSING}` is not set"),
        "{findings:?}"
    );
}

#[test]
fn a_user_without_a_password_is_told_and_not_shown() {
    let (settings, findings) = settings("registries: [{address: a.io, auth: hunter2}]\n");
    assert!(settings.rules.registries[0].credentials.is_some());
    let all = findings.join("\n");
    assert!(all.contains("registries[1].auth: there is no `:`"), "{all}");
    assert!(!all.contains("hunter2"), "{all}");
}

#[test]
fn nothing_of_an_auth_is_ever_shown() {
    let text =
        "auth: [hunter2]\nregistries: [{address: 'http://user:hunter2@', auth: 'u:hunter2'}]\n";
    let (raw, mut found) = RawConfig::read(text);
    let (settings, more) = Settings::from_raw(&raw, &|_| None);
    found.extend(more);
    let all = format!("{found:?} {:?} {settings:?}", raw.auth);
    assert!(!all.contains("hunter2"), "{all}");
}

/// Every place where text may stand, with a password in it by mistake.
#[test]
fn what_is_written_is_never_repeated_in_a_finding() {
    for field in [
        "shim: @",
        "cri: @",
        "address: 'x://@'",
        "address: '@ x'",
        "offlinePriority: @",
        "force: @",
        "debug: @",
        "timeout: @",
        "reloadInterval: @",
        "probeTimeout: @",
        "fallbackToOrigin: @",
        "metricsAddress: @",
        "rewrite: @",
        "useNodeCache: '@ x'",
        "cache: {imageCacheSize: @}",
        "cache: {imageCacheTTL: @}",
        "cache: {disableStats: @}",
        "cache: {prefix: @}",
        "cache: @",
        "registries: @",
        "registries: [@]",
        "registries: [{address: '@ x'}]",
        "registries: [{address: a.io, priority: @}]",
        "registries: [{address: a.io, layout: @}]",
        "registries: [{address: a.io, mirrorOf: ['@ x']}]",
        "registries: [{address: a.io, mirrorOf: [{x: @}]}]",
        "registries: [{address: a.io, insecureSkipVerify: @}]",
        "registries: [{address: a.io, pullSecret: @}]",
        "registries: [{address: a.io, authSecret: @}]",
        "registries: [{address: a.io, 'u:@'}]",
        "registries: [{address: a.io, '@ x': 1, '@ x': 2}]",
        "imageRedirMapping: [{src: '@ x', to: a.io}]",
        "imageRedirMapping: [{src: a.io, to: '@ x'}]",
        "imageRedirMapping: [{src: a.io, to: b.io, canonical: @}]",
        "auth: [@]",
        "'u:@': 1\n'u:@': 2",
        "'u:@': 1",
        "auth: 'u:@\n",
        "@",
        "- @",
        "timeout: -1s@",
        "sealos: {address: '@ x'}",
        "sealos: {auth: [@]}",
        "sealos: @",
        "sealos: {'u:@': 1}",
        "configMapEnv: {@: 1}",
        "excludeNamespaces: {a: @}",
    ] {
        let text = field.replace('@', "Hunter2!pass");
        let (_, findings) = Settings::read(&text, &|_| None);
        let mut shown = format!("{findings:?}");
        match ConfigMap::read(&text) {
            Ok((map, findings)) => {
                let merged = merge(&RawConfig::default(), &map);
                shown.push_str(&format!(
                    "{findings:?} {:?} {:?}",
                    merged.lines, merged.lost
                ));
            }
            Err(error) => shown.push_str(&format!("{error:?}")),
        }
        assert!(
            !shown.to_ascii_lowercase().contains("hunter"),
            "{field}: {shown}"
        );
        assert!(!findings.is_empty(), "{field}");
    }
}

#[test]
fn a_config_is_one_document_and_may_begin_with_a_byte_order_mark() {
    for text in [
        "\u{feff}address: a.io\n",
        "\u{feff}# ours\naddress: a.io\n",
        "---\naddress: a.io\n...\n",
        "address: a.io\n---\n",
        "address: a.io\n---\n# nothing\n",
    ] {
        let (settings, findings) = Settings::read(text, &|_| None);
        assert_eq!(findings, [], "{text:?}");
        assert!(!settings.rules.is_empty(), "{text:?}");
        assert_eq!(ConfigMap::read(text).map(|_| ()), Ok(()), "{text:?}");
    }
    for text in [
        "address: a.io\n---\naddress: b.io\n",
        "---\n---\naddress: b.io\n",
        "address: a.io\n---\ndebug: [\n",
    ] {
        let found = findings(text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("error: not valid YAML: "), "{found:?}");
        assert!(ConfigMap::read(text).is_err(), "{text:?}");
    }
    let found = findings("address: a.io\n---\naddress: b.io\n");
    assert_eq!(
        found,
        [
            "f.yaml:3:1: error: not valid YAML: a second document begins here; a config is one document, so remove the `---` before it"
        ]
    );
}

#[test]
fn numbers_that_do_not_fit_are_clamped_like_others() {
    let (settings, found) = settings(
        "registries: [{address: a.io, priority: 99999999999999999999}, {address: b.io, priority: -99999999999999999999}]",
    );
    let order: Vec<_> = settings
        .rules
        .registries
        .iter()
        .map(|r| r.priority.get())
        .collect();
    assert_eq!(order, [10_000, 0]);
    assert_eq!(found.len(), 2, "{found:?}");
}
