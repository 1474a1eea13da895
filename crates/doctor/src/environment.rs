//! The variables that the shim has: the shell that runs us has others.

use std::collections::BTreeMap;
use std::path::Path;

use installer::env_file;
use installer::{DEFAULTS, RUNTIME_VARIABLE};

use crate::host::Host;

/// Longest environment that is read.
const MAX_ENVIRONMENT: u64 = 1024 * 1024;

/// Variables by name. No `Debug`: they may hold passwords.
#[derive(Clone, Default)]
pub(crate) struct Environment {
    /// Those of the running shim, where they can be read: then nothing else counts.
    of_the_daemon: Option<BTreeMap<String, String>>,
    /// Those of the file that the units name.
    of_the_unit: BTreeMap<String, String>,
}

impl Environment {
    /// Reads the file that the units name, and what the process `daemon` has. On the thread that calls.
    pub(crate) fn of(host: &Host, daemon: Option<u32>) -> Self {
        let text = host.text(DEFAULTS).unwrap_or_default();
        let assignments = env_file::assignments(&text);
        let of_the_unit = assignments.into_iter().map(|one| (one.name, one.value));
        Self {
            of_the_daemon: daemon.and_then(of_process),
            of_the_unit: of_the_unit.collect(),
        }
    }

    /// What the running shim has. Where none runs: what the unit's file says, else what this process was given.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        match &self.of_the_daemon {
            Some(all) => all.get(name).cloned(),
            None => {
                let of_the_unit = self.of_the_unit.get(name).cloned();
                of_the_unit.or_else(|| std::env::var(name).ok())
            }
        }
    }

    /// Whether the unit's file may hold a credential: a variable that the config takes a value from, or an address with
    /// a password.
    pub(crate) fn file_holds_secrets(&self, config: &str) -> bool {
        self.of_the_unit.iter().any(|(name, value)| {
            let is_named = config.contains(&format!("${{{name}}}"));
            let has_password = value
                .split_once("://")
                .is_some_and(|(_, rest)| rest.contains('@'));
            name != RUNTIME_VARIABLE && (is_named || has_password)
        })
    }

    /// What the unit's file alone says.
    pub(crate) fn of_the_unit(&self, name: &str) -> Option<&str> {
        let value = self.of_the_unit.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }
}

fn of_process(pid: u32) -> Option<BTreeMap<String, String>> {
    let place = Path::new("/proc").join(pid.to_string()).join("environ");
    let bytes = files::read_start(&place, MAX_ENVIRONMENT).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let all = text.split('\0').filter_map(|one| one.split_once('='));
    Some(
        all.map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_shims_variables_count_then_the_units() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path(), false);
        std::fs::create_dir_all(dir.path().join("etc/default")).unwrap();
        let file = dir.path().join("etc/default/image-cri-shim");
        std::fs::write(&file, "A=\"x y\"\nPATH=/unit\nEMPTY=\n").unwrap();
        let unit = Environment::of(&host, None);
        assert_eq!(unit.get("A").as_deref(), Some("x y"));
        assert_eq!(unit.get("PATH").as_deref(), Some("/unit"));
        assert_eq!(unit.of_the_unit("EMPTY"), None);
        assert!(!unit.file_holds_secrets("auth: u:${OTHER}"));
        assert!(unit.file_holds_secrets("auth: u:${A}"));
        for (text, holds) in [
            ("IMAGE_CRI_SHIM_RUNTIME=unix://x@y", false),
            ("HTTPS_PROXY=http://proxy:3128", false),
            ("HTTPS_PROXY=http://user:pass@proxy:3128", true),
        ] {
            std::fs::write(&file, text).unwrap();
            let unit = Environment::of(&host, None);
            assert_eq!(unit.file_holds_secrets(""), holds, "{text}");
        }
        std::fs::write(&file, "A=\"x y\"\nPATH=/unit\nEMPTY=\n").unwrap();
        // This process stands for the shim's.
        let daemon = Environment::of(&host, Some(std::process::id()));
        assert_eq!(daemon.get("A"), None);
        assert_eq!(daemon.get("PATH"), std::env::var("PATH").ok());
        assert_eq!(daemon.of_the_unit("A"), Some("x y"));
    }
}
