//! The files that people get.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::exist::Exist;
use crate::query::labels_of;

fn file(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

/// The words between `open` and `close`.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    let parts = text.split(open).skip(1);
    parts.filter_map(|part| part.split(close).next()).collect()
}

#[test]
fn the_list_is_complete_and_true() {
    let listed: BTreeMap<String, (String, BTreeSet<String>)> = file("docs/metrics.md")
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let labels = between(cells[3], "`", "`").into_iter().step_by(2);
            let labels = labels.map(ToOwned::to_owned).collect();
            (
                cells[1].trim_matches('`').to_owned(),
                (cells[2].to_owned(), labels),
            )
        })
        .collect();
    assert_eq!(listed, Exist::read().families);
}

#[test]
fn queries_in_the_documents() {
    let exist = Exist::read();
    let text = file("docs/metrics.md");
    let queries = between(&text, "```promql\n", "```")[0];
    for query in queries.split("\n\n") {
        let lines = query.lines().filter(|line| !line.starts_with('#'));
        let query: String = lines.collect::<Vec<_>>().join("\n");
        labels_of(&exist, &query).unwrap();
    }
}

#[test]
fn alerts() {
    let exist = Exist::read();
    let rules: Value = serde_saphyr::from_str(&file("deploy/monitoring/alerts.yaml")).unwrap();
    let mut names = BTreeSet::new();
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        assert!(names.insert(name), "{name} twice");
        let labels = labels_of(&exist, rule["expr"].as_str().unwrap());
        let labels = labels.unwrap_or_else(|error| panic!("{name}: {error}"));
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}"
        );
        for annotation in ["summary", "description", "runbook"] {
            let text = rule["annotations"][annotation].as_str().unwrap();
            for used in between(text, "$labels.", " }}") {
                assert!(labels.contains(used), "{name}: {used} is not in {labels:?}");
            }
        }
    }
    assert!(names.len() > 10);
}

#[test]
fn dashboard() {
    let exist = Exist::read();
    let dashboard: Value = serde_json::from_str(&file("deploy/monitoring/dashboard.json")).unwrap();
    let input = format!(
        "${{{}}}",
        dashboard["__inputs"][0]["name"].as_str().unwrap()
    );
    let (mut ids, mut queries) = (BTreeSet::new(), 0);
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            let labels = labels_of(&exist, target["expr"].as_str().unwrap());
            let labels = labels.unwrap_or_else(|error| panic!("{title}: {error}"));
            let legend = target["legendFormat"].as_str().unwrap();
            for used in between(legend, "{{", "}}") {
                assert!(
                    labels.contains(used),
                    "{title}: {used} is not in {labels:?}"
                );
            }
            assert_eq!(target["datasource"]["uid"], input, "{title}");
            queries += 1;
        }
    }
    assert!(queries > 30, "{queries}");
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        labels_of(&exist, annotation["expr"].as_str().unwrap()).unwrap();
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let query = variable["query"]["query"].as_str().unwrap();
        let inside = between(query, "label_values(", ")")[0];
        let (metric, label) = inside.split_once(", ").unwrap();
        let labels = labels_of(&exist, metric).unwrap();
        assert!(labels.contains(label), "{query}");
    }
}

/// Nothing in the grid covers anything else.
#[test]
fn panels_lie_side_by_side() {
    let dashboard: Value = serde_json::from_str(&file("deploy/monitoring/dashboard.json")).unwrap();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(side("x") + side("w") <= 24, "{}", panel["title"]);
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                assert!(taken.insert((x, y)), "{} covers another", panel["title"]);
            }
        }
    }
}
