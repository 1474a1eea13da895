//! The config in force on a node: the local file, with what the ConfigMap says merged into it.
//!
//! Everything is judged by content: a step that finds what it found before parses nothing, does nothing
//! and says nothing. A config that can't be used, in either place, leaves the last good one in force.

mod repair;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cluster::{ConfigMapText, Failure, FailureKind, LastSync, Snapshot};
use policy::config::{CONFIG_MAP_KEY, ConfigMap, RawConfig, merge, rewrite};
use telemetry::report::ConfigPart;

use crate::announce;
use crate::config_map;
use crate::file::{self, Loaded, Replaced};
use crate::guard;
use crate::show;
use crate::start::BrokenFile;

/// Is told before a config file is replaced: its path, its text, and the new text. It may be called again for a text that
/// was never written, since somebody else was faster.
pub type BeforeWriting = fn(&Path, old: &str, new: &str);

/// How the file is written.
pub(crate) struct Writing {
    /// Is told before.
    pub(crate) before_writing: BeforeWriting,
    /// Whether it may be written by now. Until then what it should say stays in memory.
    pub(crate) is_allowed: Arc<AtomicBool>,
}

impl Writing {
    fn is_allowed(&self) -> bool {
        self.is_allowed.load(Ordering::Acquire)
    }
}

/// The local file and the ConfigMap, and what has been made of them. No `Debug`: it holds credentials.
pub(crate) struct Merging {
    path: PathBuf,
    /// How the file is written; where it never is, what it should say stays in memory.
    writes: Option<Writing>,
    /// What the file was when it was looked at last: its text, or why there was none.
    looked: Result<String, String>,
    /// The file when it could be used last.
    local: Written,
    /// The file as it is now, where only values that the ConfigMap replaces are wrong with it.
    repaired: Option<Written>,
    /// The ConfigMap's text that was read last.
    configmap_text: Option<String>,
    configmap: Option<ConfigMap>,
    /// What is wrong with the file, the ConfigMap, and both together, as far as they are not in force.
    file_problem: Option<String>,
    configmap_problem: Option<String>,
    merged_problem: Option<String>,
    /// How the last try to read the ConfigMap went, so that it is logged once.
    reported: Option<Reported>,
    /// What the last merge warned about, so that it is logged once.
    warned: Vec<String>,
    /// What the file should say.
    pending: Option<String>,
    /// What `before_writing` was told last: what stands there, and what is to. A file that can't be written is tried again and
    /// again.
    announced: Option<(String, String)>,
    /// Whether it was logged that it can't be written.
    is_unwritable: bool,
    /// What was made of file and ConfigMap last, in force or not.
    merged: String,
    /// The one that is in force.
    in_force: String,
    parts: Vec<ConfigPart>,
    /// Whether the file alone would leave the site without the rules of both.
    relies_on_config_map: bool,
}

/// A text without errors, and what was written in it.
struct Written {
    text: String,
    raw: RawConfig,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reported {
    Present,
    Absent,
    Failed(FailureKind),
}

impl Merging {
    /// Starts from a config that is loaded and in force already: the file's, or one that is used in place of a
    /// broken file.
    pub(crate) fn new(
        path: PathBuf,
        loaded: Loaded,
        broken: Option<BrokenFile>,
        writes: Option<Writing>,
    ) -> Self {
        let Loaded { text, raw, .. } = loaded;
        let (looked, file_problem) = match broken {
            Some(broken) => (broken.looked, Some(broken.problem)),
            None => (Ok(text.clone()), None),
        };
        Self {
            path,
            writes,
            looked,
            parts: show::parts(&raw, None),
            merged: text.clone(),
            in_force: text.clone(),
            local: Written { text, raw },
            repaired: None,
            configmap_text: None,
            configmap: None,
            file_problem,
            configmap_problem: None,
            merged_problem: None,
            reported: None,
            warned: Vec::new(),
            pending: None,
            announced: None,
            is_unwritable: false,
            relies_on_config_map: false,
        }
    }

    /// What is wrong with what is written, where it is not what is in force.
    pub(crate) fn problem(&self) -> Option<String> {
        let problems = [
            &self.file_problem,
            &self.configmap_problem,
            &self.merged_problem,
        ];
        let known: Vec<&str> = problems.into_iter().flatten().map(String::as_str).collect();
        (!known.is_empty()).then(|| known.join("\n"))
    }

    /// Each field of what is in force, and where its value comes from.
    pub(crate) fn parts(&self) -> &[ConfigPart] {
        &self.parts
    }

    /// Whether the file alone would leave the site without the rules that are in force: the ConfigMap has them, and the
    /// file is not written.
    pub(crate) fn relies_on_config_map(&self) -> bool {
        self.relies_on_config_map
    }

    /// What the file was when it was looked at last: its text, or why there was none.
    pub(crate) fn looked(&self) -> &Result<String, String> {
        &self.looked
    }

    /// Takes in what the file says now, where it was read, and what is known of the ConfigMap, and gives the
    /// config where it changed. May write the file, so not on a thread that must not wait.
    pub(crate) fn step(
        &mut self,
        file: Option<Result<String, String>>,
        snapshot: &Snapshot<ConfigMapText>,
    ) -> Option<Loaded> {
        let file = file.is_some_and(|file| self.take_file(file));
        let configmap = self.take(snapshot);
        let new = match file || configmap {
            true => self.merge(),
            false => None,
        };
        self.write();
        new
    }

    /// Whether the file is another than before.
    fn take_file(&mut self, now: Result<String, String>) -> bool {
        if now == self.looked {
            return false;
        }
        self.repaired = None;
        let problem = match &now {
            Err(error) => Some(error.clone()),
            Ok(text) => match file::understand(&self.path, text.clone()) {
                Ok(loaded) => {
                    let path = self.path.display().to_string();
                    let opened = guard::opens_the_site(&path, &self.local.text, &loaded);
                    if opened.is_none() {
                        let Loaded { text, raw, .. } = loaded;
                        self.local = Written { text, raw };
                    }
                    opened
                }
                Err(error) => Some(error.to_string()),
            },
        };
        if let Some(problem) = &problem {
            announce::kept_last_good(problem);
        }
        self.file_problem = problem;
        self.looked = now;
        true
    }

    /// Notes what the ConfigMap says now, and whether that is something else; a text that can't be read
    /// changes nothing.
    fn take(&mut self, snapshot: &Snapshot<ConfigMapText>) -> bool {
        self.report(&snapshot.last_sync);
        if snapshot.last_sync == LastSync::Absent {
            self.configmap_text = None;
            self.configmap_problem = None;
            // What was merged stays: it is in the file, or else goes on being held in memory.
            if self.is_in_file() {
                return self.configmap.take().is_some();
            }
            return false;
        }
        let Some(value) = &snapshot.value else {
            return false;
        };
        let name = config_map::name();
        let Some(text) = &value.text else {
            let problem = format!("{name} has no key {CONFIG_MAP_KEY}; nothing is synced from it");
            if self.configmap_problem.as_ref() != Some(&problem) {
                tracing::warn!("{problem}");
            }
            self.configmap_text = None;
            self.configmap_problem = Some(problem);
            return false;
        };
        if self.configmap_text.as_ref() == Some(text) {
            return false;
        }
        let read = ConfigMap::read(text);
        self.configmap_text = Some(text.clone());
        match read {
            Ok((configmap, warnings)) => {
                for warning in &warnings {
                    tracing::warn!("{}", warning.in_file(&name));
                }
                self.configmap = Some(configmap);
                self.configmap_problem = None;
                true
            }
            Err(error) => {
                let problem = format!("{}; nothing is synced from it", error.in_file(&name));
                tracing::warn!("{problem}");
                self.configmap_problem = Some(problem);
                false
            }
        }
    }

    /// Whether the file says all that the ConfigMap said.
    fn is_in_file(&self) -> bool {
        self.file_problem.is_none() && self.pending.is_none()
    }

    fn report(&mut self, last_sync: &LastSync) {
        let name = config_map::name();
        let now = match last_sync {
            LastSync::Pending => return,
            LastSync::Present => Reported::Present,
            LastSync::Absent => Reported::Absent,
            LastSync::Failed(failure) => Reported::Failed(failure.kind),
        };
        if self.reported == Some(now) {
            return;
        }
        let failed_before = matches!(self.reported, Some(Reported::Failed(_)));
        self.reported = Some(now);
        match last_sync {
            LastSync::Absent => tracing::debug!("{name} not found; skip syncing"),
            // The link has logged it.
            LastSync::Failed(Failure {
                kind: FailureKind::NoClient | FailureKind::Unusable,
                ..
            }) => {}
            LastSync::Failed(failure) => tracing::warn!(
                "cannot read {name}: {failure}; skip syncing, and trying again with growing pauses"
            ),
            LastSync::Present if failed_before => tracing::info!("{name} can be read again"),
            LastSync::Present | LastSync::Pending => {}
        }
    }

    /// What file and ConfigMap mean together, where that is something new.
    ///
    /// A broken file is never built upon in the file itself: the last good one, with the ConfigMap merged
    /// into it, is used from memory until somebody mends it.
    fn merge(&mut self) -> Option<Loaded> {
        self.repair();
        let base = self.repaired.as_ref().unwrap_or(&self.local);
        let merged = self.configmap.as_ref().map(|map| merge(&base.raw, map));
        let warnings = merged.as_ref().map(|merged| merged.lost.clone());
        let warnings = warnings.unwrap_or_default();
        for line in warnings.iter().filter(|line| !self.warned.contains(line)) {
            tracing::warn!("{line}");
        }
        self.warned = warnings;
        let merged = merged.filter(|merged| !merged.changed.is_empty());
        let text = match &merged {
            Some(merged) => rewrite(&base.text, &merged.config, &merged.changed),
            None => Ok(base.text.clone()),
        };
        let text = match text {
            Ok(text) => text,
            Err(problem) => {
                if self.merged_problem.as_ref() != Some(&problem) {
                    tracing::warn!("keeping the last good config: {problem}");
                }
                self.merged_problem = Some(problem);
                self.pending = None;
                return None;
            }
        };
        let is_writable = self.file_problem.is_none() || self.repaired.is_some();
        let in_file = self.looked.as_ref().ok();
        let pending = (is_writable && in_file != Some(&text)).then(|| text.clone());
        self.relies_on_config_map = guard::loses_all(&text, &self.local.text);
        if text == self.merged {
            if self.merged_problem.is_none() {
                self.pending = pending;
                self.parts = show::parts(&base.raw, self.configmap.as_ref());
            }
            return None;
        }
        self.merged.clone_from(&text);
        // Before anything is written: what stands in the file must be usable at the next start.
        let loaded = match self.understand(text) {
            Ok(loaded) => loaded,
            Err(error) => {
                let problem = format!("with the ConfigMap, {error}");
                announce::kept_last_good(&problem);
                self.merged_problem = Some(problem);
                self.pending = None;
                return None;
            }
        };
        for line in merged.iter().flat_map(|merged| &merged.lines) {
            tracing::info!("{line}");
        }
        self.merged_problem = None;
        self.pending = pending;
        self.parts = show::parts(&base.raw, self.configmap.as_ref());
        self.in_force.clone_from(&loaded.text);
        Some(loaded)
    }

    /// Understands what was made of file and ConfigMap, unless it would take away all routing although neither says so.
    fn understand(&self, text: String) -> Result<Loaded, String> {
        let loaded = file::understand(&self.path, text).map_err(|error| error.to_string())?;
        let map = self.configmap.as_ref().map(ConfigMap::as_written);
        let says_so = map.is_some_and(|map| map.registries.is_some() || map.redirects.is_some());
        if !says_so && guard::loses_all(&self.in_force, &loaded.text) {
            return Err("the config names no registry and no redirect any more, so every pull would go to its origin; where that is meant, write `registries: []` into the ConfigMap".to_owned());
        }
        Ok(loaded)
    }

    /// Where all that is wrong with the file is values that the ConfigMap replaces, it is built upon
    /// without them.
    fn repair(&mut self) {
        let (Some(_), Ok(text), Some(configmap)) =
            (&self.file_problem, &self.looked, &self.configmap)
        else {
            self.repaired = None;
            return;
        };
        self.repaired = repair::without_replaced_values(text, configmap.as_written())
            .and_then(|text| file::understand(&self.path, text).ok())
            .map(|Loaded { text, raw, .. }| Written { text, raw });
    }

    /// Writes what the file should say; tried again at each step until it is there.
    fn write(&mut self) {
        let allowed = self.writes.as_ref().filter(|writes| writes.is_allowed());
        let Some(Writing { before_writing, .. }) = allowed else {
            return;
        };
        let (Some(text), Ok(old)) = (&self.pending, &self.looked) else {
            return;
        };
        let change = (old.clone(), text.clone());
        if self.announced.as_ref() != Some(&change) {
            before_writing(&self.path, old, text);
            self.announced = Some(change);
        }
        let path = self.path.display();
        match file::replace(&self.path, old, text) {
            Ok(Replaced::Done) => {
                tracing::info!("synced image-cri-shim config from ConfigMap into {path}");
                // It was understood before it was written.
                let (raw, _) = RawConfig::read(text);
                self.local = Written {
                    text: text.clone(),
                    raw,
                };
                self.looked = Ok(text.clone());
                self.pending = None;
                self.repaired = None;
                self.file_problem = None;
                self.is_unwritable = false;
                self.relies_on_config_map = false;
            }
            // Its change is seen by the next step, which comes at once.
            Ok(Replaced::Overtaken) => {}
            Err(error) if !self.is_unwritable => {
                tracing::warn!(
                    "cannot write {path}: {error}; the config merged with the ConfigMap is used from memory"
                );
                self.is_unwritable = true;
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
