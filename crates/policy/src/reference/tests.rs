//! The grammar, case by case, and beside `oci_spec`'s reading of the same names.

use super::*;
use proptest::prelude::*;

const SHA: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

#[test]
fn canonical_names() {
    for (text, canonical) in [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("library/nginx", "docker.io/library/nginx:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/library/app:1", "docker.io/library/app:1"),
        ("registry-1.docker.io/team/app", "docker.io/team/app:latest"),
        ("bitnami/nats:2", "docker.io/bitnami/nats:2"),
        ("ghcr.io/team/app", "ghcr.io/team/app:latest"),
        ("quay.io/app", "quay.io/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("[fd00::7]/a/b", "[fd00::7]/a/b:latest"),
        ("Foo/bar", "Foo/bar:latest"),
        ("foo_bar/x", "docker.io/foo_bar/x:latest"),
        ("foo.bar", "docker.io/library/foo.bar:latest"),
        ("foo.bar:8080", "docker.io/library/foo.bar:8080"),
        ("foo.bar:8080/x", "foo.bar:8080/x:latest"),
        (
            "xn--7o8h.com/myimage:xn--7o8h.com",
            "xn--7o8h.com/myimage:xn--7o8h.com",
        ),
        (
            "b.gcr.io/test.example.com/my-app:test.example.com",
            "b.gcr.io/test.example.com/my-app:test.example.com",
        ),
        ("a--b/c__d.e-f", "docker.io/a--b/c__d.e-f:latest"),
    ] {
        let reference = Reference::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(reference.canonical(), canonical, "{text}");
        assert_eq!(reference.to_string(), text);
    }
}

#[test]
fn tag_and_digest_are_both_kept() {
    let pinned = Reference::parse(&format!("nginx:1@{SHA}")).unwrap();
    assert_eq!(pinned.tag(), Some("1"));
    assert_eq!(pinned.digest(), Some(SHA));
    assert_eq!(pinned.manifest(), SHA);
    assert_eq!(
        pinned.canonical(),
        format!("docker.io/library/nginx:1@{SHA}")
    );
    let digest = Reference::parse(&format!("ghcr.io/a/b@{SHA}")).unwrap();
    assert_eq!(digest.canonical(), format!("ghcr.io/a/b@{SHA}"));
    assert_eq!(digest.tag(), None);
}

#[test]
fn the_remainder_stays_as_written() {
    for (text, remainder) in [
        ("nats:2", "nats:2"),
        ("docker.io/nats:2", "nats:2"),
        ("index.docker.io/library/nats", "library/nats"),
        ("a.io:50/x/y:1", "x/y:1"),
    ] {
        assert_eq!(
            Reference::parse(text).unwrap().written_remainder(),
            remainder
        );
    }
}

#[test]
fn invalid_names_say_what_is_wrong() {
    let long = format!("{}a", "a/".repeat(128));
    let long_tag = format!("a:{}", "t".repeat(129));
    for (text, part) in [
        ("", "empty"),
        ("Nginx", "upper-case"),
        ("docker.io/Library/nginx", "write `library/nginx`"),
        ("a..b/c", "registry host"),
        ("a.io/b//c", "repository name"),
        ("a.io/b/", "repository name"),
        ("/a", "repository name"),
        ("-a", "repository name"),
        ("a.io/_b", "repository name"),
        ("a.io/b___c", "repository name"),
        ("a.io/b..c", "repository name"),
        ("a b", "repository name"),
        ("a:", "valid tag"),
        ("a:-x", "valid tag"),
        ("a:b c", "valid tag"),
        (&long_tag, "valid tag"),
        ("a@sha256:xyz", "valid digest"),
        ("a@", "valid digest"),
        ("a@md5:d41d8cd98f00b204e9800998ecf8427e", "valid digest"),
        (
            "a@sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "valid digest",
        ),
        ("-x.io/a", "registry host"),
        ("a_b.io/c", "registry host"),
        ("[::1/a", "registry host"),
        ("host:port/a", "registry host"),
        ("[]:5000/a", "registry host"),
        (&long, "255 are allowed"),
        ("https://a.io/b", "registry host"),
    ] {
        let error = Reference::parse(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn image_ids_are_not_names() {
    let hex = "a".repeat(64);
    assert!(is_image_id(&hex));
    assert!(is_image_id(&format!("sha256:{hex}")));
    assert!(!is_image_id(&hex[1..]));
    assert!(!is_image_id(&"A".repeat(64)));
    assert!(matches!(
        Reference::parse(&hex),
        Err(ReferenceError::ImageId(_))
    ));
}

#[test]
fn the_length_limit_is_on_the_repository() {
    let most = format!("a.io/{}a", "a/".repeat(127));
    assert!(Reference::parse(&most).is_ok());
    assert_eq!(
        Reference::parse(&format!("a.io/{}aa", "a/".repeat(127))),
        Err(ReferenceError::TooLong(256))
    );
}

proptest! {
    #[test]
    fn never_panics_and_prints_back(text in "\\PC{0,80}") {
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert_eq!(reference.to_string(), text);
        }
    }

    /// Whatever both accept, both understand alike. (`oci_spec` accepts more, see the architecture
    /// notes, so this is one-sided.)
    #[test]
    fn agrees_with_oci_spec(
        host in proptest::option::of("([a-z0-9]{1,5}\\.[a-z]{2,3}|localhost)(:[1-9][0-9]{0,3})?"),
        path in "[a-z0-9]{1,6}([._-][a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,6}){0,2}",
        tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,10}"),
        pinned in any::<bool>(),
    ) {
        // Without a host, a first component with a dot would itself be read as one.
        prop_assume!(host.is_some() || !path.split('/').next().unwrap_or("").contains('.'));
        let host = host.map(|h| format!("{h}/")).unwrap_or_default();
        let tag = tag.map(|t| format!(":{t}")).unwrap_or_default();
        let digest = if pinned { format!("@{SHA}") } else { String::new() };
        let text = format!("{host}{path}{tag}{digest}");
        prop_assume!(!is_image_id(&text));
        let ours = Reference::parse(&text).unwrap();
        let theirs: oci_spec::distribution::Reference = text.parse().unwrap();
        prop_assert_eq!(ours.domain(), theirs.registry());
        prop_assert_eq!(ours.repository(), theirs.repository());
        prop_assert_eq!(ours.digest(), theirs.digest());
    }

    #[test]
    fn canonical_is_a_fixed_point(path in "[a-z0-9]{1,6}(/[a-z0-9]{1,6}){0,2}", tag in "[a-z0-9]{1,5}") {
        let once = Reference::parse(&format!("{path}:{tag}")).unwrap().canonical();
        let twice = Reference::parse(&once).unwrap().canonical();
        prop_assert_eq!(once, twice);
    }
}
