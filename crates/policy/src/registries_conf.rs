//! CRI-O's registries.conf and its drop-ins (containers-registries.conf(5)), as far as they matter to us:
//! what short names mean, and which registries are asked without checking certificates.
//!
//! Finding and reading the files is somebody else's business.
//!
//! ```
//! use policy::registries_conf::RegistriesConf;
//!
//! let main = "unqualified-search-registries = ['harbor.corp']\n[[registry]]\nlocation = 'harbor.corp'\ninsecure = true\n";
//! let (conf, problems) = RegistriesConf::read([("/etc/containers/registries.conf", main)]);
//! assert!(problems.is_empty());
//! assert!(conf.is_insecure("harbor.corp", "team/app"));
//! assert_eq!(conf.short_names().search, ["harbor.corp"]);
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::short_names::ShortNames;

/// What the files say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistriesConf {
    short_names: ShortNames,
    registries: Vec<Registry>,
}

/// One `[[registry]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Registry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    unqualified_search_registries: Option<Vec<String>>,
    aliases: BTreeMap<String, String>,
    registry: Vec<Table>,
    /// Version 1 of the format, which CRI-O still reads.
    registries: Option<Version1>,
}

/// `short-name-aliases.conf`, which containers/image writes: it remembers what people have chosen.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RecordedAliases {
    aliases: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Table {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Version1 {
    search: Version1List,
    insecure: Version1List,
    block: Version1List,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Version1List {
    registries: Vec<String>,
}

impl Version1List {
    fn trimmed(&self) -> Vec<String> {
        self.registries.iter().map(|r| trimmed(r)).collect()
    }
}

impl RegistriesConf {
    /// Reads the main file and then its drop-ins, as pairs of path and text in the order in which the
    /// runtime reads them; a later one wins. The second part has a line for each file that can't be
    /// read: it is passed over.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Self, Vec<String>) {
        let mut conf = Self::default();
        let mut problems = Vec::new();
        for (path, text) in files {
            match parse(path, text) {
                Ok(file) => conf.take(file),
                Err(problem) => problems.push(problem),
            }
        }
        (conf, problems)
    }

    /// Reads the aliases that containers/image has recorded itself. They win over those of all other files,
    /// and nothing else in that file counts. The error is a line for people: the file is passed over.
    ///
    /// # Errors
    /// The text can't be read.
    pub fn read_recorded_aliases(&mut self, path: &str, text: &str) -> Result<(), String> {
        self.take_aliases(parse::<RecordedAliases>(path, text)?.aliases);
        Ok(())
    }

    fn take(&mut self, file: File) {
        if let Some(search) = file.unqualified_search_registries {
            self.short_names.search = search.iter().map(|r| trimmed(r)).collect();
        }
        self.take_aliases(file.aliases);
        for table in file.registry {
            self.add(Registry::new(
                &table.prefix,
                &table.location,
                table.insecure,
                table.blocked,
            ));
        }
        let Some(version1) = file.registries else {
            return;
        };
        let search = version1.search.trimmed();
        if !search.is_empty() {
            self.short_names.search = search;
        }
        let (insecure, blocked) = (version1.insecure.trimmed(), version1.block.trimmed());
        let mut names: Vec<&String> = insecure.iter().chain(&blocked).collect();
        names.sort();
        names.dedup();
        for name in names {
            let (insecure, blocked) = (insecure.contains(name), blocked.contains(name));
            self.add(Registry::new("", name, insecure, blocked));
        }
    }

    fn take_aliases(&mut self, aliases: BTreeMap<String, String>) {
        for (name, target) in aliases {
            if target.is_empty() {
                // That is how a drop-in takes an alias away.
                self.short_names.aliases.remove(&name);
            } else {
                self.short_names.aliases.insert(name, trimmed(&target));
            }
        }
    }

    fn add(&mut self, registry: Registry) {
        self.registries.retain(|old| old.prefix != registry.prefix);
        self.registries.push(registry);
    }

    /// What short names mean to the runtime.
    pub fn short_names(&self) -> &ShortNames {
        &self.short_names
    }

    /// Whether the runtime pulls `domain/repository` from that place without TLS, or without checking its
    /// certificate. Not where `location` leads the runtime to another host: that says nothing about ours.
    pub fn is_insecure(&self, domain: &str, repository: &str) -> bool {
        self.of(domain, repository).is_some_and(|registry| {
            let host = registry.location.split('/').next().unwrap_or_default();
            registry.insecure && (host.is_empty() || host == domain)
        })
    }

    /// Whether the runtime refuses to pull `domain/repository`.
    pub fn is_blocked(&self, domain: &str, repository: &str) -> bool {
        self.of(domain, repository)
            .is_some_and(|registry| registry.blocked)
    }

    /// The table with the longest prefix.
    fn of(&self, domain: &str, repository: &str) -> Option<&Registry> {
        let name = format!("{domain}/{repository}");
        self.registries
            .iter()
            .filter(|registry| registry.concerns(domain, &name))
            .max_by_key(|registry| registry.prefix.len())
    }
}

impl Registry {
    fn new(prefix: &str, location: &str, insecure: bool, blocked: bool) -> Self {
        let location = trimmed(location);
        let prefix = match trimmed(prefix) {
            prefix if prefix.is_empty() => location.clone(),
            prefix => prefix,
        };
        Self {
            prefix,
            location,
            insecure,
            blocked,
        }
    }

    fn concerns(&self, domain: &str, name: &str) -> bool {
        if let Some(parent) = self.prefix.strip_prefix('*') {
            // Such a prefix has no port, and is about the hosts on all of theirs.
            let host = match domain.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => host,
                _ => domain,
            };
            return parent.starts_with('.') && parent.len() > 1 && host.ends_with(parent);
        }
        !self.prefix.is_empty()
            && name
                .strip_prefix(&self.prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

fn parse<T: DeserializeOwned>(path: &str, text: &str) -> Result<T, String> {
    // Without the library's excerpt: nobody knows what stands there.
    toml::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| {
        let message = error.message();
        format!("{path} can't be read, so it is passed over: {message}")
    })
}

fn trimmed(text: &str) -> String {
    text.trim().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[&str]) -> RegistriesConf {
        let (conf, problems) = RegistriesConf::read(files.iter().map(|text| ("x.conf", *text)));
        assert_eq!(problems, Vec::<String>::new());
        conf
    }

    #[test]
    fn the_longest_prefix_decides() {
        let conf = read(&[
            "[[registry]]\nprefix = 'a.io/team'\nlocation = 'a.io/team'\ninsecure = false\n\
             [[registry]]\nlocation = 'a.io'\ninsecure = true\n\
             [[registry]]\nprefix = '*.corp'\ninsecure = true\n\
             [[registry]]\nlocation = 'bad.io'\nblocked = true\n",
        ]);
        assert!(conf.is_insecure("a.io", "other/app"));
        assert!(!conf.is_insecure("a.io", "team/app"));
        assert!(conf.is_insecure("a.io", "teamwork/app"));
        assert!(!conf.is_insecure("a.io:5000", "app"));
        assert!(conf.is_insecure("x.corp", "app") && !conf.is_insecure("corp", "app"));
        assert!(conf.is_blocked("bad.io", "x") && !conf.is_blocked("a.io", "x"));
    }

    #[test]
    fn a_wildcard_is_about_the_hosts_below_on_every_port() {
        let conf = read(&["[[registry]]\nprefix = '*.corp'\nblocked = true\n\
             [[registry]]\nprefix = '*.lab.corp'\n"]);
        for (domain, is_blocked) in [
            ("harbor.corp", true),
            ("harbor.corp:5000", true),
            ("a.b.corp:443", true),
            ("x.lab.corp:5000", false),
            ("corp:5000", false),
            ("harbor.corp.io:5000", false),
            ("harbor.corporate", false),
            ("[::1]", false),
            ("[::1]:5000", false),
        ] {
            let found = conf.is_blocked(domain, "with/path/and/beyond");
            assert_eq!(found, is_blocked, "{domain}");
        }
    }

    #[test]
    fn insecure_is_about_the_place_that_the_runtime_goes_to() {
        let conf = read(&[
            "[[registry]]\nprefix = 'docker.io'\nlocation = 'mirror.corp:5000/hub'\ninsecure = true\n",
        ]);
        assert!(!conf.is_insecure("docker.io", "library/app"));
    }

    #[test]
    fn a_drop_in_wins_over_what_was_read_before() {
        let conf = read(&[
            "unqualified-search-registries = ['a.io', 'b.io']\n[[registry]]\nlocation = 'a.io'\ninsecure = true\n[aliases]\napp = 'x.io/app'\ngone = 'x.io/gone'\n",
            "short-name-mode = 'enforcing'\n[aliases]\napp = 'y.io/app'\ngone = ''\n",
            "unqualified-search-registries = ['c.io']\n[[registry]]\nlocation = 'a.io'\n",
        ]);
        assert_eq!(conf.short_names().search, ["c.io"]);
        assert_eq!(
            conf.short_names().aliases,
            BTreeMap::from([("app".to_owned(), "y.io/app".to_owned())])
        );
        assert!(!conf.is_insecure("a.io", "app"));
    }

    #[test]
    fn what_has_been_recorded_wins_over_every_file() {
        let mut conf = read(&[
            "unqualified-search-registries = ['a.io']\n[aliases]\napp = 'x.io/app'\ngone = 'x.io/gone'\nkept = 'x.io/kept'\n",
        ]);
        let recorded = "unqualified-search-registries = ['b.io']\n[[registry]]\nlocation = 'b.io'\nblocked = true\n\
                   [aliases]\n\"app\" = \"y.io/app\"\n\"gone\" = \"\"\n\"team/new\" = \"y.io/new\"\n";
        conf.read_recorded_aliases("aliases.conf", recorded)
            .unwrap();
        let aliases = &conf.short_names().aliases;
        let aliases: Vec<_> = aliases
            .iter()
            .map(|(n, t)| (n.as_str(), t.as_str()))
            .collect();
        let want = [
            ("app", "y.io/app"),
            ("kept", "x.io/kept"),
            ("team/new", "y.io/new"),
        ];
        assert_eq!(aliases, want);
        assert_eq!(conf.short_names().search, ["a.io"]);
        assert!(!conf.is_blocked("b.io", "app"));
        let before = conf.clone();
        let problem = conf
            .read_recorded_aliases("aliases.conf", "auth = 'hunter2\n")
            .unwrap_err();
        assert!(
            problem.starts_with("aliases.conf can't be read"),
            "{problem}"
        );
        assert!(!problem.contains("hunter2"), "{problem}");
        assert_eq!(conf, before);
    }

    #[test]
    fn the_first_version_of_the_format() {
        let conf = read(&[
            "[registries.search]\nregistries = ['a.io']\n[registries.insecure]\nregistries = ['b.io:5000']\n[registries.block]\nregistries = ['c.io']\n",
        ]);
        assert_eq!(conf.short_names().search, ["a.io"]);
        assert!(conf.is_insecure("b.io:5000", "app") && conf.is_blocked("c.io", "app"));
    }

    #[test]
    fn slashes_at_the_end_of_a_name_of_the_first_version_do_not_count() {
        let conf = read(&[
            "[registries.search]\nregistries = ['a.io////', 'b.io:5000/']\n\
             [registries.insecure]\nregistries = ['c.io//']\n[registries.block]\nregistries = ['c.io', 'd.io/']\n",
        ]);
        assert_eq!(conf.short_names().search, ["a.io", "b.io:5000"]);
        assert!(conf.is_insecure("c.io", "app") && conf.is_blocked("c.io", "app"));
        assert!(conf.is_blocked("d.io", "app"));
    }

    #[test]
    fn a_broken_file_is_passed_over_and_never_quoted() {
        let (conf, problems) = RegistriesConf::read([
            ("a.conf", "auth = 'hunter2\n"),
            (
                "b.conf",
                "\u{feff}unqualified-search-registries = ['a.io']\n",
            ),
        ]);
        assert_eq!(conf.short_names().search, ["a.io"]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with("a.conf can't be read"),
            "{problems:?}"
        );
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }
}
