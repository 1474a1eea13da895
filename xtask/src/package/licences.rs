//! The licences of everything that is linked into the program. Most of them want to be handed on with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::NAME;
use crate::step::cargo;

/// What is linked in beside crates.
const BEGINNING: &str = "\
What image-cri-shim is built from, and the licences of it.

The Rust standard library: MIT OR Apache-2.0, https://www.rust-lang.org
The GNU C Library, where the program is static: LGPL-2.1-or-later, https://www.gnu.org/software/libc.
  The program can be linked again with another version of it from this project's sources.
";

/// How the names of files begin that hold a licence.
const FILES: [&str; 6] = [
    "license",
    "licence",
    "copying",
    "notice",
    "unlicense",
    "copyright",
];

/// Each crate with its licence, and each text with the crates that have it.
pub(super) fn of_others() -> Result<String> {
    let mut crates = String::new();
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in linked()? {
        let text = |field: &str| package[field].as_str().unwrap_or_default();
        let name = format!("{} {}", text("name"), text("version"));
        crates.push_str(&format!("{name}: {}\n", text("license")));
        let manifest = Path::new(text("manifest_path"));
        for licence in texts_in(manifest.parent().unwrap_or(manifest))? {
            texts.entry(licence).or_default().insert(name.clone());
        }
    }
    let mut all = format!("{BEGINNING}\nCrates:\n\n{crates}");
    for (text, names) in texts {
        let names: Vec<_> = names.into_iter().collect();
        let line = "-".repeat(80);
        all.push_str(&format!(
            "\n{line}\n{}\n{line}\n\n{text}\n",
            names.join("\n")
        ));
    }
    Ok(all)
}

/// The packages that are linked into the program, ordered by name and version; without our own.
fn linked() -> Result<Vec<Value>> {
    let output = cargo(&["metadata", "--format-version", "1", "--locked"])
        .args([
            "--filter-platform",
            &format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
        ])
        .output()
        .context("running cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let id = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<_, _> = list(&metadata["packages"])
        .into_iter()
        .map(|package| (id(&package["id"]), package))
        .collect();
    let nodes: BTreeMap<_, _> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| (id(&node["id"]), node))
        .collect();
    let program = packages
        .iter()
        .find(|(_, package)| package["name"] == NAME)
        .context("cargo metadata names no package of the program")?;
    let mut open = vec![program.0.clone()];
    let mut seen = BTreeSet::new();
    while let Some(package) = open.pop() {
        if !seen.insert(package.clone()) {
            continue;
        }
        for dependency in list(&nodes[&package]["deps"]) {
            // Not what only builds or tests it.
            let is_linked = list(&dependency["dep_kinds"])
                .iter()
                .any(|kind| kind["kind"].is_null());
            if is_linked {
                open.push(id(&dependency["pkg"]));
            }
        }
    }
    let mut linked: Vec<_> = seen
        .iter()
        .map(|id| packages[id].clone())
        .filter(|package| !package["source"].is_null())
        .collect();
    linked.sort_by_key(|package| (id(&package["name"]), id(&package["version"])));
    Ok(linked)
}

/// The licences that stand in a crate's folder.
fn texts_in(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("looking into {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if FILES.iter().any(|begin| name.starts_with(begin)) && entry.file_type()?.is_file() {
            let bytes = fs::read(entry.path())
                .with_context(|| format!("reading {}", entry.path().display()))?;
            found.push(String::from_utf8_lossy(&bytes).trim_end().to_owned());
        }
    }
    Ok(found)
}
