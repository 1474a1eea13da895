//! The images that Kubernetes manifests name: what `kubectl apply` is given, or `helm template` prints.
//!
//! Containers of any kind at any depth, image volumes, OpenShift's `from: {kind: DockerImage, name}`, and
//! the fields that custom resources use: `image: "name"`, `sidecarImage`, `docker_image`,
//! `image: {registry, repository, tag, digest}`, and `sourceImage` of kuik's CachedImage. Names in arguments, environment variables and ConfigMaps'
//! texts are listed apart: they may be images.
//!
//! ```
//! let text = "
//! apiVersion: v1
//! kind: Pod
//! metadata: {name: shop}
//! spec: {containers: [{name: web, image: nginx:1.27}]}
//! ";
//! let found = policy::manifest::images(text);
//! assert_eq!(found.images[0].image, "nginx:1.27");
//! assert_eq!(found.images[0].place.to_string(), "Pod/shop: spec.containers[web].image");
//! ```

mod documents;
mod mention;
mod walk;

use std::fmt;

pub use crate::yaml::Position;

/// What was found in one text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Images in the order in which they stand, each once, whatever its spelling.
    pub images: Vec<Image>,
    /// What may be images, in arguments, environment variables and ConfigMaps: those that are not among
    /// `images`, each once.
    pub mentioned: Vec<Image>,
    /// What stands where an image will be, each text once.
    pub placeholders: Vec<Placeholder>,
    /// What should be an image and isn't.
    pub problems: Vec<Problem>,
    /// From where on the text can't be read; what stands before it is above.
    pub broken: Option<Problem>,
}

/// An image's name and where it was seen first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The name as it is written; it parses as a reference or is an image ID.
    pub image: String,
    /// Where it stands.
    pub place: Place,
    /// Whether its object says that it is to be kept: `retain` of kuik's CachedImage.
    pub retain: bool,
}

/// A text that somebody replaces by an image before anything is pulled; see [`crate::placeholder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// The text, on one line, cut where it is long.
    pub written: String,
    /// Where it stands.
    pub place: Place,
}

/// A mistake in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it is.
    pub place: Place,
    /// What is wrong; one line. Never quotes more than a wrong name.
    pub message: String,
}

/// A place in a manifest. Shown as `Deployment/web: spec.template.spec.containers[app].image`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The object: `Deployment/web`; empty where there is none.
    pub object: String,
    /// The field in it; empty where the text as a whole is meant.
    pub path: String,
    /// Line and column in the text.
    pub position: Position,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.object)?;
        if !self.object.is_empty() && !self.path.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.path)
    }
}

/// Finds the images in `text`: any number of YAML or JSON documents. Never fails as a whole: what
/// could be read before a mistake is there.
pub fn images(text: &str) -> Found {
    let mut walk = walk::Walk::default();
    let text = documents::without_marks(text);
    for document in documents::of(&text) {
        match document {
            Ok(document) => walk.document(&document),
            Err(problem) => walk.found.broken = Some(problem),
        }
    }
    walk.into_found()
}

#[cfg(test)]
mod tests;
