//! Every object is one that Kubernetes knows, with every field.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde_json::Value;
use testkit::kubernetes::check;

use crate::world::{self, chart, helm, root, value_sets};

/// What cert-manager's types have of what the chart says. They are not in `k8s-openapi`.
fn is_cert_manager_s(object: &Value) -> bool {
    let known: &[&str] = match object["kind"].as_str().unwrap() {
        "Issuer" => &["selfSigned"],
        "Certificate" => &["secretName", "dnsNames", "issuerRef", "privateKey"],
        _ => return false,
    };
    let spec = object["spec"].as_object().unwrap();
    assert!(
        spec.keys().all(|field| known.contains(&field.as_str())),
        "{spec:?}"
    );
    object["apiVersion"] == "cert-manager.io/v1"
}

#[test]
fn every_object_of_every_set_is_one_that_kubernetes_knows() {
    let sets = value_sets();
    assert!(sets.len() >= 10, "{sets:?}");
    for (name, _) in sets {
        for object in world::objects(&name) {
            let is_known = [
                check::<ClusterRole>,
                check::<ClusterRoleBinding>,
                check::<ConfigMap>,
                check::<DaemonSet>,
                check::<Deployment>,
                check::<MutatingWebhookConfiguration>,
                check::<Namespace>,
                check::<NetworkPolicy>,
                check::<PodDisruptionBudget>,
                check::<ResourceQuota>,
                check::<Role>,
                check::<RoleBinding>,
                check::<Secret>,
                check::<Service>,
                check::<ServiceAccount>,
                is_cert_manager_s,
            ]
            .iter()
            .any(|check| check(&object));
            assert!(is_known, "{name}: {object:#}");
        }
    }
}

#[test]
fn helm_lint_finds_nothing() {
    for (name, values) in value_sets() {
        let chart = chart();
        let output = helm(&[
            "lint",
            "--strict",
            "--values",
            values.to_str().unwrap(),
            chart.to_str().unwrap(),
        ]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{name}: {text}{errors}");
        assert!(!text.contains("[WARNING]"), "{name}: {text}");
    }
}

/// The chart's version is the program's, and so is the image of each kustomization.
#[test]
fn the_versions_are_the_program_s() {
    let text = std::fs::read_to_string(chart().join("Chart.yaml")).unwrap();
    let chart: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    for part in ["webhook", "cache", "installer"] {
        let file = root().join("deploy").join(part).join("kustomization.yaml");
        let kustomization: Value =
            serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let tag = &kustomization["images"][0]["newTag"];
        assert_eq!(tag, env!("CARGO_PKG_VERSION"), "deploy/{part}");
    }
}
