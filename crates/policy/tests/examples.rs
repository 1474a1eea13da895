//! The configs in `examples/` are read without a finding and lead where their first lines say.

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

/// `#   IMAGE -> NAME, NAME, origin` in the comments: an image, and what would be pulled, in this order.
fn promises(text: &str) -> Vec<(&str, Vec<&str>)> {
    let comments = text.lines().filter_map(|line| line.strip_prefix("#   "));
    let promises = comments.filter_map(|line| line.split_once("->"));
    promises
        .map(|(image, names)| (image.trim(), names.split(',').map(str::trim).collect()))
        .collect()
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
        let environment = |variable: &str| Some(format!("value of {variable}"));
        let (settings, findings) = Settings::read(text, &environment);
        assert!(findings.is_empty(), "{name}: {findings:?}");
        let promises = promises(text);
        assert!(promises.len() >= 2, "{name}");
        for (image, expected) in promises {
            let plan = Plan::new(&settings.rules, &Reference::parse(image).unwrap());
            let candidates = plan.candidates.iter().map(|c| c.image.as_str());
            let origin = plan.fallback_to_origin.then_some("origin");
            let order: Vec<_> = candidates.chain(origin).collect();
            assert_eq!(order, expected, "{name}: {image}");
        }
    }
}
