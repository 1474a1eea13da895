//! The chart, and what helm makes of it.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use testkit::helm::Helm;

/// The namespace of every release here, the one of `deploy/webhook`.
pub(crate) const NAMESPACE: &str = "image-cri-shim";

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn chart() -> PathBuf {
    root().join("deploy/helm/image-cri-shim")
}

/// The files with values, by name.
pub(crate) fn value_sets() -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/helm/values");
    let mut sets: Vec<(String, PathBuf)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    sets.sort();
    sets
}

pub(crate) fn value_set(name: &str) -> PathBuf {
    let found = value_sets().into_iter().find(|(known, _)| known == name);
    found.unwrap_or_else(|| panic!("no values {name}")).1
}

/// Runs `helm ARGUMENTS…`.
pub(crate) fn helm(arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let helm = Helm::ensure().unwrap();
    helm.command(home.path()).args(arguments).output().unwrap()
}

/// `helm template` with values from a file and more options.
pub(crate) fn template(values: &Path, more: &[&str]) -> Output {
    let (chart, values) = (chart(), values.to_str().unwrap().to_owned());
    let arguments = ["template", "release", chart.to_str().unwrap()];
    let options = ["--namespace", NAMESPACE, "--values", &values];
    helm(&[&arguments, &options[..], more].concat())
}

/// What `helm template` prints, which has to succeed.
pub(crate) fn rendered(values: &Path, more: &[&str]) -> String {
    let output = template(values, more);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {errors}", values.display());
    assert_eq!(errors, "", "{}", values.display());
    String::from_utf8(output.stdout).unwrap()
}

/// The objects of a set of values.
pub(crate) fn objects(name: &str) -> Vec<Value> {
    documents(&rendered(&value_set(name), &[]))
}

pub(crate) fn documents(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    all.into_iter().filter(|object| !object.is_null()).collect()
}

/// The only object of a kind and a name.
pub(crate) fn find<'o>(objects: &'o [Value], kind: &str, name: &str) -> Option<&'o Value> {
    let mut found = objects
        .iter()
        .filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    let first = found.next();
    assert_eq!(found.next(), None, "{kind} {name} stands there twice");
    first
}

/// Objects that start Pods, with the template of each.
pub(crate) fn pods(objects: &[Value]) -> impl Iterator<Item = (&Value, &Value)> {
    objects
        .iter()
        .filter(|object| object["spec"]["template"].is_object())
        .map(|object| (object, &object["spec"]["template"]))
}

/// A list that may be absent.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
