use std::sync::atomic::Ordering;

use http::Method;
use policy::ProxySettings;

use super::*;
use crate::fake_bucket::FakeBucket;
use crate::store::conformance;

fn content(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

fn file(content: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    file
}

#[tokio::test]
async fn conforms() {
    let server = FakeBucket::start().await;
    conformance::check(&open(&server.settings()).unwrap()).await;
}

#[tokio::test]
async fn the_way_to_it_is_that_to_registries() {
    let server = FakeBucket::start().await;
    let blob = Digest::of(b"blob");
    // The server stands in for a proxy: what it is asked, a proxy is asked.
    let stat = async |endpoint: Option<&str>, proxy: &str, no_proxy: &str| {
        let mut settings = server.settings();
        settings.endpoint = endpoint.map(str::to_owned).or(settings.endpoint);
        let proxies = ProxySettings::from_lookup(|name| match name {
            "HTTP_PROXY" => Some(proxy.to_owned()),
            "NO_PROXY" => Some(no_proxy.to_owned()),
            _ => None,
        });
        let asked = server.count(&Method::HEAD, blob.hex());
        let bucket = client::open_through(&settings, proxies).unwrap();
        let found = bucket.stat(&blob).await.map_err(|error| error.to_string());
        (found, server.count(&Method::HEAD, blob.hex()) - asked)
    };
    // Nobody listens there, and nobody is asked there: loopback needs no exception.
    let gone = "http://hugo:hunter2@127.0.0.1:1";
    assert_eq!(stat(None, gone, "").await, (Ok(None), 1));
    let elsewhere = Some("http://s3.invalid:8333");
    let proxy = server.settings().endpoint.unwrap();
    assert_eq!(stat(elsewhere, &proxy, "").await.1, 1);
    let (found, asked) = stat(elsewhere, &proxy, "s3.invalid:8333").await;
    assert!(found.is_err(), "{found:?}");
    assert_eq!(asked, 0);
    let (found, _) = stat(elsewhere, gone, "").await;
    let error = found.unwrap_err();
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn an_endpoint_with_a_password_is_not_shown() {
    // As the environment may give one.
    let source = "error sending request for url (http://hugo:hunter2@s3.corp/images/x)";
    let error = failed(
        &object_store::Error::Generic {
            store: "S3",
            source: source.into(),
        },
        "reading x".to_owned(),
    );
    let said = error.to_string();
    assert!(said.contains("http://***@s3.corp/images/x"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn conforms_where_conditions_are_not_known() {
    let server = FakeBucket::start().await;
    server
        .faults
        .knows_no_conditions
        .store(true, Ordering::SeqCst);
    conformance::check(&open(&server.settings()).unwrap()).await;
}

#[tokio::test]
async fn large_blobs_go_in_parts_and_wrong_ones_not_at_all() {
    let server = FakeBucket::start().await;
    let bucket = open(&server.settings()).unwrap();
    let blob = content(16 * 1024 * 1024 + 7);
    let (digest, source) = (Digest::of(&blob), file(&blob));
    let wrong = Digest::of(b"another");
    let refused = bucket.put(&wrong, source.path()).await;
    assert!(
        matches!(refused, Err(StoreError::WrongDigest(_))),
        "{refused:?}"
    );
    assert!(!server.blob(&wrong).exists());
    bucket.put(&digest, source.path()).await.unwrap();
    // Raw bytes, where any other tool finds them.
    assert!(std::fs::read(server.blob(&digest)).unwrap() == blob);
    let sent = server.count(&Method::PUT, digest.hex());
    assert_eq!(sent, 3);
    bucket.put(&digest, source.path()).await.unwrap();
    assert_eq!(server.count(&Method::PUT, digest.hex()), sent);
    // Of another length, it is not this blob.
    let small = (Digest::of(b"small"), file(b"small"));
    for (digest, source, right) in [
        (&digest, &source, &blob[..]),
        (&small.0, &small.1, b"small"),
    ] {
        std::fs::write(server.blob(digest), b"garbage").unwrap();
        bucket.put(digest, source.path()).await.unwrap();
        assert!(std::fs::read(server.blob(digest)).unwrap() == right);
    }
}

#[tokio::test]
async fn over_tls_only_to_who_is_known() {
    let ca = testkit::certs::Ca::new().unwrap();
    let server = FakeBucket::with_tls(&ca.issue(&["localhost"]).unwrap()).await;
    let mut settings = server.settings();
    let digest = Digest::of(b"x");
    let stranger = open(&settings).unwrap();
    assert!(stranger.stat(&digest).await.is_err());
    assert_eq!(server.count(&Method::HEAD, ""), 0);
    let pem = file(ca.pem().as_bytes());
    settings.ca_file = Some(pem.path().to_owned());
    let bucket = open(&settings).unwrap();
    let source = file(b"x");
    bucket.put(&digest, source.path()).await.unwrap();
    assert_eq!(bucket.stat(&digest).await.unwrap(), Some(1));
    for (content, part) in [
        ("", "no certificate"),
        ("-----BEGIN CERTIFICATE-----\nx", "cannot use"),
    ] {
        std::fs::write(pem.path(), content).unwrap();
        let error = open(&settings).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("caFile"), "{error}");
    }
}

#[tokio::test]
async fn a_blob_that_ends_early_is_no_failure_of_the_server() {
    let server = FakeBucket::start().await;
    let bucket = open(&server.settings()).unwrap();
    let digest = Digest::of(b"whole");
    let source = file(b"whole");
    bucket.put(&digest, source.path()).await.unwrap();
    std::fs::write(server.blob(&digest), b"wh").unwrap();
    for (from, to) in [(2, None), (4, None), (4, Some(5))] {
        let found = bucket.read(&digest, from, to).await.unwrap().unwrap();
        assert_eq!(found.total, 2);
        assert_eq!(found.bytes.collect::<Vec<_>>().await.len(), 0);
    }
}

#[tokio::test]
async fn no_error_repeats_what_is_secret() {
    let server = FakeBucket::start().await;
    let mut settings = server.settings();
    settings.credentials = Some(policy::config::S3Credentials {
        key: policy::Credentials::new("key-id", "wrong-secret"),
        session_token: None,
    });
    let bucket = open(&settings).unwrap();
    let source = file(b"x");
    let refused = bucket.put(&Digest::of(b"x"), source.path()).await;
    let mut shown = format!("{} {bucket:?}", refused.unwrap_err());
    server.faults.fails.store(true, Ordering::SeqCst);
    let bucket = open(&server.settings()).unwrap();
    let failed = bucket.put(&Digest::of(b"x"), source.path()).await;
    shown.push_str(&failed.unwrap_err().to_string());
    assert!(shown.contains("503"), "{shown}");
    for secret in ["key-id", "wrong-secret", "key-secret"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(!shown.contains('\n'), "{shown}");
}
