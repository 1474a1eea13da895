//! The images that Kubernetes manifests name: what `kubectl apply` is given, or `helm template` prints.
//!
//! Containers of any kind at any depth, image volumes, and the fields that custom resources use:
//! `image: "name"`, `image: {registry, repository, tag, digest}`. Names in arguments, variables of the
//! environment and ConfigMaps' texts are nobody's fields, so they are not found.
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
mod walk;

use std::fmt;

pub use crate::yaml::Position;

/// What was found in one text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Images in the order in which they stand, each once, whatever its spelling.
    pub images: Vec<Image>,
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
    for document in documents::of(text) {
        match document {
            Ok(document) => walk.document(&document),
            Err(problem) => walk.found.broken = Some(problem),
        }
    }
    walk.found
}

#[cfg(test)]
mod tests;
