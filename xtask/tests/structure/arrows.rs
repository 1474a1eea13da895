//! ARCHITECTURE.md's table of crates against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::root;

/// The line that begins the table.
const HEAD: &str = "| crate | is | uses | its tests also use |";

/// Every crate's tests may use it.
const FOR_TESTS: &str = "testkit";

type Names = BTreeSet<String>;

/// A row of the table, or what cargo says of the same crate.
#[derive(Debug, Default, PartialEq, Eq)]
struct Crate {
    uses: Names,
    tests_use: Names,
}

/// A row: the crate's name, what it is, and its arrows.
struct Row {
    name: String,
    is: String,
    arrows: Crate,
}

/// The names between backquotes.
fn quoted(cell: &str) -> Names {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(ToOwned::to_owned)
        .collect()
}

fn document() -> String {
    std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap()
}

fn table(document: &str) -> Vec<Row> {
    let lines = document.lines().skip_while(|line| *line != HEAD).skip(2);
    let rows = lines.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let [name, is, uses, tests_use] = cells[..] else {
            panic!("ARCHITECTURE.md: four columns are wanted: {line}");
        };
        Row {
            name: name.trim().trim_matches('`').to_owned(),
            is: is.trim().to_owned(),
            arrows: Crate {
                uses: quoted(uses),
                tests_use: quoted(tests_use),
            },
        }
    });
    rows.collect()
}

/// The workspace's crates, each with those of the workspace that it is built on.
fn built() -> BTreeMap<String, Crate> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let arrows = |package: &Value, of_tests: bool| -> Names {
        let all = package["dependencies"].as_array().unwrap().iter();
        let ours = all.filter(|need| need["path"].is_string());
        ours.filter(|need| (need["kind"] == "dev") == of_tests)
            .map(|need| need["name"].as_str().unwrap().to_owned())
            .filter(|name| !of_tests || name != FOR_TESTS)
            .collect()
    };
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let arrows = Crate {
                uses: arrows(package, false),
                tests_use: arrows(package, true),
            };
            (package["name"].as_str().unwrap().to_owned(), arrows)
        })
        .collect()
}

#[test]
fn the_table_of_crates_is_what_cargo_builds() {
    let document = document();
    let mut drawn = BTreeMap::new();
    for Row { name, arrows, .. } in table(&document) {
        let twice = drawn.insert(name.clone(), arrows).is_some();
        assert!(!twice, "ARCHITECTURE.md: `{name}` has two rows");
    }
    let built = built();
    assert!(built.len() > 10, "{built:?}");
    for (name, arrows) in &built {
        let row = drawn.get(name);
        let row = row.unwrap_or_else(|| panic!("ARCHITECTURE.md: no row for the crate `{name}`"));
        assert_eq!(
            row, arrows,
            "ARCHITECTURE.md: the row of `{name}` (left) says other arrows than its Cargo.toml (right). \
             Does the new arrow point down? Then mend the row, else move what is shared down."
        );
    }
    for name in drawn.keys() {
        assert!(
            built.contains_key(name),
            "ARCHITECTURE.md: `{name}` is no crate"
        );
    }
}

#[test]
fn every_crate_is_in_the_map() {
    let document = document();
    let map = document.split("```").nth(1).expect("the map");
    let drawn: BTreeSet<&str> = map
        .lines()
        .filter_map(|line| line.trim().split_once('/'))
        .map(|(name, _)| name)
        .collect();
    for name in built().keys() {
        assert!(
            drawn.contains(name.as_str()),
            "ARCHITECTURE.md: `{name}` isn't in the map"
        );
    }
    for name in drawn {
        let folder = ["crates", "."].map(|parent| root().join(parent).join(name));
        assert!(
            folder.iter().any(|folder| folder.is_dir()),
            "ARCHITECTURE.md: the map has `{name}/`, which is no folder"
        );
    }
}

#[test]
fn arrows_point_down_and_roles_do_not_know_each_other() {
    let rows = table(&document());
    let height: BTreeMap<&str, usize> = (0..)
        .zip(&rows)
        .map(|(n, row)| (row.name.as_str(), n))
        .collect();
    let roles: Names = rows
        .iter()
        .filter(|row| row.is == "role")
        .map(|row| row.name.clone())
        .collect();
    assert!(roles.is_superset(&["cache", "cri", "webhook"].map(String::from).into()));
    for (n, Row { name, is, arrows }) in rows.iter().enumerate() {
        for used in arrows.uses.iter().chain(&arrows.tests_use) {
            let below = *height
                .get(used.as_str())
                .expect("the other test checks that it has a row");
            assert!(
                below > n,
                "`{name}` uses `{used}`, which stands above it in ARCHITECTURE.md's table"
            );
        }
        if is == "role" {
            let all: Names = &arrows.uses | &arrows.tests_use;
            let others: Vec<&String> = all.intersection(&roles).collect();
            assert!(
                others.is_empty(),
                "the role `{name}` uses the role {others:?}: move what they share down"
            );
        }
        let uses_testkit = arrows.uses.contains(FOR_TESTS);
        assert!(
            !uses_testkit || is == "tools",
            "`{name}` has testkit outside of its tests"
        );
        if name == FOR_TESTS {
            assert_eq!(
                arrows,
                &Crate::default(),
                "testkit uses no crate of the product: it would test it with itself"
            );
        }
    }
}
