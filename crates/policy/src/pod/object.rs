//! What of a Pod concerns us (`core/v1`, Pod). Everything else in it is skipped, not kept: a patch
//! names the few places it changes.
//!
//! A review may come from anybody, so what is kept is bounded ([`bounded`](super::bounded)), whatever the
//! Pod holds.

use serde::Deserialize;

use super::bounded::{Few, ImageVolumes, Notes};

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
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// What its name begins with, where the API server makes it up.
    pub generate_name: Option<String>,
    /// Labels.
    pub labels: Option<Notes>,
    /// Annotations.
    pub annotations: Option<Notes>,
    /// The objects that it belongs to.
    pub owner_references: Option<Few<Owner>>,
}

/// An entry of `ownerReferences`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Owner {
    /// Its kind, `ReplicaSet` for example.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Whether it is the one that manages the Pod.
    pub controller: Option<bool>,
}

/// `spec` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// Containers.
    pub containers: Option<Few<Container>>,
    /// Init containers, sidecars among them.
    pub init_containers: Option<Few<Container>>,
    /// Ephemeral containers, as `kubectl debug` adds them.
    pub ephemeral_containers: Option<Few<Container>>,
    /// Volumes that are an image's content.
    pub volumes: Option<ImageVolumes>,
    /// Secrets that its images are pulled with.
    pub image_pull_secrets: Option<Few<PullSecret>>,
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

/// An entry of `imagePullSecrets`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PullSecret {
    /// Name of a Secret in the Pod's namespace.
    pub name: String,
}

impl Pod {
    /// The value of an annotation, if it is one of those that concern us.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.as_ref()?.annotations.as_ref()?.get(name)
    }

    /// The value of a label, if it is one of those that concern us.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.metadata.as_ref()?.labels.as_ref()?.get(name)
    }

    /// The object that manages it, as `Kind/name`.
    pub fn owner(&self) -> Option<String> {
        let owners = self.metadata.as_ref()?.owner_references.as_ref()?;
        let owner = owners.kept().iter().find(|o| o.controller == Some(true))?;
        Some(format!("{}/{}", owner.kind, owner.name))
    }

    /// Its pull secrets; `None` where it has no list of them.
    pub(super) fn pull_secrets(&self) -> Option<&[PullSecret]> {
        let secrets = self.spec.as_ref()?.image_pull_secrets.as_ref()?;
        Some(secrets.kept())
    }

    /// Bytes that it has in memory, about.
    pub fn size(&self) -> usize {
        let metadata = self.metadata.iter().map(Metadata::size);
        let spec = self.spec.iter().map(Spec::size);
        metadata.chain(spec).sum::<usize>() + size_of::<Self>()
    }
}

impl Metadata {
    fn size(&self) -> usize {
        let notes = [&self.labels, &self.annotations].into_iter().flatten();
        let owners = size_of_all(self.owner_references.as_ref(), |owner| {
            owner.kind.len() + owner.name.len()
        });
        size_of_text(&self.generate_name) + notes.map(Notes::kept_size).sum::<usize>() + owners
    }
}

impl Spec {
    /// Containers of all kinds, by the field that they stand in.
    pub(super) fn containers(&self) -> [(&'static str, Option<&Few<Container>>); 3] {
        [
            ("initContainers", self.init_containers.as_ref()),
            ("containers", self.containers.as_ref()),
            ("ephemeralContainers", self.ephemeral_containers.as_ref()),
        ]
    }

    /// The names of all containers and image volumes.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let containers = self.containers().into_iter();
        let containers = containers.flat_map(|(_, list)| list.map_or(&[][..], Few::kept));
        let volumes = self.volumes.as_ref().map_or(&[][..], ImageVolumes::kept);
        let names = containers.map(|container| container.name.as_str());
        names.chain(volumes.iter().map(|(_, name, _)| name.as_str()))
    }

    fn size(&self) -> usize {
        let containers = self.containers().into_iter().map(|(_, list)| {
            size_of_all(list, |container| {
                container.name.len()
                    + size_of_text(&container.image)
                    + size_of_text(&container.image_pull_policy)
            })
        });
        let volumes = self.volumes.as_ref().map_or(&[][..], ImageVolumes::kept);
        let volumes = volumes.iter().map(|volume| {
            let (_, name, image) = volume;
            let texts = size_of_text(&image.reference) + size_of_text(&image.pull_policy);
            size_of_val(volume) + name.len() + texts
        });
        let secrets = size_of_all(self.image_pull_secrets.as_ref(), |secret| secret.name.len());
        containers.chain(volumes).sum::<usize>() + secrets
    }
}

fn size_of_text(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, String::len)
}

/// Bytes of a list; `texts` gives those of an element's texts.
fn size_of_all<T>(list: Option<&Few<T>>, texts: impl Fn(&T) -> usize) -> usize {
    let elements = list.map_or(&[][..], Few::kept).iter();
    elements
        .map(|element| size_of::<T>() + texts(element))
        .sum()
}
