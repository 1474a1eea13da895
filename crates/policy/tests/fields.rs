//! `docs/config.md` has every field that the program reads and no other, with its default, its bounds and an
//! example that is read without a finding.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use policy::config::{ConfigMap, Diagnostic, Key, RawConfig, Settings};
use policy::duration;
use policy::rules::Registry;

/// Fields that no setting shows: two that mean nothing, one that counts where a ConfigMap is merged.
const WITHOUT_A_SETTING: [&str; 3] = ["version", "sync", "configMapEnv"];
/// What a field needs beside it.
const BESIDE: [(&str, &str); 10] = [
    ("", "address: a.example.com"),
    (
        "imageCredentialProvider",
        "imageCredentialProviderConfig: /c, imageCredentialProviderBinDir: /b",
    ),
    ("registries[].", "address: a.example.com"),
    ("imageRedirMapping[].", "src: quay.io/, to: a.example.com/"),
    ("cache.", "prefix: 'cache.example.com:1'"),
    ("nodeCache.", ""),
    ("nodeCache.tls.", "certFile: /c, keyFile: /k"),
    ("nodeCache.store.", ""),
    ("nodeCache.store.s3.", "bucket: b"),
    (
        "nodeCache.store.s3.credentials.",
        "accessKeyId: i, secretAccessKey: s",
    ),
];

fn page() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md");
    fs::read_to_string(file).unwrap()
}

/// A row of the page's tables of fields.
#[derive(Debug)]
struct Row {
    /// As in the file: `registries[].address`.
    path: String,
    kind: String,
    default: String,
    range: String,
    example: String,
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut section = None;
    for line in page().lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = match (heading, code(heading)) {
                ("Top level", _) => Some(String::new()),
                (_, Some(name)) => Some(format!("{name}.")),
                _ => None,
            };
        }
        let (Some(section), Some(cells)) = (&section, line.strip_prefix("| `")) else {
            continue;
        };
        let cells: Vec<_> = cells.split(" |").map(str::trim).collect();
        let [name, kind, default, range, example, meaning, ""] = cells.as_slice() else {
            panic!("not six cells: {line}");
        };
        assert!(!meaning.is_empty(), "{line}");
        rows.push(Row {
            path: format!("{section}{}", name.trim_end_matches('`')),
            kind: (*kind).to_owned(),
            default: (*default).to_owned(),
            range: (*range).to_owned(),
            example: (*example).to_owned(),
        });
    }
    assert!(rows.len() > 80, "{}", rows.len());
    rows
}

/// The text of a cell that is nothing but code.
fn code(cell: &str) -> Option<&str> {
    let inner = cell.strip_prefix('`')?.strip_suffix('`')?;
    (!inner.contains('`')).then_some(inner)
}

/// A config in which `path` has `value`, and what it needs beside it; `None` is a config without the field.
fn config(path: &str, value: Option<&str>) -> String {
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    let start = match parent {
        "" if name.starts_with("imageCredentialProvider") => "imageCredentialProvider".to_owned(),
        "" => String::new(),
        parent => format!("{parent}."),
    };
    let beside = BESIDE.iter().find(|(of, _)| *of == start).unwrap().1;
    let mut fields: Vec<String> = beside
        .split(", ")
        .filter(|field| !field.is_empty() && !field.starts_with(&format!("{name}:")))
        .map(ToOwned::to_owned)
        .collect();
    fields.extend(value.map(|value| format!("{name}: {}", quoted(value))));
    let mut text = fields.join(", ");
    for outer in parent.split('.').rev().filter(|outer| !outer.is_empty()) {
        text = match outer.strip_suffix("[]") {
            Some(list) => format!("{list}: [{{{text}}}]"),
            None => format!("{outer}: {{{text}}}"),
        };
        if outer == "s3" {
            text = text.replacen(
                "s3: {",
                "s3: {bucket: b, ",
                usize::from(parent != "nodeCache.store.s3"),
            );
        }
    }
    format!("{{{text}}}")
}

/// A value as it may stand between braces.
fn quoted(value: &str) -> String {
    match value.starts_with(['[', '{', '"']) {
        true => value.to_owned(),
        false => format!("\"{value}\""),
    }
}

fn read(text: &str) -> (Settings, Vec<Diagnostic>) {
    let (mut settings, findings) = Settings::read(text, &|_| Some("value".to_owned()));
    // Whether a value was written is no part of what it is.
    let written = |registry: &mut Registry| registry.default_priority = false;
    settings.configured.iter_mut().for_each(written);
    settings.rules.registries.iter_mut().for_each(written);
    for listen in &mut settings.node_cache.listen {
        listen.required = false;
    }
    // A config of the cache alone routes nothing, which is fine here.
    let routes_nothing = |finding: &Diagnostic| finding.field.is_empty();
    let findings = findings.into_iter().filter(|f| !routes_nothing(f));
    (settings, findings.collect())
}

/// Words of the program's own text that may be a field's name.
fn words() -> BTreeSet<String> {
    let sources = [
        include_str!("../src/config/raw.rs"),
        include_str!("../src/config/node_cache/raw.rs"),
    ];
    let quoted = sources
        .iter()
        .flat_map(|text| text.split('"').skip(1).step_by(2));
    let is_name = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.chars().all(|c| c.is_ascii_alphanumeric())
    };
    quoted.filter(is_name).map(ToOwned::to_owned).collect()
}

#[test]
fn every_field_has_a_row_and_every_row_is_a_field() {
    let documented: BTreeSet<_> = rows().into_iter().map(|row| row.path).collect();
    let mut known = BTreeSet::new();
    let mut groups = vec![String::new()];
    while let Some(group) = groups.pop() {
        for word in words() {
            let path = format!("{group}{word}");
            let (_, findings) = RawConfig::read(&config(&path, Some("{}")));
            if findings
                .iter()
                .any(|f| f.message.starts_with("unknown field"))
            {
                continue;
            }
            let inner = [format!("{path}."), format!("{path}[].")];
            let group = inner
                .into_iter()
                .find(|inner| BESIDE.iter().any(|(start, _)| start == inner));
            // Groups inside of groups are known by their fields.
            if group.is_none() || !path.contains('.') {
                known.insert(path);
            }
            groups.extend(group);
        }
    }
    assert_eq!(documented, known);
}

#[test]
fn defaults_are_what_a_field_has_that_is_not_written() {
    let mut compared = 0;
    for row in rows() {
        let Some(default) = code(&row.default) else {
            continue;
        };
        let (without, _) = read(&config(&row.path, None));
        let (with, findings) = read(&config(&row.path, Some(default)));
        assert!(findings.is_empty(), "{row:?}: {findings:?}");
        assert_eq!(with, without, "{row:?}");
        compared += 1;
    }
    assert!(compared > 35, "{compared}");
}

#[test]
fn examples_are_read_and_change_something() {
    for row in rows().iter().filter(|row| row.kind != "fields") {
        let example = code(&row.example).unwrap_or_else(|| panic!("no example: {row:?}"));
        let (without, _) = read(&config(&row.path, None));
        let (with, findings) = read(&config(&row.path, Some(example)));
        assert!(findings.is_empty(), "{row:?}: {findings:?}");
        let shows = !WITHOUT_A_SETTING.contains(&row.path.as_str());
        assert_eq!(with != without, shows, "{row:?}");
    }
}

/// What is used in place of `value`, where it is out of range.
fn bound(path: &str, value: &str) -> Option<String> {
    let (_, findings) = read(&config(path, Some(value)));
    let message = findings
        .into_iter()
        .map(|finding| finding.message)
        .find(|message| message.contains("out of range"))?;
    let (_, used) = message
        .split_once("; ")
        .or(message.split_once("range "))
        .unwrap();
    Some(used.split(' ').next().unwrap().to_owned())
}

/// The same for two spellings of one value.
fn meant(value: &str) -> String {
    for (unit, bytes) in [("Ki", 1_024_u64), ("Mi", 1_024 * 1_024)] {
        if let Some(number) = value.strip_suffix(unit) {
            return (number.parse::<u64>().unwrap() * bytes).to_string();
        }
    }
    duration::parse(value).map_or_else(|_| value.to_owned(), duration::format)
}

#[test]
fn bounds_are_those_of_the_program() {
    for row in rows() {
        let (low, high) = match row.kind.as_str() {
            "duration" => ("1ns", "2000000h"),
            "size" => ("1", "100%"),
            "number" => ("-7", "9999999"),
            _ => {
                assert_eq!(row.range, "", "{row:?}");
                continue;
            }
        };
        let parts: Vec<_> = row.range.split('`').collect();
        let (floor, ceiling) = match parts.as_slice() {
            ["", floor, " to ", ceiling, ""] => (Some(*floor), Some(*ceiling)),
            ["at least ", floor, ""] => (Some(*floor), None),
            ["at most ", ceiling, ""] => (None, Some(*ceiling)),
            _ => panic!("not a range: {row:?}"),
        };
        // A priority below the lowest that can be written is lower still.
        let is_priority = row.path.to_lowercase().ends_with("priority");
        let floor = match is_priority {
            true => Some("0".to_owned()),
            false => floor.map(meant),
        };
        assert_eq!(bound(&row.path, low), floor, "{row:?}");
        assert_eq!(bound(&row.path, high), ceiling.map(meant), "{row:?}");
    }
}

/// What stands in code in `text`.
fn all_code(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn a_config_map_takes_what_is_written_there() {
    let page = page();
    let (_, section) = page.split_once("## The ConfigMap").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut merged = BTreeSet::new();
    for row in rows {
        let cells: Vec<_> = row.split('`').collect();
        let (theirs, ours) = (cells[0], cells[2]);
        assert_eq!(theirs.trim_start_matches("sealos."), ours, "{row}");
        let text = match theirs.strip_prefix("sealos.") {
            Some(name) => format!("sealos: {{{name}: x}}"),
            None => format!("{theirs}: x"),
        };
        let (_, findings) = ConfigMap::read(&text).unwrap();
        let is_unknown = |f: &Diagnostic| f.message.contains("ignored");
        assert!(!findings.iter().any(is_unknown), "{row}: {findings:?}");
        merged.insert(ours);
    }
    let keys: BTreeSet<_> = Key::ALL.into_iter().map(Key::name).collect();
    assert_eq!(merged, keys);
    // What only the file may say.
    let (_, local) = section.split_once("own file only").unwrap();
    let (local, _) = local.split_once(".\n\n").unwrap();
    let mut documented = all_code(local);
    assert!(documented.remove("sealos"));
    let words = words();
    let is_local = |word: &&String| {
        let (_, findings) = ConfigMap::read(&format!("{word}: x")).unwrap();
        findings.iter().any(|f| f.message.contains("own file only"))
    };
    let known: BTreeSet<&str> = words.iter().filter(is_local).map(String::as_str).collect();
    assert_eq!(documented, known);
}
