//! The webhook's config: one file, or the ConfigMap itself; followed while it runs.
//!
//! Unlike the node shim, which must start without a cluster, the webhook merges nothing and writes
//! nothing: the one place it is told about is all there is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Link, Look};
use policy::config::{CONFIG_MAP_KEY, CONFIG_MAP_NAME, CONFIG_MAP_NAMESPACE, ConfigMap, Settings};
use tokio::sync::Notify;

use crate::config_file::{self, Loaded};
use crate::config_watch::{self, Watch};

/// How often the ConfigMap is asked for where no event came and no config says otherwise.
const INTERVAL: Duration = Duration::from_secs(15);

/// Where the config is. No `Debug`: it holds credentials.
pub(crate) enum Source {
    /// A file, read already.
    File {
        /// Where.
        path: PathBuf,
        /// What was in it.
        loaded: Box<Loaded>,
    },
    /// The ConfigMap `kube-system/image-cri-shim`.
    ConfigMap(Arc<Link>),
}

/// Hands the config to `apply`, and every new one. Never ends. `wake` asks for a look at once.
pub(crate) async fn follow(source: Source, wake: Arc<Notify>, apply: impl FnMut(Settings)) {
    match source {
        Source::File { path, loaded } => follow_file(path, *loaded, wake, apply).await,
        Source::ConfigMap(link) => follow_config_map(link, apply).await,
    }
}

async fn follow_file(
    path: PathBuf,
    loaded: Loaded,
    wake: Arc<Notify>,
    mut apply: impl FnMut(Settings),
) {
    let _watch = Watch::start(&[&path], Arc::clone(&wake));
    let shown = path.display().to_string();
    let mut seen: Result<String, String> = Ok(loaded.text);
    let mut interval = loaded.settings.reload_interval;
    apply(loaded.settings);
    loop {
        if tokio::time::timeout(interval, wake.notified())
            .await
            .is_ok()
        {
            config_watch::let_it_settle(&wake).await;
        }
        let file = path.clone();
        // A dead network mount must block nothing but its own reloads.
        let read = tokio::task::spawn_blocking(move || config_file::read(&file)).await;
        let Ok(read) = read else { continue };
        let now = read.map_err(|error| format!("{error:#}"));
        if now == seen {
            continue;
        }
        seen = now;
        let understood = seen.clone().and_then(|text| {
            config_file::understand(&path, text).map_err(|error| format!("{error:#}"))
        });
        match understood {
            Err(error) => tracing::warn!("keeping the last good config: {error}"),
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    tracing::warn!("{warning}");
                }
                interval = loaded.settings.reload_interval;
                apply(loaded.settings);
                tracing::info!("reloaded the config from {shown}");
            }
        }
    }
}

async fn follow_config_map(link: Arc<Link>, mut apply: impl FnMut(Settings)) {
    let name = format!("configmap {CONFIG_MAP_NAMESPACE}/{CONFIG_MAP_NAME}");
    let mut followed = cluster::follow_config_map(link, Arc::new(|| INTERVAL));
    let mut look = Look::Pending;
    let mut text: Option<String> = None;
    loop {
        let seen = followed.seen_and_noted();
        if seen.look != look {
            match &seen.look {
                Look::Absent => tracing::warn!(
                    "{name} not found; the last config stays, and without one Pods stay as they are"
                ),
                Look::Failed(failure) => tracing::warn!("cannot read {name}: {failure}"),
                Look::Pending | Look::Present => {}
            }
            look = seen.look.clone();
        }
        if let Some(value) = seen.value {
            let now = value.text.unwrap_or_default();
            if text.as_ref() != Some(&now) {
                if let Some(settings) = understand(&name, &now) {
                    apply(settings);
                    tracing::info!("took the config from {name}");
                }
                text = Some(now);
            }
        }
        followed.changed().await;
    }
}

/// What the ConfigMap's text means. One bad value is left out, with a warning; a text that is no YAML
/// leaves the last config in force.
fn understand(name: &str, text: &str) -> Option<Settings> {
    if text.trim().is_empty() {
        tracing::warn!("{name} has nothing under {CONFIG_MAP_KEY}; keeping the last config");
        return None;
    }
    let (map, mut findings) = match ConfigMap::read(text) {
        Ok(read) => read,
        Err(error) => {
            tracing::warn!("{}; keeping the last config", error.in_file(name));
            return None;
        }
    };
    let variable = |name: &str| std::env::var(name).ok();
    let (settings, meant) = Settings::from_raw(map.as_written(), &variable);
    findings.extend(meant);
    for finding in &findings {
        tracing::warn!("{}", finding.in_file(name));
    }
    Some(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_map_is_a_config_of_its_own() {
        let text = "sealos: {address: http://s.io}\nrewrite: best\nimageRedirMapping: [{src: a.io, to: b.io}, {src: ' ', to: 1}]\n";
        let settings = understand("configmap", text).unwrap();
        assert_eq!(settings.rules.registries.len(), 1);
        assert_eq!(settings.webhook.rewrite, policy::config::Rewrite::Best);
        assert!(understand("configmap", "a: [").is_none());
        assert!(understand("configmap", " ").is_none());
    }
}
