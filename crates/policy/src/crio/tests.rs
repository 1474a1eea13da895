use super::*;
use crate::config::Settings;

fn rules(config: &str) -> Rules {
    let (settings, findings) = Settings::read(config, &|_| None);
    assert!(
        !findings.iter().any(|finding| finding.is_error()),
        "{findings:?}"
    );
    settings.rules
}

fn hints(config: &str, files: &Files<'_>) -> Vec<String> {
    let (crio, problems) = CrioConfig::read(files);
    assert_eq!(problems, [""; 0]);
    crio.hints(&rules(config))
}

/// With a pause image of its own, about which there is nothing to say.
const PAUSE: (&str, &str) = (
    "crio.conf",
    "[crio.image]\npause_image = 'mirror.corp/pause:3.10'\n",
);

const MIRROR: &str = "registries: [{address: https://mirror.corp, mirrorOf: [docker.io, quay.io]}]";

#[test]
fn plain_http_needs_insecure_by_host_and_port() {
    let config =
        "address: http://mirror.corp:5000/hub\nregistries: [{address: 'https://mirror.corp'}]";
    let pause = [(
        "crio.conf",
        "[crio.image]\npause_image = 'mirror.corp/pause:3.10'\n",
    )];
    let registries = |text| [("registries.conf", text)];
    let hint = "CRI-O pulls from mirror.corp:5000 by TLS only, unless /etc/containers/registries.conf.d/ has \
                `[[registry]]`, `location = \"mirror.corp:5000\"`, `insecure = true`";
    for (text, expected) in [
        ("", vec![hint.to_owned()]),
        ("[[registry]]\nlocation = 'mirror.corp'\ninsecure = true\n", vec![hint.to_owned()]),
        ("[[registry]]\nlocation = 'mirror.corp:5000'\ninsecure = true\n", vec![]),
        ("[[registry]]\nlocation = 'mirror.corp:5000/hub'\ninsecure = true\n", vec![]),
        (
            "[[registry]]\nlocation = 'mirror.corp:5000'\nblocked = true\n",
            vec!["CRI-O pulls nothing from mirror.corp:5000: registries.conf has `blocked = true` for it".to_owned()],
        ),
    ] {
        let registries = registries(text);
        let files = Files {
            crio_conf: &pause,
            registries_conf: &registries,
            ..Files::default()
        };
        let found: Vec<_> = hints(config, &files)
            .into_iter()
            .filter(|hint| !hint.contains("pause image"))
            .collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn tls_options_do_not_reach_crio() {
    let config = "registries: [{address: a.corp, caFile: /ca.pem, mirrorOf: [quay.io]}]\n\
                  imageRedirMapping: [{src: docker.io, to: 'b.corp:8443/hub', insecureSkipVerify: true}]";
    let found = hints(config, &Files::default());
    assert!(
        found[0].contains("copy the file to /etc/containers/certs.d/a.corp/ca.crt"),
        "{found:?}"
    );
    assert!(
        found[1].contains("`insecureSkipVerify` for b.corp:8443 is not CRI-O's"),
        "{found:?}"
    );
    assert_eq!(found.len(), 2, "{found:?}");
    let registries = [(
        "x",
        "[[registry]]\nlocation = 'b.corp:8443'\ninsecure = true\n",
    )];
    let files = Files {
        certs_d: &["a.corp"],
        registries_conf: &registries,
        ..Files::default()
    };
    assert_eq!(hints(config, &files), [""; 0]);
}

fn by_policy(policy: &str) -> Vec<String> {
    hints(
        MIRROR,
        &Files {
            crio_conf: &[PAUSE],
            policy_json: Some(("policy.json", policy)),
            ..Files::default()
        },
    )
}

#[test]
fn signatures_are_judged_by_the_mirrors_name() {
    let accept = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
    assert_eq!(by_policy(accept), [""; 0]);
    let scopes = |scopes: &str| {
        format!(
            r#"{{"default": [{{"type": "insecureAcceptAnything"}}], "transports": {{"docker": {{{scopes}}}}}}}"#
        )
    };
    let found = by_policy(&scopes(
        r#""docker.io": [{"type": "reject"}], "ghcr.io": [{"type": "reject"}]"#,
    ));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("policy.json rejects docker.io, but"),
        "{found:?}"
    );
    let found = by_policy(&scopes(
        r#""quay.io/org": [{"type": "sigstoreSigned", "keyPath": "/k"}]"#,
    ));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("`use-sigstore-attachments: true`"),
        "{found:?}"
    );
    // The mirror's images have to be signed, too.
    let found = by_policy(&scopes(
        r#""quay.io/org": [{"type": "sigstoreSigned"}], "mirror.corp": [{"type": "sigstoreSigned"}]"#,
    ));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("remapIdentity"), "{found:?}");
    let found = by_policy(&scopes(r#""mirror.corp": [{"type": "reject"}]"#));
    assert_eq!(
        found,
        ["policy.json rejects images of mirror.corp, so none can be pulled from there"]
    );
    // By the policy's and by the transport's default.
    assert_eq!(by_policy(r#"{"default": [{"type": "reject"}]}"#).len(), 1);
    assert_eq!(by_policy(&scopes(r#""": [{"type": "reject"}]"#)).len(), 1);
    let found = by_policy(&scopes(r#""*.io": [{"type": "reject"}]"#));
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn pinned_images_have_the_mirrors_names() {
    let pinned = |list: &str| {
        let text = format!(
            "[crio.image]\npause_image = 'mirror.corp/pause:3'\npinned_images = [{list}]\n"
        );
        let files = [("crio.conf", text.as_str())];
        let files = Files {
            crio_conf: &files,
            ..Files::default()
        };
        hints(MIRROR, &files)
    };
    let found = pinned("'quay.io/org/agent:1', 'ghcr.io/org/x:1'");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("list mirror.corp/org/agent:1 too"),
        "{found:?}"
    );
    for rest in ["mirror.corp/org/agent:1", "mirror.corp/org/*", "*agent*"] {
        assert_eq!(
            pinned(&format!("'quay.io/org/agent:1', '{rest}'")),
            [""; 0],
            "{rest}"
        );
    }
}

#[test]
fn the_pause_image_is_crios_own() {
    let config = "address: https://sealos.hub:5000";
    let found = hints(config, &Files::default());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("`pause_image = \"sealos.hub:5000/pause:3.10\"`"),
        "{found:?}"
    );
    // It comes from there already, or nothing of the config has it.
    let here = [(
        "crio.conf",
        "[crio.image]\npause_image = 'sealos.hub:5000/pause:3.10'\n",
    )];
    let files = Files {
        crio_conf: &here,
        ..Files::default()
    };
    assert_eq!(hints(config, &files), [""; 0]);
    assert_eq!(hints(MIRROR, &Files::default()), [""; 0]);
    assert_eq!(hints("debug: true", &Files::default()), [""; 0]);
}

#[test]
fn a_later_file_wins_and_a_broken_one_is_passed_over() {
    let files = [
        (
            "crio.conf",
            "[crio.image]\npause_image = 'sealos.hub:5000/pause:3.9'\n[crio.runtime]\ndefault_runtime = 'crun'\n",
        ),
        ("10.conf", "token = 'hunter2\n"),
    ];
    let (crio, problems) = CrioConfig::read(&Files {
        crio_conf: &files,
        policy_json: Some(("policy.json", "{\n\"default\": hunter2}")),
        ..Files::default()
    });
    assert_eq!(
        crio.pause_image.as_deref(),
        Some("sealos.hub:5000/pause:3.9")
    );
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].starts_with("10.conf can't be read"),
        "{problems:?}"
    );
    assert!(problems[1].contains("line 2"), "{problems:?}");
    assert!(!problems.concat().contains("hunter2"), "{problems:?}");
}

#[test]
fn the_socket_says_whose_it_is() {
    assert!(is_crio_socket(Path::new("/var/run/crio/crio.sock")));
    assert!(!is_crio_socket(Path::new(
        "/run/containerd/containerd.sock"
    )));
}
