//! The ConfigMap as a config of its own: nothing is merged and nothing is written.

use cluster::{ClientProvider, ConfigMapText, LastSync, WatchedObject};
use policy::config::{CONFIG_MAP_KEY, CONFIG_MAP_NAME, CONFIG_MAP_NAMESPACE, ConfigMap, Settings};

use crate::announce;
use crate::file::Loaded;
use crate::found::Found;
use crate::guard;
use crate::{ConfigError, variable};

/// What the ConfigMap is called in logs.
pub(crate) fn name() -> String {
    format!("configmap {CONFIG_MAP_NAMESPACE}/{CONFIG_MAP_NAME}")
}

/// The ConfigMap, followed.
pub(crate) struct ConfigMapSource {
    followed: WatchedObject<ConfigMapText>,
    /// How the last try went, so that it is logged once.
    reported: LastSync,
    /// The text that was read last, so that it is parsed once.
    text: Option<String>,
    problem: Option<String>,
    /// Whether the last good config routes anything.
    routes: bool,
}

impl ConfigMapSource {
    pub(crate) fn new(followed: WatchedObject<ConfigMapText>) -> Self {
        Self {
            followed,
            reported: LastSync::Pending,
            text: None,
            problem: None,
            routes: false,
        }
    }

    pub(crate) async fn changed(&mut self) {
        self.followed.changed().await;
    }

    pub(crate) fn look(&mut self) -> Found {
        let snapshot = self.followed.take_snapshot();
        self.report(&snapshot.last_sync);
        let is_answered = snapshot.last_sync != LastSync::Pending;
        let new = snapshot.value.and_then(|value| self.take(value));
        Found {
            new,
            problem: self.problem.clone(),
            relies_on_config_map: false,
            parts: Vec::new(),
            is_answered,
        }
    }

    fn report(&mut self, last_sync: &LastSync) {
        if self.reported == *last_sync {
            return;
        }
        let name = name();
        match last_sync {
            LastSync::Absent => tracing::warn!(
                "{name} not found; the last config stays, and without one nothing is changed"
            ),
            LastSync::Failed(failure) => tracing::warn!("cannot read {name}: {failure}"),
            LastSync::Pending | LastSync::Present => {}
        }
        self.reported = last_sync.clone();
    }

    fn take(&mut self, value: ConfigMapText) -> Option<Loaded> {
        let text = value.text.unwrap_or_default();
        if self.text.as_ref() == Some(&text) {
            return None;
        }
        let understood =
            understand(&text).and_then(|loaded| {
                match guard::config_map_opens_the_site(&name(), self.routes, &loaded) {
                    Some(problem) => Err(problem),
                    None => Ok(loaded),
                }
            });
        self.text = Some(text);
        match understood {
            Ok(loaded) => {
                self.problem = None;
                self.routes = !loaded.settings.rules.is_empty();
                Some(loaded)
            }
            Err(problem) => {
                announce::kept_last_good(&problem);
                self.problem = Some(problem);
                None
            }
        }
    }
}

/// The text's meaning, and warnings about bad values, which are left out one by one. An error is a text
/// that is no YAML, or empty.
fn understand(text: &str) -> Result<Loaded, String> {
    let name = name();
    if text.trim().is_empty() {
        return Err(format!("{name} has nothing under {CONFIG_MAP_KEY}"));
    }
    let (map, mut findings) =
        ConfigMap::read(text).map_err(|error| error.in_file(&name).to_string())?;
    let (settings, meant) = Settings::from_raw(map.as_written(), &variable);
    findings.extend(meant);
    let findings = findings.iter();
    Ok(Loaded {
        text: text.to_owned(),
        raw: map.as_written().clone(),
        settings,
        warnings: findings
            .map(|finding| finding.in_file(&name).to_string())
            .collect(),
    })
}

/// Looks at the ConfigMap once: the warnings about it.
///
/// # Errors
/// It can't be read, isn't there, or is no config.
pub async fn check_config_map(link: &ClientProvider) -> Result<Vec<String>, ConfigError> {
    let name = name();
    let read = cluster::read_config_map(link).await;
    let map = match read {
        Ok(Some(map)) => map,
        Ok(None) => {
            return Err(ConfigError::ConfigMap(format!(
                "{name} not found; apply one, or take the rules from a file"
            )));
        }
        Err(failure) => {
            return Err(ConfigError::ConfigMap(format!(
                "cannot read {name}: {failure}"
            )));
        }
    };
    understand(&map.text.unwrap_or_default())
        .map(|loaded| loaded.warnings)
        .map_err(ConfigError::ConfigMap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_map_is_a_config_of_its_own() {
        let text = "sealos: {address: http://s.io}\nrewrite: best\nimageRedirMapping: [{src: a.io, to: b.io}, {src: ' ', to: 1}]\n";
        let settings = understand(text).ok().unwrap().settings;
        assert_eq!(settings.rules.registries.len(), 1);
        assert_eq!(settings.webhook.rewrite, policy::config::Rewrite::Best);
        assert!(understand("a: [").is_err());
        assert!(understand(" ").is_err());
    }
}
