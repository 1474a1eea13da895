//! The webhook's config: one file, or the ConfigMap itself; followed while it runs.
//!
//! Unlike the node shim, which must start without a cluster, the webhook merges nothing and writes
//! nothing: the one place it is told about is all there is.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use cluster::{Link, Look};
use policy::config::{
    CONFIG_MAP_KEY, CONFIG_MAP_NAME, CONFIG_MAP_NAMESPACE, ConfigMap, Rewrite, Settings,
};
use tokio::sync::Notify;

use crate::config;
use crate::config::file::Loaded;
use crate::config::in_force::InForce;
use crate::config::state::ConfigState;
use crate::config::watch::Watch;

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
    ConfigMap,
}

impl Source {
    /// What it is called.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::File { path, .. } => path.display().to_string(),
            Self::ConfigMap => shown(),
        }
    }
}

/// Hands the config to `apply`, and every new one, with the credentials that it points to. Never ends.
/// `wake` asks for a look at once; `link` leads to the ConfigMap and to Secrets; `state` is told how it
/// goes.
pub(crate) async fn follow(
    source: Source,
    link: Arc<Link>,
    wake: Arc<Notify>,
    state: ConfigState,
    apply: impl FnMut(Settings),
) {
    // Redirects alone ask no registry.
    let in_force = InForce::new(Arc::clone(&link), |settings| {
        settings.webhook.rewrite == Rewrite::Best
    });
    match source {
        Source::File { path, loaded } => {
            follow_file(path, *loaded, wake, in_force, &state, apply).await;
        }
        Source::ConfigMap => follow_config_map(link, in_force, &state, apply).await,
    }
}

async fn follow_file(
    path: PathBuf,
    loaded: Loaded,
    wake: Arc<Notify>,
    mut in_force: InForce,
    state: &ConfigState,
    mut apply: impl FnMut(Settings),
) {
    let _watch = Watch::start(&[&path], Arc::clone(&wake));
    let shown = path.display().to_string();
    let mut seen: Result<String, String> = Ok(loaded.text);
    in_force.set(loaded.settings);
    state.loaded();
    loop {
        if let Some(settings) = in_force.next() {
            apply(settings);
        }
        tokio::select! {
            () = wake.notified() => config::watch::let_it_settle(&wake).await,
            () = in_force.changed() => {}
        }
        let file = path.clone();
        // A dead network mount must block nothing but its own reloads.
        let read = tokio::task::spawn_blocking(move || config::file::read(&file)).await;
        let Ok(read) = read else { continue };
        let now = read.map_err(|error| format!("{error:#}"));
        if now == seen {
            continue;
        }
        seen = now;
        let understood = seen.clone().and_then(|text| {
            config::file::understand(&path, text).map_err(|error| format!("{error:#}"))
        });
        state.looked(Vec::new(), understood.as_ref().err().cloned());
        match understood {
            Err(error) => tracing::warn!("keeping the last good config: {error}"),
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    tracing::warn!("{warning}");
                }
                in_force.set(loaded.settings);
                state.loaded();
                tracing::info!("reloaded the config from {shown}");
            }
        }
    }
}

async fn follow_config_map(
    link: Arc<Link>,
    mut in_force: InForce,
    state: &ConfigState,
    mut apply: impl FnMut(Settings),
) {
    let name = shown();
    let mut followed = cluster::follow_config_map(link, in_force.interval());
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
                let understood = understand(&name, &now);
                state.looked(Vec::new(), understood.as_ref().err().cloned());
                if let Ok(settings) = understood {
                    in_force.set(settings);
                    state.loaded();
                    tracing::info!("took the config from {name}");
                }
                text = Some(now);
            }
        }
        if let Some(settings) = in_force.next() {
            apply(settings);
        }
        tokio::select! {
            () = followed.changed() => {}
            () = in_force.changed() => {}
        }
    }
}

fn shown() -> String {
    format!("configmap {CONFIG_MAP_NAMESPACE}/{CONFIG_MAP_NAME}")
}

/// Looks at the ConfigMap once: the warnings about it.
///
/// # Errors
/// It can't be read, isn't there, or is no config.
pub(crate) async fn check_config_map(link: &Link) -> anyhow::Result<Vec<String>> {
    let name = shown();
    let read = cluster::read_config_map(link).await;
    let read = read.with_context(|| format!("cannot read {name}"))?;
    let Some(map) = read else {
        bail!("{name} not found; apply one, or take the rules from a file");
    };
    match read_text(&name, &map.text.unwrap_or_default()) {
        Ok((_, warnings)) => Ok(warnings),
        Err(error) => bail!(error),
    }
}

/// What the ConfigMap's text means; one that can't be used leaves the last config in force.
fn understand(name: &str, text: &str) -> Result<Settings, String> {
    let (settings, warnings) = read_text(name, text).inspect_err(|error| {
        tracing::warn!("{error}; keeping the last config");
    })?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(settings)
}

/// The text's meaning, and warnings about bad values, which are left out one by one. An error is a text
/// that is no YAML, or empty.
fn read_text(name: &str, text: &str) -> Result<(Settings, Vec<String>), String> {
    if text.trim().is_empty() {
        return Err(format!("{name} has nothing under {CONFIG_MAP_KEY}"));
    }
    let (map, mut findings) =
        ConfigMap::read(text).map_err(|error| error.in_file(name).to_string())?;
    let variable = |name: &str| std::env::var(name).ok();
    let (settings, meant) = Settings::from_raw(map.as_written(), &variable);
    findings.extend(meant);
    let findings = findings.iter();
    let warnings = findings.map(|finding| finding.in_file(name).to_string());
    Ok((settings, warnings.collect()))
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
        assert!(understand("configmap", "a: [").is_err());
        assert!(understand("configmap", " ").is_err());
    }
}
