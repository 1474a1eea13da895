//! The section, from text to meaning.

use super::*;
use crate::config::{ConfigMap, Key, RawConfig, Settings, masked, merge, render, rewrite};

fn read(text: &str) -> (NodeCache, Vec<String>) {
    let text = format!("address: a.io\n{text}");
    let (settings, findings) = Settings::read(&text, &|name| match name {
        "S3_SECRET" => Some("s3cret".to_owned()),
        _ => None,
    });
    let findings = findings.iter().map(|f| f.in_file("f").to_string());
    (settings.node_cache, findings.collect())
}

const FULL: &str = "nodeCache:
  listen: ['10.0.0.1:7439', 'localhost:7440']
  names: [Cache.Corp, 'cache.corp:7439']
  allow: [10.0.0.0/8, 'fd00::5']
  tls: {certFile: /tls.crt, keyFile: /tls.key, clientCA: /ca.crt}
  dir: /var/cache/images
  maxSize: 50Gi
  minFree: 5%
  tagTTL: 1m
  maxStale: 720h
  authStale: 1h
  serveDeleted: true
  authTTL: 1m
  parallel: 8
  parallelAbove: 64Mi
  store:
    s3:
      bucket: images
      endpoint: http://s3.corp:8333
      region: eu-1
      prefix: /edge/
      caFile: /s3-ca.crt
      unusedFor: 24h
      credentials: {accessKeyId: AKIA, secretAccessKey: '${S3_SECRET}', sessionToken: t0ken}
  metricsAddress: 'off'
";

#[test]
fn defaults() {
    let (cache, findings) = read("");
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!(cache, NodeCache::default());
    let addresses: Vec<_> = cache.listen.iter().map(|l| l.address.to_string()).collect();
    assert_eq!(addresses, ["127.0.0.1:7439", "[::1]:7439"]);
    assert!(cache.listen.iter().all(|listen| !listen.required));
    assert_eq!(cache.refusal(), None);
    // Zero is what "not set" looks like, and nothing of it switches the shim to the cache.
    let zeros = "nodeCache: {listen: [], tagTTL: 0s, maxStale: 0s, authStale: 0, authTTL: 0s, parallel: 0, maxSize: 0, minFree: '0', dir: '', store: {}}";
    assert_eq!(read(zeros), (NodeCache::default(), Vec::new()));
}

#[test]
fn every_field() {
    let (cache, findings) = read(FULL);
    assert_eq!(findings, Vec::<String>::new());
    let hours = |n: u64| Duration::from_secs(n * 3600);
    let expected = NodeCache {
        listen: vec![
            ListenAddress {
                address: "10.0.0.1:7439".parse().unwrap(),
                required: true,
            },
            ListenAddress {
                address: "127.0.0.1:7440".parse().unwrap(),
                required: true,
            },
        ],
        names: vec!["cache.corp".to_owned(), "cache.corp:7439".to_owned()],
        allow: vec![
            "10.0.0.0/8".parse().unwrap(),
            "fd00::5/128".parse().unwrap(),
        ],
        tls: Some(CacheTls {
            cert_file: "/tls.crt".into(),
            key_file: "/tls.key".into(),
            client_ca: Some("/ca.crt".into()),
        }),
        dir: "/var/cache/images".into(),
        max_size: Some(Size::Bytes(50 << 30)),
        min_free: Size::percent(5),
        tag_ttl: Duration::from_secs(60),
        max_stale: Some(hours(720)),
        auth_stale: hours(1),
        serve_deleted: true,
        auth_ttl: Duration::from_secs(60),
        parallel: 8,
        parallel_above: 64 << 20,
        s3: Some(S3Store {
            bucket: "images".to_owned(),
            endpoint: Some("http://s3.corp:8333".to_owned()),
            region: Some("eu-1".to_owned()),
            prefix: "edge".to_owned(),
            path_style: true,
            ca_file: Some("/s3-ca.crt".into()),
            unused_for: hours(24),
            credentials: Some(S3Credentials {
                key: Credentials::new("AKIA", "s3cret"),
                session_token: Some(Credentials::new("", "t0ken")),
            }),
        }),
        metrics_address: None,
    };
    assert_eq!(cache, expected);
}

#[test]
fn mistakes_have_their_line_and_quote_nothing() {
    let (_, findings) = read(
        "nodeCache:\n  listen: [hunter2]\n  allow: [hunter2/8]\n  names: ['hunter2!']\n  tls: {certFile: /x}\n  dir: hunter2\n  maxSize: hunter2\n  parallelAbove: 5%\n  \
         tagTTL: hunter2\n  store: {s3: {endpoint: 'http://u:hunter2@x'}}\n  maxsize: 3\n  paralel: 2\n  metricsAddress: hunter2\n",
    );
    assert!(!findings.concat().contains("hunter2"), "{findings:#?}");
    for start in [
        "f:3:12: error: nodeCache.listen: not an address",
        "f:4:11: error: nodeCache.allow: not a network",
        "f:5:11: error: nodeCache.names: not a host",
        "f:6:8: error: nodeCache.tls: needs `certFile` and `keyFile`",
        "f:7:8: error: nodeCache.dir: not an absolute path",
        "f:8:12: error: nodeCache.maxSize: not a size",
        "f:9:18: error: nodeCache.parallelAbove: a number of bytes",
        "f:10:11: error: nodeCache.tagTTL: not a duration",
        "f:11:15: error: nodeCache.store.s3: needs a `bucket`",
        "f:13:3: warning: nodeCache.paralel: unknown field, ignored; did you mean `parallel`?",
        "f:14:19: error: nodeCache.metricsAddress: not an address",
    ] {
        assert!(
            findings.iter().any(|f| f.starts_with(start)),
            "{start}: {findings:#?}"
        );
    }
}

#[test]
fn beyond_loopback_it_needs_tls_and_who_may_ask() {
    let listen = "nodeCache: {listen: ['0.0.0.0:7439']";
    let tls = "tls: {certFile: /c, keyFile: /k";
    for (config, refused) in [
        (format!("{listen}}}"), Some("needs TLS")),
        (
            format!("{listen}, allow: [10.0.0.0/8]}}"),
            Some("needs TLS"),
        ),
        (format!("{listen}, {tls}}}}}"), Some("who may ask")),
        (format!("{listen}, {tls}}}, allow: [10.0.0.0/8]}}"), None),
        (format!("{listen}, {tls}, clientCA: /ca}}}}"), None),
        (
            "nodeCache: {listen: ['127.0.0.2:7439', '[::1]:1']}".to_owned(),
            None,
        ),
    ] {
        let (cache, findings) = read(&config);
        match refused {
            Some(part) => {
                assert!(cache.refusal().unwrap().contains(part), "{config}");
                // Not an error: the shim of the same file runs without the cache.
                assert_eq!(findings.len(), 1, "{findings:?}");
                assert!(
                    findings[0].starts_with(
                        "f:2:21: warning: nodeCache.listen: the cache refuses to start"
                    ),
                    "{findings:?}"
                );
            }
            None => assert_eq!((cache.refusal(), findings), (None, vec![]), "{config}"),
        }
    }
}

#[test]
fn what_is_out_of_range_is_the_bound() {
    let (cache, findings) = read(
        "nodeCache: {tagTTL: 1ns, maxStale: 2562047h, authStale: 1ns, authTTL: 2562047h, parallel: 900, minFree: 100%, maxSize: 1, parallelAbove: 1}",
    );
    assert_eq!(cache.tag_ttl, Duration::from_secs(1));
    assert_eq!(
        cache.max_stale,
        Some(Duration::from_secs(10 * 365 * 86_400))
    );
    assert_eq!(cache.auth_stale, Duration::from_secs(1));
    assert_eq!(cache.auth_ttl, Duration::from_secs(86_400));
    assert_eq!(cache.parallel, 16);
    assert_eq!(cache.min_free, Size::percent(95));
    assert_eq!(cache.max_size, Some(Size::Bytes(1 << 20)));
    assert_eq!(cache.parallel_above, 64 << 10);
    assert_eq!(findings.len(), 8, "{findings:#?}");
}

#[test]
fn a_bucket_keeps_what_is_used_for_at_least_an_hour() {
    let unused_for = |written: &str| {
        let (cache, findings) = read(&format!(
            "nodeCache: {{store: {{s3: {{bucket: b{written}}}}}}}"
        ));
        (cache.s3.unwrap().unused_for.as_secs(), findings.len())
    };
    assert_eq!(unused_for(""), (30 * 86_400, 0));
    assert_eq!(unused_for(", unusedFor: 0s"), (30 * 86_400, 0));
    assert_eq!(unused_for(", unusedFor: 1m"), (3_600, 1));
}

#[test]
fn written_as_it_was_read_and_masked_for_people() {
    let (raw, _) = RawConfig::read(FULL);
    let written = render(&raw);
    let (again, _) = RawConfig::read(&written);
    let meaning = |raw: &RawConfig| {
        Settings::from_raw(raw, &|name| Some(format!("${{{name}}}")))
            .0
            .node_cache
    };
    assert_eq!(meaning(&again), meaning(&raw), "{written}");
    assert!(written.contains("${S3_SECRET}"), "{written}");
    let shown = masked(&raw, Key::NodeCache);
    for secret in ["AKIA", "S3_SECRET", "t0ken"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let all = format!("{raw:?} {:?}", meaning(&raw));
    assert!(!all.contains("AKIA") && !all.contains("t0ken"), "{all}");
}

#[test]
fn a_config_map_sets_single_fields() {
    let local = "nodeCache:\n  dir: /cache # ours\n  tagTTL: 1m\n";
    let (map, findings) = ConfigMap::read(
        "nodeCache: {tagTTL: 5m, maxSize: lots, allow: [10.0.0.0/8, here], minFree: 10%}",
    )
    .unwrap();
    let named: Vec<_> = findings.iter().map(|f| f.field.as_str()).collect();
    assert_eq!(named, ["nodeCache.maxSize", "nodeCache.allow"]);
    let merged = merge(&RawConfig::read(local).0, &map);
    assert_eq!(merged.changed, [Key::NodeCache]);
    let text = rewrite(local, &merged.config, &merged.changed).unwrap();
    assert_eq!(
        text,
        "nodeCache:\n  allow: [\"10.0.0.0/8\"]\n  dir: /cache\n  minFree: \"10%\"\n  tagTTL: 5m0s\n"
    );
    // Defaults that are spelled out are no change.
    let (map, _) =
        ConfigMap::read("nodeCache: {parallel: 4, authTTL: 300s, parallelAbove: 32Mi}").unwrap();
    assert!(merge(&RawConfig::read(local).0, &map).changed.is_empty());
}
