//! Whose certificates are trusted, and what is said about the others.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Version;
use registry::{Cause, CertsDirs, Client, ClientOptions};
use testkit::certs::{Ca, ServerCert};
use testkit::fake_registry::{Behaviour, FakeRegistry, TokenOptions, TokenService};
use testkit::images::Image;

use crate::setup::{REPOSITORY, ask, cause, client, is_found, options, registry, target};
use crate::tls_server::{SelfSigned, TlsServer};

fn secure(cert: &ServerCert) -> FakeRegistry {
    let registry = FakeRegistry::start_tls(cert).unwrap();
    registry.add(&Image::new("app"), REPOSITORY, "1");
    registry
}

fn write(path: PathBuf, text: &str) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

/// A client that reads `root/containerd` and `root/docker`, anew for every probe.
fn reading(root: &Path) -> Client {
    Client::new(ClientOptions {
        certs_dirs: CertsDirs {
            containerd: vec![root.join("containerd")],
            docker: vec![root.join("docker")],
            written_from: None,
        },
        domain_cache_ttl: Duration::ZERO,
        ..options()
    })
}

#[tokio::test]
async fn an_unknown_ca_is_refused_with_what_to_do() {
    let registry = secure(&Ca::new().unwrap().issue(&["127.0.0.1"]).unwrap());
    let temp = tempfile::tempdir().unwrap();
    let probe = ask(&reading(temp.path()), &target(&registry.url())).await;
    assert_eq!(cause(&probe), Some(Cause::Tls));
    let dir = temp.path().join("containerd").join(registry.host());
    for words in ["set caFile for this registry", dir.to_str().unwrap()] {
        assert!(probe.detail.contains(words), "{}", probe.detail);
    }
    assert!(registry.recording().is_empty());
}

/// What a failure advises is done, and then seen at once: nobody has to wait for the time to live, in which
/// files that serve are not read again.
#[tokio::test]
async fn a_ca_that_comes_after_a_failure_is_used_by_the_next_question() {
    let ca = Ca::new().unwrap();
    let registry = secure(&ca.issue(&["127.0.0.1"]).unwrap());
    let temp = tempfile::tempdir().unwrap();
    let client = Client::new(ClientOptions {
        certs_dirs: CertsDirs {
            containerd: vec![temp.path().join("containerd")],
            docker: vec![],
            written_from: None,
        },
        ..options()
    });
    let ca_file = temp.path().join("ca.pem");
    let mut named = target(&registry.url());
    named.registry.tls.ca_file = Some(ca_file.clone());
    let installed = target(&registry.url());
    for asked in [&named, &installed] {
        assert_eq!(cause(&ask(&client, asked).await), Some(Cause::Tls));
    }
    write(ca_file, &ca.pem());
    let dir = temp.path().join("containerd").join(registry.host());
    write(dir.join("ca.crt"), &ca.pem());
    for asked in [&named, &installed] {
        let probe = ask(&client, asked).await;
        assert!(is_found(&probe), "{}", probe.detail);
    }
}

#[tokio::test]
async fn expired_and_foreign_certificates_are_told_apart() {
    let ca = Ca::new().unwrap();
    let temp = tempfile::tempdir().unwrap();
    let ca_file = write(temp.path().join("ca.pem"), &ca.pem());
    for (cert, words) in [
        (ca.issue_expired(&["127.0.0.1"]).unwrap(), "has expired"),
        (
            ca.issue(&["elsewhere.example"]).unwrap(),
            "elsewhere.example",
        ),
    ] {
        let registry = secure(&cert);
        let mut target = target(&registry.url());
        target.registry.tls.ca_file = Some(ca_file.clone());
        let probe = ask(&client(), &target).await;
        assert_eq!(cause(&probe), Some(Cause::Tls));
        assert!(probe.detail.contains(words), "{}", probe.detail);
    }
}

#[tokio::test]
async fn the_entrys_own_options_decide() {
    let ca = Ca::new().unwrap();
    let registry = secure(&ca.issue(&["127.0.0.1"]).unwrap());
    let temp = tempfile::tempdir().unwrap();
    let client = client();
    let mut by_ca = target(&registry.url());
    by_ca.registry.tls.ca_file = Some(write(temp.path().join("ca.pem"), &ca.pem()));
    assert!(is_found(&ask(&client, &by_ca).await));
    let mut unchecked = target(&registry.url());
    unchecked.registry.tls.insecure_skip_verify = true;
    assert!(is_found(&ask(&client, &unchecked).await));
    // Neither spoils the other or an entry that says nothing.
    let probe = ask(&client, &target(&registry.url())).await;
    assert_eq!(cause(&probe), Some(Cause::Tls));
    let mut unreadable = target(&registry.url());
    unreadable.registry.tls.ca_file = Some(temp.path().join("missing.pem"));
    let probe = ask(&client, &unreadable).await;
    assert_eq!(cause(&probe), Some(Cause::Tls));
    assert!(probe.detail.contains("missing.pem"), "{}", probe.detail);
}

#[tokio::test]
async fn what_the_runtimes_are_told_counts_and_is_seen_without_a_restart() {
    let ca = Ca::new().unwrap();
    let registry = secure(&ca.issue(&["127.0.0.1"]).unwrap());
    let host = registry.host();
    let with_underscores = format!("{}_", host.replace(':', "_"));
    for (path, text) in [
        (
            format!("containerd/{host}/hosts.toml"),
            "skip_verify = true".to_owned(),
        ),
        (
            format!("containerd/{with_underscores}/hosts.toml"),
            format!("server = 'https://{host}'\n[host.'https://{host}']\nca = ['ca.pem']"),
        ),
        (
            "containerd/_default/hosts.toml".to_owned(),
            "ca = '../../ca.pem'".to_owned(),
        ),
        (format!("containerd/{host}/any.crt"), ca.pem()),
        (format!("docker/{host}/ca.crt"), ca.pem()),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let client = reading(temp.path());
        let probe = ask(&client, &target(&registry.url())).await;
        assert_eq!(cause(&probe), Some(Cause::Tls), "{path}");
        write(temp.path().join("ca.pem"), &ca.pem());
        let file = write(temp.path().join(&path), &text);
        write(file.with_file_name("ca.pem"), &ca.pem());
        let probe = ask(&client, &target(&registry.url())).await;
        assert!(is_found(&probe), "{path}: {}", probe.detail);
    }
}

#[tokio::test]
async fn a_redirect_does_not_take_the_entrys_options_along() {
    let ca = Ca::new().unwrap();
    let (first, second) = (
        secure(&ca.issue(&["127.0.0.1"]).unwrap()),
        secure(&ca.issue(&["127.0.0.1"]).unwrap()),
    );
    first.behave(Behaviour::Redirect(format!(
        "{}/v2/team/app/manifests/1",
        second.url()
    )));
    let mut unchecked = target(&first.url());
    unchecked.registry.tls.insecure_skip_verify = true;
    let probe = ask(&client(), &unchecked).await;
    assert_eq!(cause(&probe), Some(Cause::Tls));
    assert!(probe.detail.contains(&second.host()), "{}", probe.detail);
    assert!(second.recording().is_empty());
}

#[tokio::test]
async fn a_token_service_on_the_same_machine_may_be_plain() {
    let ca = Ca::new().unwrap();
    let registry = secure(&ca.issue(&["127.0.0.1"]).unwrap());
    let service = TokenService::start(TokenOptions::default()).unwrap();
    registry.require_token(&service);
    let mut target = target(&registry.url());
    target.registry.tls.insecure_skip_verify = true;
    let probe = ask(&client(), &target).await;
    assert!(is_found(&probe), "{}", probe.detail);
}

#[tokio::test]
async fn a_certificate_that_is_its_own_ca_is_trusted_where_it_was_given() {
    let own = SelfSigned::new("127.0.0.1", true);
    let server = TlsServer::start(own.server_config(&[], None)).await;
    let temp = tempfile::tempdir().unwrap();
    let mut given = target(&server.url());
    given.registry.tls.ca_file = Some(write(temp.path().join("own.pem"), &own.cert_pem));
    let client = client();
    let probe = ask(&client, &given).await;
    assert!(is_found(&probe), "{}", probe.detail);
    assert_eq!(server.versions(), [Version::HTTP_11]);

    // Another one of the same name is not it.
    let other = SelfSigned::new("127.0.0.1", true);
    let mut wrong = target(&server.url());
    wrong.registry.tls.ca_file = Some(write(temp.path().join("other.pem"), &other.cert_pem));
    let probe = ask(&client, &wrong).await;
    assert_eq!(cause(&probe), Some(Cause::Tls), "{}", probe.detail);
    // Nor is it good for another name.
    let foreign = SelfSigned::new("elsewhere.example", true);
    let server = TlsServer::start(foreign.server_config(&[], None)).await;
    let mut wrong = target(&server.url());
    wrong.registry.tls.ca_file = Some(write(temp.path().join("foreign.pem"), &foreign.cert_pem));
    let probe = ask(&client, &wrong).await;
    assert_eq!(cause(&probe), Some(Cause::Tls), "{}", probe.detail);
    assert!(
        probe.detail.contains("elsewhere.example"),
        "{}",
        probe.detail
    );
}

#[tokio::test]
async fn http2_is_spoken_where_it_is_offered() {
    let own = SelfSigned::new("127.0.0.1", false);
    let server = TlsServer::start(own.server_config(&[b"h2", b"http/1.1"], None)).await;
    let mut target = target(&server.url());
    target.registry.tls.insecure_skip_verify = true;
    let probe = ask(&client(), &target).await;
    assert!(is_found(&probe), "{}", probe.detail);
    assert_eq!(server.versions(), [Version::HTTP_2]);
}

#[tokio::test]
async fn client_certificates_of_certs_d_are_shown() {
    let server_cert = SelfSigned::new("127.0.0.1", true);
    let client_cert = SelfSigned::new("node", false);
    let config = server_cert.server_config(&[], Some(&client_cert));
    let server = TlsServer::start(config).await;
    let host = server.url().replace("https://", "");
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("docker").join(&host);
    write(dir.join("ca.crt"), &server_cert.cert_pem);
    let client = reading(temp.path());
    let probe = ask(&client, &target(&server.url())).await;
    assert_eq!(cause(&probe), Some(Cause::Tls), "{}", probe.detail);
    assert!(
        probe.detail.contains("client certificate"),
        "{}",
        probe.detail
    );

    write(dir.join("node.cert"), &client_cert.cert_pem);
    write(dir.join("node.key"), &server_cert.key_pem);
    let probe = ask(&client, &target(&server.url())).await;
    assert_eq!(cause(&probe), Some(Cause::Tls), "a key that does not fit");
    assert!(
        probe.detail.contains("node.cert is not used"),
        "{}",
        probe.detail
    );

    write(dir.join("node.key"), &client_cert.key_pem);
    let probe = ask(&client, &target(&server.url())).await;
    assert!(is_found(&probe), "{}", probe.detail);
}

#[tokio::test]
async fn plain_registries_need_no_roots() {
    let (registry, _) = registry();
    assert!(is_found(&ask(&client(), &target(&registry.url())).await));
}

/// Nobody writes to these pipes, so who opens one to read it waits for ever, on a thread that can't be ended.
#[tokio::test]
async fn files_that_would_block_are_refused_and_named() {
    let ca = Ca::new().unwrap();
    let registry = secure(&ca.issue(&["127.0.0.1"]).unwrap());
    let temp = tempfile::tempdir().unwrap();
    let pipe = |path: PathBuf| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        path
    };
    let mut own = target(&registry.url());
    own.registry.tls.ca_file = Some(pipe(temp.path().join("ca.pem")));
    let told = temp.path().join("docker").join(registry.host());
    pipe(told.join("ca.crt"));
    pipe(told.join("client.cert"));
    pipe(told.join("client.key"));
    pipe(
        temp.path()
            .join("containerd")
            .join(registry.host())
            .join("hosts.toml"),
    );
    let client = reading(temp.path());
    for asked in [own, target(&registry.url())] {
        for _ in 0..3 {
            let probe = ask(&client, &asked).await;
            assert_eq!(cause(&probe), Some(Cause::Tls), "{}", probe.detail);
            let words = "not a regular file";
            assert!(probe.detail.contains(words), "{}", probe.detail);
        }
    }
}
