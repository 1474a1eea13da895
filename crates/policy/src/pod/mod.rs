//! The same rules, applied to a Pod: which of its images are moved, and the JSON patch that does it.
//!
//! | module | what it knows |
//! |---|---|
//! | [`object`] | what of a Pod concerns us |
//! | [`scope`] | which Pods are left alone, and why |
//! | [`draft`] | the images of a Pod that may be moved, and where to |
//! | [`patch`] | the patch (RFC 6902) and the annotations |
//! | `places`, `earlier` | where in it references stand; what was done to them before |
//! | `rule_names` | the names that rules are recorded by |
//! | [`bounded`] | parts that are read without keeping all of them |
//!
//! ```
//! use policy::config::Settings;
//! use policy::pod::{Draft, Operation, PodSettings, Pod};
//!
//! let config = "imageRedirMapping: [{src: docker.io/, to: project-a.azurecr.io/docker-mirror/}]";
//! let (settings, _findings) = Settings::read(config, &|_name| None);
//! let options = PodSettings::new(&settings.webhook, None);
//! let pod: Pod = serde_json::from_str(r#"{"spec": {"containers": [
//!     {"name": "web", "image": "nats:2.10.26-alpine"}]}}"#).unwrap();
//! let draft = Draft::new(&pod, "default", Operation::Create, &settings.rules, &options).unwrap();
//! let patch = draft.patch(&[]).unwrap();
//! let first = serde_json::to_value(&patch.operations[0]).unwrap();
//! assert_eq!(first["path"], "/spec/containers/0/image");
//! assert_eq!(first["value"], "project-a.azurecr.io/docker-mirror/nats:2.10.26-alpine");
//! ```

pub mod bounded;
pub mod draft;
mod earlier;
pub mod object;
pub mod patch;
mod places;
mod rule_names;
pub mod scope;

pub use bounded::MAX_CONTAINERS;
pub use draft::{Draft, PodImage};
pub use object::Pod;
pub use patch::{Edit, MAX_PATCH, Patch};
pub use rule_names::rule_names;
pub use scope::{Operation, PodSettings, Skipped};

/// Annotation with the names that stood in the Pod before: a JSON object from container to image.
/// An image volume is `volume/NAME`, which can't be a container's name.
pub const ORIGINAL_IMAGES: &str = "image-cri-shim/original-images";
/// Annotation with the rules that moved them: a JSON object from container to the rule's name.
pub const RULES: &str = "image-cri-shim/rules";
/// Label or annotation of a Pod or a namespace that is left alone: `"false"`, `off`, `no`, `"0"` and so on
/// ([`scope::is_opt_out`]).
pub const OPT_OUT: &str = "image-cri-shim/rewrite";
/// kuik's label (or annotation) of a Pod that is left alone: `ignore`.
pub const KUIK_POLICY: &str = "kube-image-keeper.enix.io/image-caching-policy";
/// Annotation of a Pod that the API server shows for one that a kubelet read from a file.
const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotation that says where a kubelet has a Pod from.
const CONFIG_SOURCE: &str = "kubernetes.io/config.source";

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
