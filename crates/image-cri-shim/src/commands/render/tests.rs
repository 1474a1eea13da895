//! Pages over reports that are made up, at several widths, without and with colours.

use std::collections::BTreeSet;
use std::time::SystemTime;

use insta::assert_snapshot;
use serde_json::{Value, json};
use telemetry::report::{Decision, Explanation, NodeCacheStatus, Status};

use super::*;
use crate::commands::item::{Item, Pull};

/// A wide terminal, the classic one, a phone's, and a split of a split.
const WIDTHS: [usize; 4] = [180, 100, 72, 40];

fn now() -> SystemTime {
    humantime::parse_rfc3339("2026-11-21T10:00:00Z").unwrap()
}

fn plain(page: Page) -> String {
    anstream::adapter::strip_str(&page.into_text()).to_string()
}

/// No line is longer than the page is wide, but for a word that is longer by itself.
fn assert_width(text: &str, width: usize) {
    for line in text.lines() {
        let is_word = !line.trim().contains(' ');
        assert!(line.chars().count() <= width || is_word, "{width}: {line}");
    }
}

/// The page at all widths, without colours.
fn at_all_widths(render: impl Fn(&mut Page)) -> String {
    let mut all = String::new();
    for width in WIDTHS.into_iter().map(Some).chain([None]) {
        let mut page = Page::new(width);
        render(&mut page);
        let shown = width.map_or("no terminal".to_owned(), |width| format!("{width} columns"));
        let text = plain(page);
        if width.is_none_or(|width| width >= 100) {
            assert_width(&text, width.unwrap_or(160));
        }
        all.push_str(&format!("===== {shown}\n{text}"));
    }
    all
}

fn item(explanation: Value) -> Item {
    let explanation: Explanation = serde_json::from_value(explanation).unwrap();
    Item {
        explanation,
        named_at: None,
        node_cache: None,
        pull: None,
    }
}

fn probe(result: &str, detail: &str, elapsed_us: u64) -> Value {
    let found = result == "found";
    json!({
        "result": result, "detail": detail, "elapsed_us": elapsed_us, "freshness": "probed",
        "digest": found.then(|| format!("sha256:{}", "0123456789abcdef".repeat(4))),
    })
}

const OFFLINE: &str = "http://sealos.hub:5000";
const HARBOR: &str = "https://harbor.corp/proxy";
const MIRROR: &str = "https://project-a.azurecr.io/docker-mirror";

fn candidates(probes: [Option<Value>; 3]) -> Value {
    let [offline, harbor, mirror] = probes;
    json!([
        {"image": "sealos.hub:5000/library/nginx:1.27", "registry": OFFLINE, "place": "offline", "priority": 1000,
         "reason": "priority 1000 (default), offline registry, configured for every host",
         "credentials": "auth in the config", "probe": offline},
        {"image": "harbor.corp/proxy/library/nginx:1.27", "registry": HARBOR, "place": "registry", "priority": 800,
         "reason": "priority 800, configured for docker.io, quay.io, no credentials: authSecret harbor: there is no such Secret in kube-system",
         "credentials": "none", "probe": harbor},
        {"image": "project-a.azurecr.io/docker-mirror/nginx:1.27", "registry": MIRROR, "place": "redirect",
         "reason": "redirect[1], after the registries", "credentials": "authFile /etc/docker/config.json", "probe": mirror},
    ])
}

fn choices(places: &[&str]) -> Value {
    let choice = |place: &&str| match *place {
        "offline" => {
            json!({"image": "sealos.hub:5000/library/nginx:1.27", "registry": OFFLINE, "place": "offline"})
        }
        "registry" => {
            json!({"image": "harbor.corp/proxy/library/nginx:1.27", "registry": HARBOR, "place": "registry"})
        }
        "redirect" => {
            json!({"image": "project-a.azurecr.io/docker-mirror/nginx:1.27", "registry": MIRROR, "place": "redirect"})
        }
        _ => json!({"image": "nginx:1.27", "registry": "origin", "place": "origin"}),
    };
    places.iter().map(choice).collect()
}

fn nginx(
    probes: [Option<Value>; 3],
    origin: Option<Value>,
    order: &[&str],
    available: Option<bool>,
) -> Item {
    item(json!({
        "image": "nginx:1.27", "canonical": "docker.io/library/nginx:1.27",
        "redirect": {"rule": 1, "src": "docker.io/", "to": MIRROR, "image": "project-a.azurecr.io/docker-mirror/nginx:1.27"},
        "candidates": candidates(probes),
        "left_out": [{"registry": "https://quay.io",
            "why": "serves images of quay.io only, by `mirrorOf` or because it is a public registry"}],
        "origin": {"image": "nginx:1.27", "allowed": true, "probe": origin},
        "order": choices(order), "available": available, "elapsed_us": 15_000, "knowledge": "daemon",
    }))
}

fn found_second() -> Item {
    nginx(
        [
            Some(probe("not_found", "404", 3_200)),
            Some(probe("found", "200, sha256:0123456789ab…", 12_400)),
            Some(probe(
                "unauthorized",
                "401, an anonymous token is not enough; set auth for this registry if it is private",
                48_000,
            )),
        ],
        None,
        &["registry", "redirect", "origin"],
        Some(true),
    )
}

fn nobody() -> Item {
    let mut aside = probe(
        "unavailable",
        "circuit open, tried again in 12.3s: connection refused by sealos.hub:5000",
        0,
    );
    aside["freshness"] = json!("circuit_open");
    let mut remembered = probe("pull_failed", "the pull failed: no space left on device", 0);
    remembered["freshness"] = json!("remembered");
    nginx(
        [
            Some(aside),
            Some(remembered),
            Some(probe("not_found", "404", 8_000)),
        ],
        Some(probe(
            "unavailable",
            "no answer within 2s from registry-1.docker.io",
            2_000_000,
        )),
        &["origin", "offline"],
        Some(false),
    )
}

fn with_nothing_configured() -> Item {
    item(json!({
        "image": "quay.io/team/app:1", "canonical": "quay.io/team/app:1", "candidates": [],
        "origin": {"image": "quay.io/team/app:1", "allowed": true, "probe": probe("found", "200", 81_000)},
        "order": [{"image": "quay.io/team/app:1", "registry": "origin", "place": "origin"}],
        "available": true, "elapsed_us": 81_100, "knowledge": "config_file",
    }))
}

fn invalid() -> Item {
    item(json!({
        "image": "Nginx\u{1b}[2J:1", "untouched": "`Nginx` is not a valid repository name", "candidates": [],
        "order": [{"image": "Nginx:1", "registry": "origin", "place": "origin"}],
        "elapsed_us": 0, "knowledge": "config_file",
    }))
}

fn forbidden() -> Item {
    let mut item = nobody();
    let report = &mut item.explanation;
    report.image = "docker.io/library/nginx:1.27".to_owned();
    let origin = report.origin.as_mut().unwrap();
    (origin.allowed, origin.probe) = (false, None);
    report.order.clear();
    item
}

#[test]
fn the_second_has_it() {
    let mut item = found_second();
    item.named_at =
        Some("shop.yaml:26: Deployment/web: spec.template.spec.containers[web].image".to_owned());
    assert_snapshot!(at_all_widths(|page| explanation(page, &item)));
}

#[test]
fn nobody_has_it() {
    assert_snapshot!(at_all_widths(|page| explanation(page, &nobody())));
}

#[test]
fn the_plan_alone() {
    let order = ["offline", "registry", "redirect", "origin"];
    let item = nginx([None, None, None], None, &order, None);
    assert_snapshot!(at_all_widths(|page| explanation(page, &item)));
}

#[test]
fn several_images_and_their_summary() {
    let items = [
        found_second(),
        nobody(),
        with_nothing_configured(),
        invalid(),
        forbidden(),
        found_second(),
    ];
    assert_snapshot!(at_all_widths(|page| {
        for item in items.iter().skip(2).take(3) {
            explanation(page, item);
        }
        summary(page, &items);
    }));
}

#[test]
fn pulls() {
    let mut good = found_second();
    good.pull = Some(Pull {
        ok: true,
        image: Some("harbor.corp/proxy/library/nginx:1.27".to_owned()),
        registry: Some(HARBOR.to_owned()),
        elapsed_us: 3_400_000,
        error: None,
    });
    let mut bad = nobody();
    bad.pull = Some(Pull {
        ok: false,
        image: None,
        registry: None,
        elapsed_us: 800,
        error: Some("rpc error\nimage-cri-shim tried: a, b\u{1b}]0;x".to_owned()),
    });
    let items = [good, bad];
    assert_snapshot!(at_all_widths(|page| {
        for item in &items {
            explanation(page, item);
        }
        summary(page, &items);
    }));
}

fn decision(id: u64, at: &str, outcome: &Value) -> Value {
    json!({
        "id": id, "at": at, "image": "nginx:1.27",
        "candidates": candidates([
            Some(probe("not_found", "404", 3_200)),
            Some(probe("found", "200", 12_400)),
            None,
        ]),
        "resolved_us": 12_900, "from_memory": false,
        "pulls": [{"image": "harbor.corp/proxy/library/nginx:1.27", "registry": HARBOR, "place": "registry", "started_us": 13_000, "elapsed_us": 1_200_000}],
        "outcome": outcome, "elapsed_us": 1_213_000,
    })
}

fn decisions() -> Vec<Decision> {
    let pulled = json!({"state": "pulled", "image": "harbor.corp/proxy/library/nginx:1.27", "registry": HARBOR, "place": "registry"});
    let mut fallen_back = decision(
        2,
        "2026-11-21T09:14:02.500Z",
        &json!({"state": "pulled", "image": "nginx:1.27", "registry": "origin", "place": "origin"}),
    );
    fallen_back["pulls"] = json!([
        {"image": "harbor.corp/proxy/library/nginx:1.27", "registry": HARBOR, "place": "registry", "started_us": 13_000, "elapsed_us": 400_000, "error": "manifest unknown"},
        {"image": "nginx:1.27", "registry": "origin", "place": "origin", "started_us": 413_000, "elapsed_us": 9_000_000},
    ]);
    let mut plain = decision(
        1,
        "2026-11-19T10:00:00Z",
        &json!({"state": "failed", "code": "NOT_FOUND", "message": "no \u{1b}[31msuch image"}),
    );
    plain["candidates"] = json!([]);
    plain["image"] = json!("quay.io/team/app:1");
    let all = json!([
        decision(3, "2026-11-21T09:59:20.123Z", &pulled),
        fallen_back,
        plain,
        decision(4, "2026-11-18T10:00:00Z", &json!({"state": "cancelled"})),
    ]);
    serde_json::from_value(all).unwrap()
}

#[test]
fn what_was_decided() {
    assert_snapshot!(at_all_widths(|page| history(page, &decisions(), now())));
}

fn a_status() -> Status {
    let mut running = decision(5, "2026-11-21T09:59:48Z", &json!({"state": "running"}));
    running["pulls"][0]["elapsed_us"] = Value::Null;
    running["elapsed_us"] = Value::Null;
    let registry = |address: &str, priority: Option<u16>, state: &str| {
        json!({
            "address": address, "place": "registry", "priority": priority, "credentials": "none", "state": state,
            "failures": 0, "detail": "404", "latency_us": 3_200, "probes": 1234, "hits": 1000, "pulls": 900,
        })
    };
    let mut aside = registry(HARBOR, Some(800), "circuit_open");
    aside["retry_in_ms"] = json!(12_300);
    aside["failures"] = json!(3);
    aside["detail"] = json!("connection refused by harbor.corp");
    aside["note"] =
        json!("no credentials: authSecret harbor: there is no such Secret in kube-system");
    let status = json!({
        "version": "0.1.0", "started_at": "2026-11-21T06:50:00Z", "uptime_seconds": 11_400,
        "socket": "/var/run/image-cri-shim.sock", "metrics_address": "127.0.0.1:7441",
        "config": {
            "file": "/etc/image-cri-shim.yaml", "generation": 3, "loaded_at": "2026-11-21T09:10:00Z",
            "parts": [
                {"field": "registries", "origin": "ConfigMap"}, {"field": "timeout", "origin": "ConfigMap"},
                {"field": "address", "origin": "file"}, {"field": "cri", "origin": "default"},
            ],
            "error": {"at": "2026-11-21T09:57:00Z", "message": "the config can't be used as it is\n/etc/image-cri-shim.yaml:3:1: error: timeout: `soon` is no duration"},
        },
        "runtime": {"socket": "/run/containerd/containerd.sock", "reachable": true, "detail": "containerd 1.7.24"},
        "registries": [registry(OFFLINE, Some(1000), "ok"), aside, registry(MIRROR, None, "unknown")],
        "caches": {"image_hits": 80, "image_misses": 40, "image_evictions": 0, "invalidations": 2, "domain_hits": 118, "domain_misses": 2, "domain_evictions": 0},
        "running": [running], "decisions": decisions(), "decisions_total": 231,
    });
    serde_json::from_value(status).unwrap()
}

#[test]
fn the_running_shim() {
    assert_snapshot!(at_all_widths(|page| status(page, &a_status(), now())));
}

#[test]
fn lines_are_bounded_where_there_is_no_terminal() {
    let mut long = a_status();
    let words = "x509: certificate signed by unknown authority ".repeat(20);
    for registry in &mut long.registries {
        registry.detail.clone_from(&words);
    }
    for decision in &mut long.decisions {
        decision.image = format!("registry.example.com/{}:1", "team/".repeat(30) + "app");
    }
    long.config.parts = (0..60)
        .map(|n| telemetry::report::ConfigPart {
            field: format!("registries[{n}]"),
            origin: "ConfigMap".to_owned(),
        })
        .collect();
    let mut page = Page::new(None);
    status(&mut page, &long, now());
    history(&mut page, &long.decisions, now());
    assert_width(&plain(page), 160);
}

#[test]
fn a_shim_that_has_just_started_and_lost_its_runtime() {
    let mut fresh = a_status();
    fresh.registries.clear();
    fresh.decisions.clear();
    fresh.running.clear();
    fresh.metrics_address = None;
    fresh.caches = telemetry::report::CacheStatus::default();
    fresh.config.error = None;
    fresh.runtime.reachable = false;
    fresh.runtime.detail = "connection refused".to_owned();
    let mut page = Page::new(Some(100));
    away(&mut page, "no image-cri-shim runs at /x: gone", "3 s", true);
    status(&mut page, &fresh, now());
    assert_snapshot!(plain(page));
}

fn a_node_cache() -> NodeCacheStatus {
    serde_json::from_value(json!({
        "version": "0.1.0", "dir": "/var/lib/image-cri-shim/cache",
        "hits": 1180, "misses": 31, "stale": 12, "errors": 2,
        "sent_bytes": 13_958_643_712u64, "received_bytes": 2_147_483_648u64,
        "stored_bytes": 1_610_612_736u64, "max_bytes": 53_687_091_200u64,
        "stored_images": 31, "evictions": 3,
        "arriving": [
            {"digest": format!("sha256:{}", "0123456789abcdef".repeat(4)), "repository": "docker.io/library/nginx",
             "bytes": 3_145_728, "total": 12_582_912, "from": "http://mirror.corp:5000/library/nginx"},
            {"digest": format!("sha256:{}", "fedcba9876543210".repeat(4)), "repository": "quay.io/team/app",
             "bytes": 0},
        ],
    }))
    .unwrap()
}

#[test]
fn the_node_cache() {
    let seen = a_node_cache();
    assert_snapshot!(at_all_widths(|page| node_cache(page, &seen)));
    let mut page = Page::new(Some(100));
    node_cache(
        &mut page,
        &NodeCacheStatus {
            passes_through: true,
            ..NodeCacheStatus::default()
        },
    );
    let text = plain(page);
    for part in ["nothing asked yet", "0 images", "nothing can be stored"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let mut page = Page::new(Some(100));
    let with = Status {
        node_cache: Some(seen),
        ..a_status()
    };
    status(&mut page, &with, now());
    assert!(plain(page).contains("\nNode cache\n"));
}

#[test]
fn what_the_node_cache_has_of_an_image() {
    let known = |known: Value| Item {
        node_cache: Some(serde_json::from_value(known).unwrap()),
        ..nobody()
    };
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let whole = known(json!({
        "digest": digest, "from": "http://mirror.corp:5000/library/nginx",
        "confirmed_at": "2026-11-21T09:55:00.000Z", "bytes": 31_467_292, "platforms": ["linux/amd64"],
        "is_whole": true, "pinned": true,
    }));
    let part = known(json!({
        "digest": digest, "bytes": 3_000, "is_whole": false,
        "arriving": [{"digest": digest, "repository": "docker.io/library/nginx", "bytes": 3_145_728,
            "total": 12_582_912, "from": "http://mirror.corp:5000/library/nginx"}],
    }));
    let nothing = known(json!({"bytes": 0, "is_whole": false}));
    assert_snapshot!(at_all_widths(|page| {
        for item in [&whole, &part, &nothing] {
            explanation(page, item);
        }
    }));
}

#[test]
fn a_bypass_that_is_or_was_in_force() {
    let mut all = String::new();
    for bypass in [
        json!({"allowed": true, "link": "shim", "periods": 0, "total_seconds": 0}),
        json!({"allowed": false, "link": "shim", "periods": 0, "total_seconds": 0}),
        json!({"allowed": true, "link": "shim", "periods": 3, "total_seconds": 95,
            "last": {"link": "bypass", "ended_at": "2026-11-21T09:55:00Z", "seconds": 23}}),
        json!({"allowed": true, "link": "bypass", "seconds": 75, "periods": 1, "total_seconds": 75}),
        json!({"allowed": false, "link": "nowhere", "seconds": 5, "periods": 0, "total_seconds": 0}),
        json!({"allowed": true, "link": "elsewhere", "periods": 1, "total_seconds": 2}),
    ] {
        let mut status = a_status();
        status.bypass = serde_json::from_value(bypass).unwrap();
        let mut page = Page::new(Some(100));
        super::status(&mut page, &status, now());
        let text = plain(page);
        let starts = |line: &str, label| line.trim_start().starts_with(label);
        let lines = text.lines().skip_while(|line| !starts(line, "bypass"));
        let lines = lines.take_while(|line| !starts(line, "config"));
        for line in lines.chain(["--"]) {
            all.push_str(line.trim_end());
            all.push('\n');
        }
    }
    assert_snapshot!(all);
}

#[test]
fn colors_say_nothing_that_words_do_not() {
    let mut page = Page::new(Some(100));
    explanation(&mut page, &found_second());
    assert_snapshot!(page.into_text().replace('\u{1b}', "ESC"));
}

const TITLES: [&str; 17] = [
    "PRIO",
    "REGISTRY",
    "RESULT",
    "TIME",
    "DIGEST",
    "CREDENTIALS",
    "WHY",
    "STATE",
    "LATENCY",
    "ASKED",
    "HAD",
    "IT",
    "PULLS",
    "DETAIL",
    "WHEN",
    "IMAGE",
    "TOOK",
];

#[test]
fn nothing_is_lost_where_it_is_narrow() {
    // Without the titles of tables; marks of an enumeration may come to stand between words.
    let words = |text: &str| -> BTreeSet<String> {
        let words = text
            .split_whitespace()
            .filter(|word| !TITLES.contains(word));
        words
            .map(|word| word.trim_end_matches(';').to_owned())
            .collect()
    };
    let render = |width: Option<usize>| {
        let mut page = Page::new(width);
        explanation(&mut page, &nobody());
        status(&mut page, &a_status(), now());
        history(&mut page, &decisions(), now());
        words(&plain(page))
    };
    let wide = render(None);
    for width in [120, 79, 49, 20, 1] {
        let narrow = render(Some(width));
        let lost: Vec<_> = wide.difference(&narrow).collect();
        assert_eq!(lost, [""; 0], "{width} columns");
    }
}
