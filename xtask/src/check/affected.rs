//! Which crates a change concerns.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;

/// Files outside of crates that a crate's tests read.
const READ_BY_TESTS: [(&str, &str); 7] = [
    ("ARCHITECTURE.md", "xtask"),
    ("examples/", "policy"),
    ("docs/config.md", "policy"),
    ("docs/rules.md", "policy"),
    ("deploy/webhook/", "webhook"),
    ("deploy/monitoring/", "telemetry"),
    ("docs/metrics.md", "telemetry"),
];

/// Files that concern every crate.
const OF_ALL: [&str; 5] = [
    "Cargo.toml",
    "Cargo.lock",
    "clippy.toml",
    "rust-toolchain.toml",
    ".cargo/",
];

/// A package of the workspace.
#[derive(Clone, Debug)]
pub(super) struct Package {
    pub(super) name: String,
    /// Its folder below the workspace's root: `crates/policy`.
    pub(super) folder: String,
    /// Packages of the workspace that it is built on, those of its tests among them.
    pub(super) needs: Vec<String>,
}

/// What `cargo metadata --no-deps` says.
pub(super) fn packages(metadata: &[u8]) -> Result<Vec<Package>> {
    let metadata: Value = serde_json::from_slice(metadata)?;
    let root = metadata["workspace_root"]
        .as_str()
        .context("no workspace_root")?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let package = |package: &Value| {
        let manifest = package["manifest_path"]
            .as_str()
            .context("no manifest_path")?;
        let folder = manifest.strip_prefix(root).unwrap_or(manifest);
        let folder = folder.trim_end_matches("Cargo.toml").trim_matches('/');
        let needs = package["dependencies"]
            .as_array()
            .context("no dependencies")?;
        let ours = needs.iter().filter(|need| need["path"].is_string());
        Ok(Package {
            name: package["name"].as_str().context("no name")?.to_owned(),
            folder: folder.to_owned(),
            needs: ours
                .filter_map(|need| need["name"].as_str())
                .map(ToOwned::to_owned)
                .collect(),
        })
    };
    packages.iter().map(package).collect()
}

/// Crates that a change concerns, by name, sorted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Affected {
    /// With changed files.
    pub(super) changed: Vec<String>,
    /// Built on those, directly or by others.
    pub(super) dependents: Vec<String>,
}

impl Affected {
    /// By the paths of the files that have changed.
    pub(super) fn new(packages: &[Package], files: &[String]) -> Self {
        let is_changed = |package: &Package| {
            files.iter().any(|file| {
                let of_all = OF_ALL.iter().any(|path| file.starts_with(path));
                let read = READ_BY_TESTS
                    .iter()
                    .any(|(path, name)| package.name == *name && file.starts_with(path));
                of_all || read || file.starts_with(&format!("{}/", package.folder))
            })
        };
        let changed: BTreeSet<&str> = packages
            .iter()
            .filter(|package| is_changed(package))
            .map(|package| package.name.as_str())
            .collect();
        let mut reached = changed.clone();
        loop {
            let before = reached.len();
            for package in packages {
                if package
                    .needs
                    .iter()
                    .any(|need| reached.contains(need.as_str()))
                {
                    reached.insert(&package.name);
                }
            }
            if reached.len() == before {
                break;
            }
        }
        let names = |names: BTreeSet<&str>| names.into_iter().map(ToOwned::to_owned).collect();
        Self {
            dependents: names(&reached - &changed),
            changed: names(changed),
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.changed
            .iter()
            .chain(&self.dependents)
            .map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affected(files: &[&str]) -> (Vec<String>, Vec<String>) {
        let package = |(name, needs): (&str, &[&str])| Package {
            name: name.to_owned(),
            folder: format!("crates/{name}"),
            needs: needs.iter().map(ToString::to_string).collect(),
        };
        let packages: Vec<Package> = [
            ("policy", &[][..]),
            ("telemetry", &["policy"]),
            ("resolver", &["policy", "telemetry"]),
            ("testkit", &[]),
            ("webhook", &["resolver", "testkit"]),
        ]
        .map(package)
        .into();
        let files: Vec<String> = files.iter().map(ToString::to_string).collect();
        let Affected {
            changed,
            dependents,
        } = Affected::new(&packages, &files);
        (changed, dependents)
    }

    fn lists(changed: &[&str], dependents: &[&str]) -> (Vec<String>, Vec<String>) {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        (list(changed), list(dependents))
    }

    #[test]
    fn a_change_concerns_its_crate_and_what_is_built_on_it() {
        assert_eq!(
            affected(&["crates/telemetry/src/lib.rs", "README.md"]),
            lists(&["telemetry"], &["resolver", "webhook"])
        );
        assert_eq!(
            affected(&["crates/testkit/Cargo.toml"]),
            lists(&["testkit"], &["webhook"])
        );
        // Another crate whose name begins alike.
        assert_eq!(affected(&["crates/policy-x/src/lib.rs"]), lists(&[], &[]));
    }

    #[test]
    fn what_tests_read_belongs_to_their_crate() {
        assert_eq!(
            affected(&["deploy/webhook/rbac.yaml"]),
            lists(&["webhook"], &[])
        );
        assert_eq!(affected(&["examples/x.yaml"]).0, ["policy"]);
    }

    #[test]
    fn what_concerns_every_crate() {
        let all = ["policy", "resolver", "telemetry", "testkit", "webhook"];
        assert_eq!(affected(&["Cargo.lock"]), lists(&all, &[]));
        assert_eq!(affected(&["docs/commands.md"]), lists(&[], &[]));
    }

    #[test]
    fn cargo_metadata_is_read() {
        let metadata = r#"{"workspace_root": "/w", "packages": [
            {"name": "a", "manifest_path": "/w/crates/a/Cargo.toml", "dependencies": [
                {"name": "b", "path": "/w/crates/b", "kind": "dev"}, {"name": "serde", "path": null}]},
            {"name": "b", "manifest_path": "/w/crates/b/Cargo.toml", "dependencies": []}]}"#;
        let packages = packages(metadata.as_bytes()).unwrap();
        assert_eq!(packages[0].folder, "crates/a");
        assert_eq!(packages[0].needs, ["b"]);
        assert!(super::packages(b"{}").is_err());
    }
}
