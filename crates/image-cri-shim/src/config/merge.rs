//! The config in force: the local file, with what the ConfigMap says merged into it.
//!
//! Everything is judged by content: a step that finds what it found before does nothing and says
//! nothing. A config that can't be used, in either place, leaves the last good one in force.

use std::path::PathBuf;

use cluster::{ConfigMapText, FailureKind, Look, Seen};
use policy::config::{
    CONFIG_MAP_KEY, CONFIG_MAP_NAME, CONFIG_MAP_NAMESPACE, ConfigMap, RawConfig, merge, rewrite,
};

use telemetry::report::ConfigPart;

use super::file::{self, Loaded, Replaced};
use super::show;

/// The local file and the ConfigMap, and what has been made of them. No `Debug`: it holds credentials.
pub(crate) struct Merging {
    path: PathBuf,
    /// What the file was when it was looked at last: its text, or why there was none.
    looked: Result<String, String>,
    /// The file's text when it could be used last.
    local: String,
    /// Whether the file can be used now; only then may it be replaced.
    local_is_good: bool,
    /// The ConfigMap's text that was read last, so that it is only warned about once.
    configmap_text: Option<String>,
    configmap: Option<ConfigMap>,
    /// What is wrong with the file, the ConfigMap, and both together, as far as they are not in force.
    file_problem: Option<String>,
    configmap_problem: Option<String>,
    merged_problem: Option<String>,
    /// How the last look at the ConfigMap went, so that it is said once.
    said: Option<Said>,
    /// The merged text, where the file can't be written.
    overlay: Option<String>,
    in_force: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Present,
    Absent,
    Failed(FailureKind),
}

impl Merging {
    /// Starts from a file that is loaded and in force already.
    pub(crate) fn new(path: PathBuf, text: String) -> Self {
        Self {
            path,
            looked: Ok(text.clone()),
            local: text.clone(),
            local_is_good: true,
            configmap_text: None,
            configmap: None,
            file_problem: None,
            configmap_problem: None,
            merged_problem: None,
            said: None,
            overlay: None,
            in_force: text,
        }
    }

    /// What is wrong with what is written, where it is not what is in force.
    pub(crate) fn problem(&self) -> Option<String> {
        let problems = [
            &self.file_problem,
            &self.configmap_problem,
            &self.merged_problem,
        ];
        let said: Vec<&str> = problems.into_iter().flatten().map(String::as_str).collect();
        (!said.is_empty()).then(|| said.join("\n"))
    }

    /// Each field of what is in force, and where its value comes from.
    pub(crate) fn parts(&self) -> Vec<ConfigPart> {
        let (local, _) = RawConfig::read(&self.local);
        show::parts(&local, self.configmap.as_ref())
    }

    /// Looks at the file, takes in what is known of the ConfigMap, and gives the config where it
    /// changed. Reads and writes files, so not on a thread that must not wait.
    pub(crate) fn step(&mut self, seen: &Seen<ConfigMapText>) -> Option<Loaded> {
        self.look_at_file();
        self.take(seen);
        if self.local_is_good {
            self.merge();
        }
        let text = self.overlay.as_ref().unwrap_or(&self.local);
        if *text == self.in_force {
            return None;
        }
        match file::understand(&self.path, text.clone()) {
            Ok(loaded) => {
                self.in_force = loaded.text.clone();
                self.merged_problem = None;
                Some(loaded)
            }
            // Both parts were good; should the whole not be, it is said once and not used.
            Err(error) => {
                let problem = format!("with the ConfigMap, {error:#}");
                tracing::warn!("keeping the last good config: {problem}");
                self.in_force.clone_from(text);
                self.merged_problem = Some(problem);
                None
            }
        }
    }

    fn look_at_file(&mut self) {
        let now = file::read(&self.path).map_err(|error| format!("{error:#}"));
        if now == self.looked {
            return;
        }
        self.looked = now;
        let problem = match &self.looked {
            Err(error) => Some(error.clone()),
            Ok(text) => match file::understand(&self.path, text.clone()) {
                Ok(_) => {
                    self.local.clone_from(text);
                    None
                }
                Err(error) => Some(format!("{error:#}")),
            },
        };
        self.local_is_good = problem.is_none();
        if let Some(problem) = &problem {
            tracing::warn!("keeping the last good config: {problem}");
        }
        self.file_problem = problem;
    }

    /// Notes what the ConfigMap says now; a text that can't be read changes nothing.
    fn take(&mut self, seen: &Seen<ConfigMapText>) {
        self.say(&seen.look);
        if seen.look == Look::Absent {
            // What was merged stays: it is in the file, or else goes on being held in memory.
            self.configmap_text = None;
            self.configmap_problem = None;
            if self.overlay.is_none() {
                self.configmap = None;
            }
            return;
        }
        let Some(value) = &seen.value else {
            return;
        };
        let text = value.text.clone().unwrap_or_default();
        if self.configmap_text.as_ref() == Some(&text) {
            return;
        }
        let file = format!("configmap {CONFIG_MAP_NAMESPACE}/{CONFIG_MAP_NAME}");
        if value.text.is_none() {
            tracing::warn!("{file} has no key {CONFIG_MAP_KEY}; nothing is synced from it");
        }
        match ConfigMap::read(&text) {
            Ok((configmap, warnings)) => {
                for warning in &warnings {
                    tracing::warn!("{}", warning.in_file(&file));
                }
                self.configmap = Some(configmap);
                self.configmap_problem = None;
            }
            Err(error) => {
                let problem = format!("{}; nothing is synced from it", error.in_file(&file));
                tracing::warn!("{problem}");
                self.configmap_problem = Some(problem);
            }
        }
        self.configmap_text = Some(text);
    }

    fn say(&mut self, look: &Look) {
        let name = format!("configmap {CONFIG_MAP_NAMESPACE}/{CONFIG_MAP_NAME}");
        let now = match look {
            Look::Pending => return,
            Look::Present => Said::Present,
            Look::Absent => Said::Absent,
            Look::Failed(failure) => Said::Failed(failure.kind),
        };
        if self.said == Some(now) {
            return;
        }
        let failed_before = matches!(self.said, Some(Said::Failed(_)));
        self.said = Some(now);
        match look {
            Look::Absent => tracing::debug!("{name} not found; skip syncing"),
            // The link has said it.
            Look::Failed(failure) if failure.kind == FailureKind::NoClient => {}
            Look::Failed(failure) => tracing::warn!(
                "cannot read {name}: {failure}; skip syncing, and trying again with growing pauses"
            ),
            Look::Present if failed_before => tracing::info!("{name} can be read again"),
            Look::Present | Look::Pending => {}
        }
    }

    fn merge(&mut self) {
        let Some(configmap) = &self.configmap else {
            return;
        };
        let (local, _) = RawConfig::read(&self.local);
        let merged = merge(&local, configmap);
        if merged.changed.is_empty() {
            self.overlay = None;
            return;
        }
        let text = rewrite(&self.local, &merged.config, &merged.changed);
        let is_new = self.overlay.as_ref() != Some(&text);
        if is_new {
            for line in &merged.lines {
                tracing::info!("{line}");
            }
            for line in &merged.lost {
                tracing::warn!("{line}");
            }
        }
        let path = self.path.display();
        match file::replace(&self.path, &self.local, &text) {
            Ok(Replaced::Done) => {
                tracing::info!("synced image-cri-shim config from ConfigMap into {path}");
                self.looked = Ok(text.clone());
                self.local = text;
                self.overlay = None;
            }
            // Its change is seen by the next step, which comes at once.
            Ok(Replaced::Overtaken) => {}
            Err(error) => {
                if self.overlay.is_none() {
                    tracing::warn!(
                        "cannot write {path}: {error}; the config merged with the ConfigMap is used from memory"
                    );
                }
                self.overlay = Some(text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct World {
        dir: tempfile::TempDir,
        merging: Merging,
    }

    impl World {
        fn new(local: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("config.yaml");
            fs::write(&path, local).unwrap();
            Self {
                merging: Merging::new(path, local.to_owned()),
                dir,
            }
        }

        fn file(&self) -> String {
            fs::read_to_string(&self.merging.path).unwrap()
        }

        fn write(&self, text: &str) {
            fs::write(&self.merging.path, text).unwrap();
        }

        fn step(&mut self, configmap: Option<&str>) -> Option<Loaded> {
            let look = match configmap {
                Some(_) => Look::Present,
                None => Look::Absent,
            };
            self.merging.step(&Seen {
                value: configmap.map(|text| ConfigMapText {
                    text: Some(text.to_owned()),
                }),
                look,
            })
        }
    }

    #[test]
    fn merged_written_and_in_force_once() {
        let mut world = World::new("# ours\ndebug: false\n");
        let loaded = world.step(Some("debug: true")).unwrap();
        assert!(loaded.settings.debug);
        assert_eq!(world.file(), "# ours\ndebug: true\n");
        assert!(world.step(Some("debug: true")).is_none());
        // Deleted: what was merged stays.
        assert!(world.step(None).is_none());
        assert_eq!(world.file(), "# ours\ndebug: true\n");
        // And the file is the operator's again.
        world.write("debug: false\n");
        assert!(!world.step(None).unwrap().settings.debug);
    }

    #[test]
    fn a_local_edit_is_merged_again() {
        let mut world = World::new("");
        world.step(Some("timeout: 1m"));
        world.write("timeout: 2m\nforce: true\n");
        let loaded = world.step(Some("timeout: 1m")).unwrap();
        assert!(loaded.settings.force);
        assert_eq!(loaded.settings.timeout.as_secs(), 60);
        assert_eq!(world.file(), "timeout: 1m0s\nforce: true\n");
    }

    #[test]
    fn a_broken_file_is_never_overwritten() {
        let mut world = World::new("debug: true\n");
        world.write("debug: [\n");
        assert!(world.step(Some("timeout: 1m")).is_none());
        assert_eq!(world.file(), "debug: [\n");
        world.write("debug: true\n");
        let loaded = world.step(Some("timeout: 1m")).unwrap();
        assert!(loaded.settings.debug && loaded.settings.timeout.as_secs() == 60);
    }

    #[test]
    fn a_configmap_that_does_not_parse_changes_nothing() {
        let mut world = World::new("");
        world.step(Some("timeout: 1m"));
        assert!(world.step(Some("timeout: [")).is_none());
        assert_eq!(world.file(), "timeout: 1m0s\n");
    }

    #[test]
    fn a_file_that_can_not_be_written_is_merged_in_memory() {
        let mut world = World::new("debug: true\n");
        // A directory in the draft's place stops root too.
        let draft = world.dir.path().join(".config.yaml.new");
        fs::create_dir(&draft).unwrap();
        fs::write(draft.join("x"), "").unwrap();
        let loaded = world.step(Some("timeout: 1m")).unwrap();
        assert_eq!(loaded.settings.timeout.as_secs(), 60);
        assert_eq!(world.file(), "debug: true\n");
        assert!(world.step(Some("timeout: 1m")).is_none());
        // Deleted: the last merged state stays, and a local edit is merged with it.
        assert!(world.step(None).is_none());
        world.write("debug: false\n");
        let loaded = world.step(None).unwrap();
        assert!(!loaded.settings.debug);
        assert_eq!(loaded.settings.timeout.as_secs(), 60);
        // Writable again: written.
        fs::remove_dir_all(&draft).unwrap();
        assert!(world.step(Some("timeout: 1m")).is_none());
        assert_eq!(world.file(), "debug: false\ntimeout: 1m0s\n");
    }
}
