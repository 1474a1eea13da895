//! By default the chart makes what the kustomizations make: both ways of installing have the same rights, probes,
//! ports and limits.

use std::process::Command;

use serde_json::Value;
use testkit::helm::Helm;

use crate::world::{self, documents, find, root, value_set};

/// What `kubectl kustomize` makes of one of the directories.
fn kustomized(folder: &str) -> Vec<Value> {
    let output = Command::new(Helm::ensure().unwrap().kubectl)
        .arg("kustomize")
        .arg(root().join("deploy").join(folder))
        .env_clear()
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    // The config of the installer has its digest in its name; the chart has it in an annotation.
    let hashed = regex::Regex::new("image-cri-shim-installer-[a-z0-9]{10}").unwrap();
    documents(&hashed.replace_all(&text, "image-cri-shim-installer"))
}

/// What both ways have to agree about: everything but labels of helm's own, and what is configured.
fn compared(object: &Value) -> Value {
    let mut object = object.clone();
    let labels = object["metadata"]["labels"].as_object_mut().unwrap();
    for label in [
        "app.kubernetes.io/instance",
        "app.kubernetes.io/version",
        "app.kubernetes.io/managed-by",
        "helm.sh/chart",
    ] {
        labels.remove(label);
    }
    if let Some(annotations) = object.pointer_mut("/spec/template/metadata/annotations") {
        annotations
            .as_object_mut()
            .unwrap()
            .remove("image-cri-shim/checksum-of-config");
        if *annotations == serde_json::json!({}) {
            let metadata = object.pointer_mut("/spec/template/metadata").unwrap();
            metadata.as_object_mut().unwrap().remove("annotations");
        }
    }
    if let Some(data) = object.get_mut("data") {
        data["image-cri-shim.yaml"] = Value::Null;
    }
    object
}

fn compare(folder: &str, chart: &[Value]) -> usize {
    let mut count = 0;
    for wanted in kustomized(folder) {
        let (kind, name) = (
            wanted["kind"].as_str().unwrap(),
            &wanted["metadata"]["name"],
        );
        let name = name.as_str().unwrap();
        // The release's own namespace is made by whoever installs.
        if kind == "Namespace" && name == world::NAMESPACE {
            continue;
        }
        let made = find(chart, kind, name).unwrap_or_else(|| panic!("no {kind} {name}"));
        assert_eq!(compared(made), compared(&wanted), "{kind} {name}");
        count += 1;
    }
    count
}

#[test]
fn by_default_the_chart_makes_what_the_kustomizations_make() {
    let chart = world::objects("defaults");
    let compared = compare("webhook", &chart) + compare("cache", &chart);
    assert_eq!(compared, chart.len(), "{chart:#?}");
}

#[test]
fn the_installer_too() {
    let chart = world::objects("node-installer");
    assert_eq!(compare("installer", &chart), chart.len(), "{chart:#?}");
}

/// The chart's switches make what the components of the kustomization make, where both have one.
#[test]
fn cert_manager_is_asked_for_the_same() {
    let text = std::fs::read_to_string(
        root().join("deploy/webhook/components/cert-manager/certificate.yaml"),
    )
    .unwrap();
    let chart = documents(&world::rendered(&value_set("cert-manager"), &[]));
    for wanted in documents(&text) {
        let kind = wanted["kind"].as_str().unwrap();
        let made = find(&chart, kind, "image-cri-shim-webhook").unwrap();
        assert_eq!(made["spec"], wanted["spec"]);
    }
    let registration = find(&chart, "MutatingWebhookConfiguration", "image-cri-shim").unwrap();
    assert_eq!(
        registration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"],
        "image-cri-shim/image-cri-shim-webhook"
    );
    let deployment = find(&chart, "Deployment", "image-cri-shim-webhook").unwrap();
    let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    assert_eq!(
        *arguments,
        serde_json::json!([
            "webhook",
            "--config-map",
            "--tls-cert=/etc/image-cri-shim/tls/tls.crt",
            "--tls-key=/etc/image-cri-shim/tls/tls.key",
            "--log-format=json",
        ])
    );
}
