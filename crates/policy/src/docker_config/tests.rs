use super::*;

fn endpoint(text: &str) -> Endpoint {
    Endpoint::parse(text).unwrap().0
}

fn config() -> DockerConfig {
    DockerConfig::parse(
        r#"{
        "auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnBhOnNz"},
            "quay.io": {"username": "q", "password": "p"},
            "quay.io/team": {"auth": "dGVhbTp4"},
            "bad.io": {"auth": "!!!"},
            "token.io": {"auth": "dTpw", "identitytoken": "hunter2"},
            "store.io": {},
            "r.io:5000": {"auth": "cG9ydDp4AAA="}
        },
        "credHelpers": {"123.dkr.ecr.eu-west-1.amazonaws.com": "ecr-login", "evil.io": "../../bin/sh"},
        "credsStore": "desktop", "HttpHeaders": {"x": "y"}}"#,
    )
    .unwrap()
}

fn user(at: &str) -> Option<String> {
    match config().lookup(&endpoint(at)).unwrap() {
        Lookup::Credentials(found) => Some(found.username().to_owned()),
        _ => None,
    }
}

#[test]
fn the_longest_part_of_the_place_wins() {
    assert_eq!(user("quay.io").as_deref(), Some("q"));
    assert_eq!(user("quay.io/team").as_deref(), Some("team"));
    assert_eq!(user("quay.io/team/sub").as_deref(), Some("team"));
    assert_eq!(user("quay.io/teamwork").as_deref(), Some("q"));
    assert_eq!(user("docker.io").as_deref(), Some("hub"));
    assert_eq!(user("http://r.io:5000").as_deref(), Some("port"));
    assert_eq!(user("http://r.io:5001"), None);
}

#[test]
fn helpers_and_the_store() {
    let asked = |at: &str| match config().lookup(&endpoint(at)).unwrap() {
        Lookup::Helper { name, server } => (name, server),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        asked("123.dkr.ecr.eu-west-1.amazonaws.com/mirror").0,
        "ecr-login"
    );
    assert_eq!(
        asked("store.io"),
        ("desktop".to_owned(), "store.io".to_owned())
    );
    assert_eq!(
        config().lookup(&endpoint("evil.io")),
        Err(DockerConfigError::HelperName)
    );
    assert_eq!(
        DockerConfig::default().lookup(&endpoint("x.io")),
        Ok(Lookup::Unknown)
    );
}

#[test]
fn what_can_not_be_used_says_why_and_quotes_nothing() {
    let lookup = |at: &str| config().lookup(&endpoint(at)).unwrap_err();
    assert_eq!(lookup("bad.io"), DockerConfigError::Entry);
    let error = DockerConfig::parse("{\"auths\": {\"a\": \"hunter2\"}}").unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert!(!format!("{:?}", config()).contains("hunter2"));
    assert!(from_helper("{\"Username\": 7, \"Secret\": \"hunter2\"}").is_err());
}

#[test]
fn secrets_of_kubernetes() {
    let at = endpoint("quay.io/team");
    let basic = |name: &str| match name {
        "username" => Some("u"),
        "password" => Some("p:q"),
        _ => None,
    };
    let found = from_secret("kubernetes.io/basic-auth", &basic, &at).unwrap();
    assert_eq!(found, Some(Credentials::new("u", "p:q")));
    let json = |name: &str| {
        (name == ".dockerconfigjson").then_some(
            r#"{"auths": {"quay.io": {"auth": "dTpw"}}, "credHelpers": {"quay.io": "x"}}"#,
        )
    };
    let found = from_secret("kubernetes.io/dockerconfigjson", &json, &at).unwrap();
    assert_eq!(found, Some(Credentials::new("u", "p")));
    let other = from_secret("kubernetes.io/dockerconfigjson", &json, &endpoint("x.io"));
    assert_eq!(other, Ok(None));
    assert!(matches!(
        from_secret("Opaque", &json, &at),
        Err(DockerConfigError::SecretType(_))
    ));
    assert_eq!(
        from_secret("kubernetes.io/basic-auth", &|_| None, &at),
        Err(DockerConfigError::MissingKey("password"))
    );
}

/// One key, one endpoint: what kubelet's keyring gives (its `TestDockerKeyringForGlob` and
/// `TestKeyringHitWithUnqualifiedDockerHub` have most of these), and docker's client where kubelet has no
/// such place.
#[test]
fn keys_are_matched_as_kubelet_matches_them() {
    for (key, at, matched) in [
        ("reg.io", "reg.io", true),
        ("https://reg.io", "reg.io", true),
        ("http://reg.io", "reg.io", true),
        ("https://reg.io/v1/", "reg.io", true),
        ("https://reg.io/v2/", "reg.io/team", true),
        ("https://reg.io/v1", "reg.io", true),
        ("reg.io/", "reg.io", true),
        ("REG.io", "reg.io", true),
        ("reg.io:5000", "reg.io:5000", true),
        ("reg.io:5000", "reg.io", false),
        ("reg.io", "reg.io:5000", false),
        ("reg.io:443", "reg.io", true),
        ("reg.io", "reg.io:443", true),
        ("reg.io", "http://reg.io:80", false),
        ("*.reg.io", "eu.reg.io", true),
        ("*.reg.io", "reg.io", false),
        ("*.reg.io", "a.b.reg.io", false),
        ("*.reg.io:5000", "eu.reg.io:5000", true),
        ("*.reg.io:5000", "eu.reg.io", false),
        ("https://*.azurecr.io", "corp.azurecr.io", true),
        ("prefix-*.reg.io", "prefix-eu.reg.io", true),
        ("reg.io/team", "reg.io/team", true),
        ("reg.io/team", "reg.io/team/app", true),
        ("reg.io/team", "reg.io/teamwork", false),
        ("reg.io/team", "reg.io/other", false),
        // Of one host only: docker's client does not look at paths.
        ("reg.io/team", "reg.io", true),
        ("https://index.docker.io/v1/", "docker.io", true),
        ("index.docker.io", "docker.io", true),
        ("docker.io", "https://registry-1.docker.io", true),
        ("[::1]:5000", "http://[::1]:5000", true),
        ("not a host", "reg.io", false),
        ("", "reg.io", false),
    ] {
        let text = serde_json::json!({"auths": {key: {"auth": "dTpw"}}}).to_string();
        let found = DockerConfig::parse(&text).unwrap().lookup(&endpoint(at));
        let want = match matched {
            true => Lookup::Credentials(Credentials::new("u", "p")),
            false => Lookup::Unknown,
        };
        assert_eq!(found, Ok(want), "{key} at {at}");
    }
}

/// As kubelet and containers/image have it: index.docker.io is what Docker Hub was called at first.
#[test]
fn docker_io_goes_before_docker_hubs_other_names() {
    for (keys, at, want) in [
        (["docker.io", "index.docker.io"], "docker.io", "docker.io"),
        (
            ["docker.io", "https://index.docker.io/v1/"],
            "docker.io",
            "docker.io",
        ),
        (
            ["docker.io", "registry-1.docker.io"],
            "https://registry-1.docker.io",
            "docker.io",
        ),
        (
            ["docker.io", "index.docker.io/team"],
            "docker.io/team",
            "index.docker.io/team",
        ),
        (
            ["*.io", "https://index.docker.io/v1/"],
            "docker.io",
            "https://index.docker.io/v1/",
        ),
    ] {
        let [first, second] =
            keys.map(|key| (key, serde_json::json!({"username": key, "password": "p"})));
        let auths: serde_json::Map<_, _> = [first, second]
            .map(|(key, entry)| (key.to_owned(), entry))
            .into_iter()
            .collect();
        let config =
            DockerConfig::parse(&serde_json::json!({ "auths": auths }).to_string()).unwrap();
        let found = config.lookup(&endpoint(at));
        let want = Lookup::Credentials(Credentials::new(want, "p"));
        assert_eq!(found, Ok(want), "{keys:?} at {at}");
    }
}

#[test]
fn the_most_precise_key_wins() {
    let text = r#"{"auths": {
        "*.reg.io": {"username": "all"},
        "*.reg.io/team": {"username": "all-team"},
        "eu.reg.io": {"username": "eu"},
        "eu.reg.io/team": {"username": "eu-team"}}}"#;
    let config = DockerConfig::parse(text).unwrap();
    for (at, user) in [
        ("us.reg.io", "all"),
        ("us.reg.io/team", "all-team"),
        ("eu.reg.io/other", "eu"),
        ("eu.reg.io/team/x", "eu-team"),
    ] {
        let found = config.lookup(&endpoint(at));
        let want = Lookup::Credentials(Credentials::new(user, ""));
        assert_eq!(found, Ok(want), "{at}");
    }
}

/// Kubelet's `TestDecodeDockerConfigFieldAuth` and `TestDockerConfigEntryJSONDecode`, and what docker adds.
#[test]
fn entries_are_decoded_as_kubelet_decodes_them() {
    let good = |user: &str, password: &str| Ok(Some(Credentials::new(user, password)));
    let bad = Err(DockerConfigError::Entry);
    for (entry, want) in [
        (r#"{"auth": "Zm9vOmJhcg=="}"#, good("foo", "bar")),
        (r#"{"auth": "Zm9vOmJhcg"}"#, good("foo", "bar")),
        (r#"{"auth": "Zm9v\nOmJh\r\ncg==\n"}"#, good("foo", "bar")),
        (r#"{"auth": "  Zm9vOmJhcg==  "}"#, good("foo", "bar")),
        (r#"{"auth": "Zm9vOmJhOnI="}"#, good("foo", "ba:r")),
        (r#"{"auth": "Zm9vOg=="}"#, good("foo", "")),
        (r#"{"auth": "Zm9vOmJhcgAA"}"#, good("foo", "bar")),
        // `auth` goes before the fields beside it.
        (
            r#"{"auth": "Zm9vOmJhcg==", "username": "x", "password": "y", "email": "e@x"}"#,
            good("foo", "bar"),
        ),
        (
            r#"{"username": "x", "password": "y", "email": 7}"#,
            good("x", "y"),
        ),
        (r#"{"auth": "", "username": "x"}"#, good("x", "")),
        (r#"{"auth": null}"#, Ok(None)),
        ("{}", Ok(None)),
        ("null", Ok(None)),
        (r#"{"auth": "Zm9vYmFy"}"#, bad.clone()),
        (r#"{"auth": "pants"}"#, bad.clone()),
        (r#"{"auth": "Zm9v OmJhcg=="}"#, bad),
        (
            r#"{"auth": "MDAwOg==", "identitytoken": "hunter2"}"#,
            Ok(Some(Credentials::identity_token("hunter2"))),
        ),
        (
            r#"{"registrytoken": "hunter2"}"#,
            Ok(Some(Credentials::registry_token("hunter2"))),
        ),
    ] {
        let text = format!(r#"{{"auths": {{"reg.io": {entry}}}}}"#);
        let found = DockerConfig::parse(&text)
            .unwrap()
            .entry(&endpoint("reg.io"));
        assert_eq!(found, want, "{entry}");
    }
}

#[test]
fn every_form_of_the_file_is_read() {
    let found = Ok(Lookup::Credentials(Credentials::new("u", "p")));
    for text in [
        r#"{"auths": {"reg.io": {"auth": "dTpw"}}}"#,
        "\u{feff}{\"auths\": {\"reg.io\": {\"auth\": \"dTpw\"}}}",
        // Docker's first form, and null where there is nothing.
        r#"{"reg.io": {"auth": "dTpw"}, "other.io": null}"#,
        r#"{"auths": {"reg.io": {"auth": "dTpw"}}, "credHelpers": null, "credsStore": null}"#,
    ] {
        let config = DockerConfig::parse(text).unwrap();
        assert_eq!(config.lookup(&endpoint("reg.io")), found, "{text}");
    }
    for text in ["{}", r#"{"auths": null}"#, r#"{"HttpHeaders": {"a": "b"}}"#] {
        let config = DockerConfig::parse(text).unwrap();
        assert_eq!(config.lookup(&endpoint("reg.io")), Ok(Lookup::Unknown));
    }
}

#[test]
fn a_helper_may_answer_with_an_identity_token() {
    let found = from_helper(r#"{"ServerURL": "x", "Username": "<token>", "Secret": "hunter2"}"#);
    assert_eq!(found, Ok(Credentials::identity_token("hunter2")));
}

/// Found by fuzzing: a key may be an address with a password in it.
#[test]
fn debug_output_shows_no_key() {
    let text = r#"{"auths":{"https://user:hunter2@a.io/":null},"credHelpers":{"b.io":"hunter2"}}"#;
    let shown = format!("{:?}", DockerConfig::parse(text).unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}
