//! The configs in `examples/` and in `docs/rules.md` are read without a finding, and lead where it is written
//! beside them.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use policy::config::Settings;
use policy::{Plan, Reference};

fn examples() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let texts = files.map(|file| {
        let name = file.file_name().into_string().unwrap();
        (name, fs::read_to_string(file.path()).unwrap())
    });
    texts.collect()
}

/// A line `IMAGE -> NAME, NAME, origin`: an image, and what would be pulled, in this order.
fn promise(line: &str) -> Option<(&str, Vec<&str>)> {
    let (image, names) = line.split_once("->")?;
    Some((image.trim(), names.split(',').map(str::trim).collect()))
}

/// Compares with the plan for the image.
fn check(place: &str, config: &str, promises: &[(&str, Vec<&str>)]) {
    let environment = |variable: &str| Some(format!("value of {variable}"));
    let (settings, findings) = Settings::read(config, &environment);
    assert!(findings.is_empty(), "{place}: {findings:?}");
    assert!(!promises.is_empty(), "{place}");
    for (image, expected) in promises {
        let plan = Plan::new(&settings.rules, &Reference::parse(image).unwrap());
        let candidates = plan.candidates.iter().map(|c| c.image.as_str());
        let origin = plan.fallback_to_origin.then_some("origin");
        let order: Vec<_> = candidates.chain(origin).collect();
        assert_eq!(order, *expected, "{place}: {image}");
    }
}

#[test]
fn examples_hold_what_they_promise() {
    let mut examples = examples();
    let readme = examples.remove("README.md").unwrap();
    assert_eq!(examples.len(), 6, "{:?}", examples.keys());
    for (name, text) in &examples {
        assert!(
            readme.contains(&format!("[{name}]({name})")),
            "README.md: {name}"
        );
        let comments = text.lines().filter_map(|line| line.strip_prefix("#   "));
        let promises: Vec<_> = comments.filter_map(promise).collect();
        check(name, text, &promises);
    }
}

#[test]
fn the_rules_are_as_documented() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rules.md");
    let text = fs::read_to_string(file).unwrap();
    let mut checked = 0;
    for (at, block) in text.split("```yaml\n").enumerate().skip(1) {
        let (config, rest) = block.split_once("```\n").unwrap();
        let (lines, _) = rest
            .strip_prefix("```text\n")
            .and_then(|rest| rest.split_once("```"))
            .unwrap_or_else(|| panic!("config {at} says not where it leads"));
        let promises: Vec<_> = lines.lines().map(|line| promise(line).unwrap()).collect();
        check(&format!("config {at}"), config, &promises);
        checked += 1;
    }
    assert!(checked >= 8, "{checked}");
    for rule in 1..=7 {
        assert!(text.contains(&format!("## Rule {rule}: ")), "{rule}");
    }
}
