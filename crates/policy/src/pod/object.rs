//! What of a Pod concerns us (`core/v1`, Pod). Everything else in it is skipped, not kept: a patch
//! names the few places it changes.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// `metadata`.
    pub metadata: Option<Metadata>,
    /// `spec`.
    pub spec: Option<Spec>,
}

/// `metadata` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations.
    pub annotations: Option<BTreeMap<String, String>>,
}

/// `spec` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// Containers.
    pub containers: Option<Vec<Container>>,
    /// Init containers, sidecars among them.
    pub init_containers: Option<Vec<Container>>,
    /// Ephemeral containers, as `kubectl debug` adds them.
    pub ephemeral_containers: Option<Vec<Container>>,
    /// Volumes; those with an `image` count.
    pub volumes: Option<Vec<Volume>>,
    /// Secrets that its images are pulled with.
    pub image_pull_secrets: Option<Vec<PullSecret>>,
}

/// A container of any of the three kinds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// Its name; one in a Pod over all kinds of containers.
    pub name: String,
    /// Its image; may be missing in what a controller fills in later.
    pub image: Option<String>,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: Option<String>,
}

/// A volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Its name; one among a Pod's volumes.
    pub name: String,
    /// Set when the volume is an image's content.
    pub image: Option<ImageVolume>,
}

/// `image` of a volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ImageVolume {
    /// The image or artifact.
    pub reference: Option<String>,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: Option<String>,
}

/// An entry of `imagePullSecrets`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PullSecret {
    /// Name of a Secret in the Pod's namespace.
    pub name: String,
}

impl Pod {
    /// The value of an annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        let annotations = self.metadata.as_ref()?.annotations.as_ref()?;
        annotations.get(name).map(String::as_str)
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        let labels = self.metadata.as_ref()?.labels.as_ref()?;
        labels.get(name).map(String::as_str)
    }
}
