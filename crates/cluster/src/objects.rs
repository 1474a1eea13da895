//! The objects that a node follows: the ConfigMap, and the Secrets that the config names.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use policy::config::{CONFIG_MAP_KEY, CONFIG_MAP_NAME, CONFIG_MAP_NAMESPACE};
use secrecy::SecretString;

use crate::client::ClientProvider;
use crate::failure::Failure;
use crate::watched::{Target, WatchedObject};

/// What the ConfigMap holds. It may hold passwords, so it isn't shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigMapText {
    /// The text under `registries.yaml`; `None` when there is no such key.
    pub text: Option<String>,
}

impl fmt::Debug for ConfigMapText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConfigMapText(***)")
    }
}

/// A Secret's type and data. Isn't shown.
#[derive(Clone)]
pub struct SecretData {
    /// Its `type`, such as `kubernetes.io/dockerconfigjson`.
    pub kind: String,
    /// Its `data`. What isn't UTF-8 is left out: no credentials we know are anything else.
    pub data: BTreeMap<String, SecretString>,
}

impl PartialEq for SecretData {
    fn eq(&self, other: &Self) -> bool {
        use secrecy::ExposeSecret;
        let plain = |data: &Self| -> Vec<(String, String)> {
            let entries = data.data.iter();
            entries
                .map(|(key, value)| (key.clone(), value.expose_secret().to_owned()))
                .collect()
        };
        self.kind == other.kind && plain(self) == plain(other)
    }
}

impl Eq for SecretData {}

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretData({}, ***)", self.kind)
    }
}

/// Follows the ConfigMap `kube-system/image-cri-shim`.
pub fn follow_config_map(
    clients: Arc<ClientProvider>,
    interval: Arc<dyn Fn() -> Duration + Send + Sync>,
) -> WatchedObject<ConfigMapText> {
    Target {
        clients,
        namespace: CONFIG_MAP_NAMESPACE,
        name: CONFIG_MAP_NAME.to_owned(),
        extract: config_map_text,
        interval,
    }
    .start()
}

/// Follows the Secret `name` in the ConfigMap's namespace.
pub fn follow_secret(
    clients: Arc<ClientProvider>,
    name: String,
    interval: Arc<dyn Fn() -> Duration + Send + Sync>,
) -> WatchedObject<SecretData> {
    Target {
        clients,
        namespace: CONFIG_MAP_NAMESPACE,
        name,
        extract: secret_data,
        interval,
    }
    .start()
}

/// Asks for the ConfigMap once; `None` when there is none.
///
/// # Errors
/// There is no client, or the server gives no answer.
pub async fn read_config_map(clients: &ClientProvider) -> Result<Option<ConfigMapText>, Failure> {
    let (client, _) = clients.client().await?;
    let api: kube::Api<ConfigMap> = kube::Api::namespaced(client, CONFIG_MAP_NAMESPACE);
    match api.get_opt(CONFIG_MAP_NAME).await {
        Ok(found) => Ok(found.map(config_map_text)),
        Err(error) => Err(Failure::from_kube(&error)),
    }
}

fn config_map_text(map: ConfigMap) -> ConfigMapText {
    ConfigMapText {
        text: map.data.and_then(|mut data| data.remove(CONFIG_MAP_KEY)),
    }
}

/// What a manifest of a ConfigMap has under `registries.yaml`; none where the text is no such manifest.
pub fn in_manifest(text: &str) -> Option<ConfigMapText> {
    // Whatever else is in the file: a manifest may have several objects, or be a template.
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(text).ok()?;
    let is_config_map = |document: &&serde_json::Value| {
        document.get("kind").and_then(|kind| kind.as_str()) == Some("ConfigMap")
    };
    let mut maps = documents.iter().filter(is_config_map).map(|document| {
        let text = document
            .get("data")
            .and_then(|data| data.get(CONFIG_MAP_KEY));
        let text = text.and_then(|text| text.as_str()).map(ToOwned::to_owned);
        ConfigMapText { text }
    });
    let first = maps.next()?;
    Some(match first.text {
        Some(_) => first,
        None => maps.find(|map| map.text.is_some()).unwrap_or(first),
    })
}

fn secret_data(secret: Secret) -> SecretData {
    let data = secret.data.unwrap_or_default();
    SecretData {
        kind: secret.type_.unwrap_or_default(),
        data: data
            .into_iter()
            .filter_map(|(key, value)| {
                Some((key, SecretString::from(String::from_utf8(value.0).ok()?)))
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_in_a_manifest() {
        let text = |manifest: &str| in_manifest(manifest).map(|map| map.text);
        let manifest = "kind: Namespace\n---\napiVersion: v1\nkind: ConfigMap\ndata:\n  other: x\n---\n\
            kind: ConfigMap\ndata:\n  registries.yaml: |\n    timeout: 1m\n";
        assert_eq!(text(manifest), Some(Some("timeout: 1m\n".to_owned())));
        assert_eq!(text("kind: ConfigMap\ndata: {a: b}\n"), Some(None));
        for other in ["timeout: 1m\n", "kind: Secret\n", "a: [", ""] {
            assert_eq!(text(other), None, "{other}");
        }
    }
}
