//! What a ConfigMap does to the local file, field by field.

use proptest::prelude::*;

use super::super::{Diagnostic, RawConfig, Settings, masked, meaning, render, rewrite};
use super::*;

fn read(text: &str) -> RawConfig {
    let (config, findings) = RawConfig::read(text);
    assert!(!findings.iter().any(Diagnostic::is_error), "{findings:?}");
    config
}

/// Merges and writes: the new text, and the warnings about the ConfigMap.
fn merged(local: &str, configmap: &str) -> (String, Merged, Vec<String>) {
    let (configmap, findings) = ConfigMap::read(configmap).unwrap();
    let merged = merge(&read(local), &configmap);
    let text = if merged.changed.is_empty() {
        local.to_owned()
    } else {
        rewrite(local, &merged.config, &merged.changed).unwrap()
    };
    let findings = findings
        .iter()
        .map(|f| f.in_file("cm").to_string())
        .collect();
    (text, merged, findings)
}

fn text(local: &str, configmap: &str) -> String {
    let (text, _, findings) = merged(local, configmap);
    assert_eq!(findings, Vec::<String>::new());
    text
}

#[test]
fn what_is_set_is_taken_and_what_is_absent_stays() {
    let local = "address: http://old:5000\nauth: a:b\nofflinePriority: 700\ndebug: true\n\
                 force: true\ntimeout: 1m\nreloadInterval: 1m\ncache: {imageCacheSize: 5, domainCacheTTL: 1m}\n";
    for empty in [
        "",
        "version: v1",
        "sealos: {}\nregistries: null\ncache:\ntimeout: ''\nofflinePriority: 0\nreloadInterval: 0s\n",
    ] {
        let (same, merge, _) = merged(local, empty);
        assert_eq!((same.as_str(), merge.changed.len()), (local, 0), "{empty}");
    }
    let all = text(
        local,
        "sealos: {address: 'http://new:5000', auth: {username: u, password: 'p:q'}}\nofflinePriority: 900\n\
         debug: false\nforce: false\ntimeout: 15m\nreloadInterval: 30s\ncache: {imageCacheSize: 7, imageCacheTTL: 2m}\n",
    );
    assert_eq!(
        all,
        "address: http://new:5000\nauth: u:p:q\nofflinePriority: 900\ndebug: false\nforce: false\n\
         timeout: 15m0s\nreloadInterval: 30s\ncache:\n  imageCacheSize: 7\n  imageCacheTTL: 2m0s\n  domainCacheTTL: 1m0s\n"
    );
}

#[test]
fn lists_are_replaced_as_a_whole_also_by_nothing() {
    let local = "registries:\n- address: a.io\nimageRedirMapping: [{src: a.io, to: b.io}]\n";
    assert_eq!(
        text(
            local,
            "registries: [{address: c.io, auth: {username: u, password: p}, priority: 800}]"
        ),
        "registries:\n  - address: c.io\n    auth: u:p\n    priority: 800\nimageRedirMapping: [{src: a.io, to: b.io}]\n"
    );
    assert_eq!(
        text(local, "registries: []\nimageRedirMapping: []"),
        "registries: []\nimageRedirMapping: []\n"
    );
    assert_eq!(text(local, "registries:\nimageRedirMapping: ~"), local);
    let (_, merge, _) = merged("", "registries: []\nimageRedirMapping: []");
    assert!(
        merge.changed.is_empty(),
        "an empty list is what absent means"
    );
}

#[test]
fn one_bad_value_is_warned_about_by_name_and_the_others_are_applied() {
    let (text, _, findings) = merged(
        "timeout: 1m\naddress: http://ok\nreloadInterval: 15s\n",
        "timeout: soon\nsealos: {address: 'ftp://x'}\nofflinePriority: high\nreloadInterval: 40s\nregistries: 7\ndebug: maybe\n\
         cache: {imageCacheTTL: 1d, domainCacheTTL: 3m}\n",
    );
    assert_eq!(
        text,
        "timeout: 1m\naddress: http://ok\nreloadInterval: 40s\ncache:\n  domainCacheTTL: 3m0s\n"
    );
    for field in [
        "timeout",
        "address",
        "offlinePriority",
        "registries",
        "debug",
        "cache.imageCacheTTL",
    ] {
        let named = findings
            .iter()
            .any(|f| f.contains(&format!("warning: {field}: ")));
        assert!(named, "{field}: {findings:#?}");
    }
    assert!(
        findings[0].starts_with("cm:1:10: warning: timeout: not a duration"),
        "{findings:?}"
    );
    assert!(
        findings[0].ends_with("; the local value stays"),
        "{findings:?}"
    );
}

#[test]
fn a_bad_value_inside_an_entry_is_absent_and_the_entry_stays() {
    let (text, _, findings) = merged(
        "",
        "registries: [{address: a.io, priority: lots}, {address: b.io, mirrorOf: ['???', docker.io]}, {address: 'ht!', priority: 3}]\n\
         imageRedirMapping: [{src: docker.io, to: 'x y', canonical: perhaps}]",
    );
    assert_eq!(
        text,
        "registries:\n  - address: a.io\n  - address: b.io\n    mirrorOf: [\"docker.io\"]\n  - priority: 3\n",
    );
    assert_eq!(findings.len(), 6, "{findings:#?}");
    let (left_out, whole): (Vec<_>, Vec<_>) =
        findings.iter().partition(|f| f.ends_with("left out"));
    assert_eq!(left_out.len(), 5, "{findings:#?}");
    assert!(
        whole[0].contains("imageRedirMapping: none of its entries can be used"),
        "{whole:?}"
    );
}

#[test]
fn yaml_that_does_not_parse_is_refused_as_a_whole() {
    for bad in ["a: [", "- a", "just text", "registries: [}\nx"] {
        assert!(ConfigMap::read(bad).is_err(), "{bad}");
    }
}

#[test]
fn unknown_fields_get_a_suggestion() {
    let (_, findings) = ConfigMap::read("reloadIntervall: 3s\nsealos: {adress: x}").unwrap();
    assert!(
        findings[0].message.contains("`reloadInterval`"),
        "{findings:?}"
    );
    assert!(findings[1].message.contains("`address`"), "{findings:?}");
    assert_eq!(findings[1].field, "sealos.adress");
}

#[test]
fn an_explicit_zero_turns_the_cache_off() {
    let zero = "cache: {imageCacheSize: 0}";
    assert_eq!(
        text("debug: true\n", zero),
        "debug: true\ncache:\n  imageCacheSize: -1\n"
    );
    assert_eq!(
        text("cache: {imageCacheSize: -7}\n", zero),
        "cache: {imageCacheSize: -7}\n"
    );
}

#[test]
fn change_is_judged_by_meaning() {
    let local = "timeout: 900s\naddress: HTTP://Sealos.Hub:5000/\nauth: {username: u, password: p}\n\
                 registries: [{address: 'https://index.docker.io'}]\n";
    let (same, merge, _) = merged(
        local,
        "timeout: 15m\nsealos: {address: 'http://sealos.hub:5000', auth: {username: u, password: p}}\nofflinePriority: 1000\n\
         registries: [{address: docker.io, priority: 500, mirrorOf: docker.io}]\ncache: {imageCacheSize: 1024, imageCacheTTL: 1800s}\n\
         force: false\n",
    );
    assert_eq!(merge.changed, []);
    assert_eq!(same, local);
    let (_, merge, _) = merged(local, "registries: [{address: docker.io, priority: 501}]");
    assert_eq!(merge.changed, [Key::Registries]);
}

#[test]
fn priorities_are_written_as_they_are_and_variables_stay_unexpanded() {
    assert_eq!(
        text(
            "",
            "offlinePriority: -5\nregistries: [{address: a.io, priority: 20000, auth: '${USER}:${PASS}'}]"
        ),
        "offlinePriority: -5\nregistries:\n  - address: a.io\n    auth: \"${USER}:${PASS}\"\n    priority: 20000\n"
    );
}

#[test]
fn comments_order_and_unknown_fields_survive_a_rewrite() {
    let local = "# ours\ndebug: false # why\nmystery: {a: 1}\n\n# the list\nregistries:\n# inner\n- address: a.io # x\n\n# about the timeout\ntimeout: 5m\n# the end\n";
    assert_eq!(
        text(
            local,
            "registries: [{address: b.io}]\nreloadInterval: 20s\n"
        ),
        "# ours\ndebug: false # why\nmystery: {a: 1}\n\n# the list\nregistries:\n  - address: b.io\n\n# about the timeout\ntimeout: 5m\n# the end\nreloadInterval: 20s\n"
    );
    // Where fields have no lines of their own, or hang together by anchors, all is written anew.
    assert_eq!(
        text("{debug: true, address: a.io}", "timeout: 1m"),
        "address: a.io\ndebug: true\ntimeout: 1m0s\n"
    );
    assert_eq!(
        text(
            "auth: &secret u:p\naddress: a.io\nregistries: [{address: b.io, auth: *secret}]\n",
            "sealos: {auth: 'x:y'}"
        ),
        "address: a.io\nauth: x:y\nregistries:\n  - address: b.io\n    auth: u:p\n"
    );
}

#[test]
fn lost_options_are_named() {
    let (_, merge, _) = merged(
        "registries: [{address: 'https://u:hunter2@a.io', caFile: /ca.pem, mirrorOf: [x.io]}, {address: b.io, insecureSkipVerify: true}]\n\
         imageRedirMapping: [{src: x.io, to: 'https://u:hunter2@y.io', caFile: /y.pem}]\n",
        "registries: [{address: a.io, caFile: /other.pem}]\nimageRedirMapping: []",
    );
    assert_eq!(merge.lost.len(), 3, "{:?}", merge.lost);
    assert!(
        merge.lost[0].contains("`mirrorOf` of https://a.io is lost"),
        "{:?}",
        merge.lost
    );
    assert!(
        merge.lost[1].contains("`insecureSkipVerify` of b.io is lost"),
        "{:?}",
        merge.lost
    );
    assert!(
        merge.lost[2].contains("`caFile` of the one to https://y.io is lost"),
        "{:?}",
        merge.lost
    );
}

#[test]
fn log_lines_as_runbooks_grep_for_them() {
    let (_, merge, _) = merged(
        "",
        "sealos: {address: 'http://u:hunter2@sealos.hub:5000', auth: 'admin:hunter2'}\nofflinePriority: 1000\n\
         registries: [{address: docker.io, priority: 600}, {address: 'https://u:hunter2@b.io'}]\nimageRedirMapping: [{src: docker.io/, to: x.io/m/}]\n",
    );
    for line in [
        "configmap: synced offlinePriority=1000",
        "configmap: syncing registry docker.io with priority=600",
        "configmap: syncing registry https://b.io with priority=500 (default)",
        "configmap: merged 2 registries into config",
        "configmap: synced address=http://sealos.hub:5000",
        "configmap: syncing redirect docker.io/ to x.io/m/",
    ] {
        assert!(
            merge.lines.iter().any(|l| l == line),
            "{line}: {:#?}",
            merge.lines
        );
    }
    assert!(!merge.lines.concat().contains("hunter2"));
}

#[test]
fn masked_shows_no_credential() {
    let config = read(
        "address: http://u:hunter2@h\nauth: u:hunter2\nregistries: [{address: 'u:hunter2@b.io', auth: {username: u, password: hunter2}}]\n\
         imageRedirMapping: [{src: a.io, to: 'https://u:hunter2@c.io', auth: x:hunter2}]",
    );
    let all: String = Key::ALL.iter().map(|key| masked(&config, *key)).collect();
    assert!(!all.contains("hunter2"), "{all}");
    assert!(
        all.contains("address: http://h\n") && all.contains("to: https://c.io"),
        "{all}"
    );
}

/// Text that a password may be: any character that YAML can carry, quotes and line ends included.
fn secret() -> impl Strategy<Value = String> {
    "[ -~é€\n\t:#'\"{}$&*!%@`\u{2028}\u{feff}]{1,12}"
        .prop_filter("blank is absent", |text| !text.trim().is_empty())
}

/// A config in the local file's form, or in the ConfigMap's.
fn config(for_configmap: bool) -> impl Strategy<Value = String> {
    let quote = |text: &str| serde_free_quote(text);
    let registry = (
        0..4u8,
        prop::option::of(-10i64..20_000),
        prop::option::of(secret()),
        any::<bool>(),
    )
        .prop_map(move |(host, priority, password, split)| {
            let mut fields = vec![format!("address: h{host}.io:5000/p")];
            if let Some(priority) = priority {
                fields.push(format!("priority: {priority}"));
            }
            if let Some(password) = password {
                fields.push(if split {
                    format!("auth: {{username: u, password: {}}}", quote(&password))
                } else {
                    format!("auth: {}", quote(&format!("u:{password}")))
                });
            }
            format!("{{{}}}", fields.join(", "))
        });
    (
        prop::option::of(prop::collection::vec(registry, 0..4)),
        prop::option::of(0..3u8),
        prop::option::of(0..2000u32),
        prop::option::of(any::<bool>()),
        prop::option::of(-2..4i64),
    )
        .prop_map(move |(registries, host, timeout, debug, size)| {
            let mut text = String::new();
            if let Some(host) = host {
                text.push_str(&if for_configmap {
                    format!("sealos: {{address: 'http://o{host}.io'}}\n")
                } else {
                    format!("address: http://o{host}.io\n")
                });
            }
            if let Some(timeout) = timeout {
                text.push_str(&format!("timeout: {timeout}s\n"));
            }
            if let Some(debug) = debug {
                text.push_str(&format!("debug: {debug}\n"));
            }
            if let Some(size) = size {
                text.push_str(&format!("cache: {{imageCacheSize: {size}}}\n"));
            }
            if let Some(registries) = registries {
                text.push_str(&format!("registries: [{}]\n", registries.join(", ")));
            }
            text
        })
}

/// A quoting that shares nothing with the one under test: every character by its number.
fn serde_free_quote(text: &str) -> String {
    let codes: String = text
        .chars()
        .map(|c| format!("\\U{:08x}", u32::from(c)))
        .collect();
    format!("\"{codes}\"")
}

fn same(a: &RawConfig, b: &RawConfig) -> bool {
    Key::ALL.iter().all(|key| !meaning::differs(*key, a, b))
}

proptest! {
    #[test]
    fn what_is_rendered_means_what_was_read(text in config(false)) {
        let once = read(&text);
        let rendered = render(&once);
        prop_assert!(same(&once, &read(&rendered)), "{text}\n---\n{rendered}");
        prop_assert_eq!(render(&read(&rendered)), rendered);
    }

    #[test]
    fn merging_again_changes_nothing(local in config(false), said in config(true)) {
        let (configmap, _) = ConfigMap::read(&said).unwrap();
        let first = merge(&read(&local), &configmap);
        let text = rewrite(&local, &first.config, &first.changed).unwrap();
        prop_assert!(same(&read(&text), &first.config), "{local}\n---\n{said}\n---\n{text}");
        let second = merge(&read(&text), &configmap);
        prop_assert_eq!(second.changed, vec![], "{}\n---\n{}\n---\n{}", local, said, text);
    }

    #[test]
    fn a_configmap_never_panics(text in "[-a-z0-9:{}\\[\\],&*'\"\n #~|>%@!?]{0,160}") {
        if let Ok((configmap, _)) = ConfigMap::read(&text) {
            let merged = merge(&RawConfig::default(), &configmap);
            let _ = rewrite(&text, &merged.config, &merged.changed);
        }
    }
}

#[test]
fn regression_a_comment_before_the_only_field() {
    assert_eq!(
        text("# ours\ndebug: false\n", "debug: true"),
        "# ours\ndebug: true\n"
    );
}

#[test]
fn each_field_of_the_cache_is_judged_for_itself() {
    let local = "cache:\n  disableStats: true\n";
    assert_eq!(
        text(local, "cache: {statsLogInterval: 5m}"),
        "cache:\n  statsLogInterval: 5m0s\n  disableStats: true\n"
    );
    assert_eq!(
        text("", "cache: {statsLogInterval: 5m, disableStats: true}"),
        "cache:\n  statsLogInterval: 5m0s\n  disableStats: true\n"
    );
    // Off is off, however far below zero.
    assert_eq!(
        text(
            "cache: {imageCacheSize: -1}\n",
            "cache: {imageCacheSize: -7}"
        ),
        "cache: {imageCacheSize: -1}\n"
    );
}

#[test]
fn empty_null_and_missing_are_the_same() {
    let local = "address: http://a.io\nregistries: [{address: b.io}]\nuseNodeCache: true\n";
    for nothing in ["", "~", "null", "''", "'  '"] {
        for field in [
            "sealos",
            "registries",
            "imageRedirMapping",
            "cache",
            "nodeCache",
            "useNodeCache",
            "offlinePriority",
            "force",
            "debug",
            "timeout",
            "reloadInterval",
        ] {
            assert_eq!(
                text(local, &format!("{field}: {nothing}")),
                local,
                "{field}: {nothing}"
            );
        }
        for field in ["address", "auth"] {
            assert_eq!(
                text(local, &format!("sealos: {{{field}: {nothing}}}")),
                local
            );
        }
        assert_eq!(text(local, nothing), local);
    }
    for nothing in [
        "sealos: {}",
        "sealos: {auth: {}}",
        "cache: {}",
        "sealos: []",
        "sealos: {auth: {username: '', password: ''}}",
    ] {
        assert_eq!(text(local, nothing), local, "{nothing}");
    }
}

#[test]
fn what_only_this_node_says_is_not_taken_from_a_configmap() {
    let local = "configMapEnv: none\nfallbackToOrigin: false\n";
    let (same, _, findings) = merged(
        local,
        "configMapEnv: all\nfallbackToOrigin: true\nshim: /x\n",
    );
    assert_eq!(same, local);
    assert_eq!(findings.len(), 3, "{findings:?}");
    assert!(
        findings[0].contains("configMapEnv: is read from the node's own file only"),
        "{findings:?}"
    );
}

#[test]
fn variables_that_a_configmap_may_not_name_are_left_out() {
    let said = "sealos: {auth: '${CLOUD_KEY}:x'}\n\
        registries: [{address: a.io, auth: {username: u, password: '${CLOUD_KEY}'}}, {address: b.io, auth: 'u:${PULL}'}, {address: c.io, auth: 'u:$X'}]\n\
        imageRedirMapping: [{src: a.io, to: b.io, auth: 'u:${CLOUD_KEY}'}]\n\
        nodeCache: {store: {s3: {bucket: b, credentials: {accessKeyId: k, secretAccessKey: '${CLOUD_KEY}'}}}}\n";
    let (all, merge, _) = merged("auth: a:b\n", said);
    assert!(merge.lost.is_empty(), "{:?}", merge.lost);
    assert_eq!(all.matches("CLOUD_KEY").count(), 4, "{all}");
    for (allowed, left_out) in [("[PULL]", 4), ("none", 5), ("[]", 5)] {
        let local = format!("configMapEnv: {allowed}\nauth: a:b\n");
        let (text, merge, _) = merged(&local, said);
        assert_eq!(merge.lost.len(), left_out, "{:?}", merge.lost);
        assert!(!text.contains("CLOUD_KEY"), "{text}");
        assert_eq!(text.contains("${PULL}"), allowed == "[PULL]");
        assert!(
            text.contains("auth: a:b\n"),
            "the local value stays: {text}"
        );
        assert!(text.contains("u:$X"), "no variable: {text}");
        assert!(
            merge.lost[1]
                .starts_with("the ConfigMap's registries[1].auth names the variable CLOUD_KEY"),
            "{:?}",
            merge.lost
        );
    }
    let (_, findings) = RawConfig::read("configMapEnv: some\n");
    assert!(
        findings[0].message.starts_with("expected `all`, `none`"),
        "{findings:?}"
    );
}

#[test]
fn a_lost_layout_is_named() {
    let (_, merge, _) = merged(
        "registries: [{address: a.io, layout: host}]",
        "registries: [{address: a.io, priority: 3}]",
    );
    assert_eq!(merge.lost.len(), 1);
    assert!(
        merge.lost[0].contains("`layout` of a.io is lost"),
        "{:?}",
        merge.lost
    );
}

#[test]
fn a_list_without_end_is_cut_where_it_is_read() {
    let entries: Vec<_> = (0..20_000)
        .map(|n| format!("{{address: r{n}.io}}"))
        .collect();
    let said = format!("registries: [{}]\ntimeout: 1m", entries.join(", "));
    let (text, merge, findings) = merged("debug: true\n", &said);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(
        findings[0].contains("registries: 20000 entries; the first 1000 are used"),
        "{findings:?}"
    );
    assert_eq!(merge.changed, [Key::Registries, Key::Timeout]);
    let (settings, findings) = Settings::read(&text, &|_| None);
    assert_eq!(findings, []);
    assert_eq!(settings.rules.registries.len(), 1_000);
    // And as a local file, that somebody else wrote.
    let (settings, findings) = Settings::read(&said, &|_| None);
    assert_eq!(
        (settings.rules.registries.len(), findings.len()),
        (1_000, 1)
    );
    assert!(!findings[0].is_error());
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    // Either part can be read; both together would be more values than a config may hold.
    let list = |name: &str| {
        let hosts = vec!["h.io"; 900].join(", ");
        let entries: Vec<_> = (0..100)
            .map(|n| format!("{{address: {name}{n}.io, mirrorOf: [{hosts}]}}"))
            .collect();
        entries.join(", ")
    };
    let local = format!("excludeNamespaces: [{}]\n", vec!["n"; 90_000].join(", "));
    let (configmap, _) = ConfigMap::read(&format!("registries: [{}]", list("a"))).unwrap();
    let merged = merge(&read(&local), &configmap);
    let refused = rewrite(&local, &merged.config, &merged.changed).unwrap_err();
    assert!(
        refused.contains("can't be written as a config"),
        "{refused}"
    );
    assert!(refused.contains("too many values"), "{refused}");
}

/// Any value of a field that has bounds, from nothing to more than fits.
fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("0".to_owned()),
        Just("1ns".to_owned()),
        Just("2562047h".to_owned()),
        Just("9223372036854775807".to_owned()),
        Just("-9223372036854775808".to_owned()),
        Just("99999999999999999999".to_owned()),
        Just("off".to_owned()),
        Just("1e18".to_owned()),
        Just("100%".to_owned()),
        (0..100_000u32).prop_map(|n| n.to_string()),
        (0..100_000u32).prop_map(|n| format!("{n}ms")),
        (0..100_000u32).prop_map(|n| format!("{n}h")),
    ]
}

const BOUNDED: [&str; 16] = [
    "timeout: @",
    "reloadInterval: @",
    "probeTimeout: @",
    "offlinePriority: @",
    "cache: {imageCacheSize: @, imageCacheTTL: 5s}",
    "cache: {imageCacheTTL: @}",
    "cache: {domainCacheTTL: @}",
    "cache: {negativeTTL: @}",
    "cache: {statsLogInterval: @}",
    "registries: [{address: a.io, priority: @}]",
    "imageRedirMapping: [{src: a.io, to: b.io, priority: @}]",
    "nodeCache: {tagTTL: @}",
    "nodeCache: {maxStale: @}",
    "nodeCache: {authTTL: @}",
    "nodeCache: {parallel: @}",
    "nodeCache: {maxSize: @, minFree: @, parallelAbove: @}",
];

fn check_bounds(settings: &Settings) -> Result<(), TestCaseError> {
    use std::time::Duration;
    let within = |time: Duration, floor: u64, ceiling: u64| {
        prop_assert!(time >= Duration::from_millis(floor), "{time:?}");
        prop_assert!(time <= Duration::from_millis(ceiling), "{time:?}");
        // What is added to the clock must fit there.
        prop_assert!(std::time::Instant::now().checked_add(time).is_some());
        Ok(())
    };
    const DAY: u64 = 86_400_000;
    within(settings.timeout, 5_000, DAY)?;
    within(settings.reload_interval, 1_000, DAY)?;
    within(settings.probe_timeout, 100, 30_000)?;
    within(settings.cache.image_cache_ttl, 1_000, 30 * DAY)?;
    within(settings.cache.domain_cache_ttl, 1_000, 30 * DAY)?;
    within(settings.cache.negative_ttl, 1_000, DAY)?;
    within(settings.cache.stats_log_interval.unwrap(), 1_000, DAY)?;
    prop_assert!(settings.cache.image_cache_size <= 1_000_000);
    let cache = &settings.node_cache;
    within(cache.tag_ttl, 0, 30 * DAY)?;
    within(
        cache.max_stale.unwrap_or(Duration::from_secs(1)),
        1_000,
        3_650 * DAY,
    )?;
    within(cache.auth_ttl, 1_000, DAY)?;
    prop_assert!((1..=16).contains(&cache.parallel));
    Ok(())
}

proptest! {
    /// Every accepted value leaves a shim that pulls, and that starts again.
    #[test]
    fn every_accepted_config_is_bounded_and_is_read_again_as_it_is_meant(
        fields in prop::collection::btree_set(0..BOUNDED.len(), 1..5),
        value in any_value(),
    ) {
        let lines: Vec<_> = fields.iter().map(|at| BOUNDED[*at].replace('@', &value)).collect();
        // One of the cache's lines is enough: a key may stand once.
        let once = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count() <= 1;
        prop_assume!(once("cache:") && once("nodeCache:"));
        let file = lines.join("\n");
        let (settings, findings) = Settings::read(&file, &|_| None);
        if !findings.iter().any(Diagnostic::is_error) {
            check_bounds(&settings)?;
        }
        let (configmap, _) = ConfigMap::read(&file).unwrap();
        let merged = merge(&RawConfig::default(), &configmap);
        let text = rewrite("", &merged.config, &merged.changed);
        prop_assert!(text.is_ok(), "{file}: {text:?}");
        let (settings, findings) = Settings::read(&text.unwrap(), &|_| None);
        prop_assert!(!findings.iter().any(Diagnostic::is_error), "{findings:?}");
        check_bounds(&settings)?;
    }
}

#[test]
fn config_map_env_is_written_as_it_was_read() {
    for (written, again) in [
        ("all", "configMapEnv: all\n"),
        ("none", "configMapEnv: none\n"),
        ("[]", "configMapEnv: none\n"),
        ("[A, '1']", "configMapEnv: [\"A\", \"1\"]\n"),
    ] {
        let text = format!("configMapEnv: {written}\n");
        assert_eq!(render(&read(&text)), again);
    }
}
