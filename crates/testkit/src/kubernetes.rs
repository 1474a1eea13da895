//! Objects of manifests, against the types of Kubernetes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Whether `object` is a `T`, a type of `k8s-openapi`: by its `apiVersion` and `kind`, which an empty `T` has, too.
///
/// What Kubernetes makes of such an object is the object itself: it knows every field, and each has a value of the
/// right type. (The types pass over fields that they don't know, so those would be missing.)
///
/// # Panics
/// When it isn't so.
pub fn check<T: Default + DeserializeOwned + Serialize>(object: &Value) -> bool {
    let written = |typed: &T| match serde_json::to_value(typed) {
        Ok(value) => value,
        Err(error) => panic!("{error} in {object:#}"),
    };
    let empty = written(&T::default());
    assert!(empty["kind"].is_string(), "{empty} is of no kind");
    if object["apiVersion"] != empty["apiVersion"] || object["kind"] != empty["kind"] {
        return false;
    }
    let typed = T::deserialize(object).unwrap_or_else(|error| panic!("{error} in {object:#}"));
    assert_eq!(written(&typed), *object);
    true
}
