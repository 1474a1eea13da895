//! The manifests under `deploy/webhook` fit each other, and what the binary expects.

use std::path::{Path, PathBuf};

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde_json::{Value, json};
use testkit::kubernetes::check;
use testkit::tree;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn documents(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Every YAML file below `deploy/webhook`.
fn files() -> Vec<PathBuf> {
    let mut found = tree::files(&root().join("deploy/webhook")).unwrap();
    found.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    found
}

/// The object of this kind in the base.
fn object(kind: &str) -> Value {
    let found: Vec<_> = files()
        .iter()
        .filter(|file| !file.to_string_lossy().contains("components"))
        .flat_map(|file| documents(file))
        .filter(|document| document["kind"] == kind)
        .collect();
    assert_eq!(found.len(), 1, "{kind}");
    found[0].clone()
}

fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap();
    list.iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn every_file_is_listed_and_every_object_has_a_kind() {
    for file in files() {
        let directory = file.parent().unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        if name == "kustomization.yaml" {
            continue;
        }
        let kustomization = &documents(&directory.join("kustomization.yaml"))[0];
        let listed = texts(&kustomization["resources"]).contains(&name)
            || kustomization["configMapGenerator"][0]["files"] == json!([name]);
        assert!(listed, "{name}");
        if name != "image-cri-shim.yaml" {
            for document in documents(&file) {
                assert!(document["kind"].is_string(), "{name}");
                assert!(document["apiVersion"].is_string(), "{name}");
            }
        }
    }
}

/// Whether `object` is of a kind that Kubernetes itself has.
fn is_kubernetes_own(object: &Value) -> bool {
    [
        check::<ClusterRole>,
        check::<ClusterRoleBinding>,
        check::<Deployment>,
        check::<MutatingWebhookConfiguration>,
        check::<Namespace>,
        check::<NetworkPolicy>,
        check::<PodDisruptionBudget>,
        check::<Role>,
        check::<RoleBinding>,
        check::<Service>,
        check::<ServiceAccount>,
    ]
    .iter()
    .any(|check| check(object))
}

#[test]
fn every_field_is_one_that_kubernetes_knows() {
    for file in files() {
        let name = file.file_name().unwrap().to_str().unwrap();
        if matches!(name, "kustomization.yaml" | "image-cri-shim.yaml") {
            continue;
        }
        for document in documents(&file) {
            let foreign = document["apiVersion"] == "cert-manager.io/v1";
            assert!(foreign || is_kubernetes_own(&document), "{name}");
        }
    }
}

/// The components below `components`, by name.
fn components() -> Vec<(String, Value)> {
    let directories = std::fs::read_dir(root().join("deploy/webhook/components")).unwrap();
    let directories = directories.map(|entry| entry.unwrap().path());
    directories
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let mut documents = documents(&path.join("kustomization.yaml"));
            (name, documents.remove(0))
        })
        .collect()
}

/// The object of the base with what `component` patches into it.
fn patched(component: &Value, object: &Value) -> Value {
    let mut object = object.clone();
    for patch in component["patches"].as_array().into_iter().flatten() {
        let target = &patch["target"];
        if target["kind"] != object["kind"] {
            continue;
        }
        assert_eq!(target["name"], object["metadata"]["name"]);
        let operations: Value = serde_saphyr::from_str(patch["patch"].as_str().unwrap()).unwrap();
        let operations: json_patch::Patch = serde_json::from_value(operations).unwrap();
        json_patch::patch(&mut object, &operations).unwrap();
    }
    object
}

#[test]
fn components_fit_the_base_and_each_other() {
    let base = object("Deployment");
    let args = |deployment: &Value| -> Vec<String> {
        let args = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
        texts(args).into_iter().map(ToOwned::to_owned).collect()
    };
    let mut all = base.clone();
    for (name, component) in components() {
        assert_eq!(component["kind"], "Component", "{name}");
        for object in [&base, &object("MutatingWebhookConfiguration")] {
            assert!(is_kubernetes_own(&patched(&component, object)), "{name}");
        }
        all = patched(&component, &all);
        let listed = std::fs::read_to_string(root().join("deploy/webhook/kustomization.yaml"));
        assert!(listed.unwrap().contains(&format!("components/{name}\n")));
    }
    assert!(is_kubernetes_own(&all));
    assert_eq!(
        args(&base),
        [
            "webhook",
            "--file=/etc/image-cri-shim/config/image-cri-shim.yaml",
            "--self-signed",
            "--log-format=json",
        ]
    );
    assert_eq!(
        args(&all),
        [
            "webhook",
            "--config-map",
            "--tls-cert=/etc/image-cri-shim/tls/tls.crt",
            "--log-format=json",
            "--tls-key=/etc/image-cri-shim/tls/tls.key",
            "--client-ca=/etc/image-cri-shim/client-ca/ca.crt",
            "--client-name=kube-apiserver",
        ]
    );
    // A key is readable by the group that the Pod has, and by nobody else.
    let volumes = all["spec"]["template"]["spec"]["volumes"].as_array();
    let secret = volumes.unwrap().iter().find_map(|v| v.get("secret"));
    assert_eq!(secret.unwrap()["defaultMode"], 0o440);
}

/// API servers before 1.27 don't know `matchConditions`, and kubectl refuses an object with a field that its server
/// doesn't know.
#[test]
fn older_api_servers_get_a_registration_that_they_know() {
    let base = object("MutatingWebhookConfiguration");
    let components = components();
    let older = components
        .iter()
        .find(|(name, _)| name == "kubernetes-before-1.28");
    let older = patched(&older.unwrap().1, &base);
    let mut expected = base.clone();
    let webhook = expected["webhooks"][0].as_object_mut().unwrap();
    assert!(webhook.remove("matchConditions").is_some());
    assert_eq!(older, expected);
}

#[test]
fn components_give_rights_to_named_objects_only() {
    let mut checked = 0;
    for file in files() {
        if !file.to_string_lossy().contains("components") {
            continue;
        }
        for role in documents(&file) {
            if role["kind"] == "ClusterRole" || role["kind"] == "ClusterRoleBinding" {
                panic!("{}: for all namespaces", file.display());
            }
            for rule in role["rules"].as_array().into_iter().flatten() {
                assert!(!texts(&rule["resourceNames"]).is_empty());
                assert_eq!(texts(&rule["verbs"]), ["get", "list", "watch"]);
                checked += 1;
            }
            if role["kind"] == "RoleBinding" {
                let account = object("ServiceAccount")["metadata"].clone();
                assert_eq!(role["subjects"][0]["name"], account["name"]);
                assert_eq!(role["subjects"][0]["namespace"], account["namespace"]);
            }
        }
    }
    assert_eq!(checked, 2);
}

#[test]
fn the_example_config_is_valid() {
    let text = std::fs::read_to_string(root().join("deploy/webhook/image-cri-shim.yaml")).unwrap();
    let (settings, findings) = policy::config::Settings::read(&text, &|_| None);
    assert!(findings.is_empty(), "{findings:?}");
    assert_eq!(settings.rules.redirects.len(), 1);
}

#[test]
fn the_registration_never_stands_in_the_way() {
    let registration = object("MutatingWebhookConfiguration");
    let [webhook] = &registration["webhooks"].as_array().unwrap()[..] else {
        panic!("one webhook");
    };
    assert_eq!(webhook["failurePolicy"], "Ignore");
    assert_eq!(webhook["sideEffects"], "None");
    assert_eq!(webhook["reinvocationPolicy"], "IfNeeded");
    assert_eq!(webhook["admissionReviewVersions"], json!(["v1"]));
    assert!(webhook["timeoutSeconds"].as_u64().unwrap() <= 5);
    // An API server refuses names with fewer than three parts.
    assert!(webhook["name"].as_str().unwrap().split('.').count() >= 3);
    assert_eq!(webhook["clientConfig"]["service"]["path"], "/mutate");
    let rules = webhook["rules"].as_array().unwrap();
    let what: Vec<_> = rules
        .iter()
        .map(|rule| (texts(&rule["operations"]), texts(&rule["resources"])))
        .collect();
    assert_eq!(
        what,
        [
            (vec!["CREATE", "UPDATE"], vec!["pods"]),
            (vec!["UPDATE"], vec!["pods/ephemeralcontainers"]),
        ]
    );
    let namespaces = &webhook["namespaceSelector"]["matchExpressions"];
    assert_eq!(namespaces[0]["operator"], "NotIn");
    assert_eq!(
        texts(&namespaces[0]["values"]),
        ["kube-system", "image-cri-shim"]
    );
    // What opts out by the selectors is what opts out by the code.
    for selector in [
        &namespaces[1],
        &webhook["objectSelector"]["matchExpressions"][0],
    ] {
        assert_eq!(selector["key"], policy::pod::OPT_OUT);
        assert_eq!(selector["operator"], "NotIn");
        for value in texts(&selector["values"]) {
            assert!(policy::pod::scope::is_opt_out(value), "{value}");
        }
        for value in ["false", "False", "no", "off", "0"] {
            assert!(texts(&selector["values"]).contains(&value), "{value}");
        }
    }
    for kuik in [
        &namespaces[2],
        &webhook["objectSelector"]["matchExpressions"][1],
    ] {
        let expected = json!({
            "key": policy::pod::KUIK_POLICY, "operator": "NotIn", "values": ["ignore"]});
        assert_eq!(*kuik, expected);
    }
    let conditions = webhook["matchConditions"].as_array().unwrap();
    let changed = conditions[1]["expression"].as_str().unwrap();
    // A creation and the ephemeral containers' subresource are judged before any old object is looked at.
    assert!(changed.starts_with("request.operation != 'UPDATE' || (has(request.subResource)"));
    for list in ["containers", "initContainers"] {
        assert!(
            changed.contains(&format!("oldObject.spec.{list}.map(")),
            "{changed}"
        );
    }
    assert!(
        webhook["matchConditions"][0]["expression"]
            .as_str()
            .unwrap()
            .contains("kubernetes.io/config.mirror")
    );
}

#[test]
fn service_deployment_and_policies_select_the_same_pods() {
    let deployment = object("Deployment");
    let template = &deployment["spec"]["template"];
    let labels = json!({"app.kubernetes.io/name": "image-cri-shim-webhook"});
    assert_eq!(object("Service")["spec"]["selector"], labels);
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], labels);
    let budget = object("PodDisruptionBudget");
    assert_eq!(budget["spec"]["selector"]["matchLabels"], labels);
    let network = object("NetworkPolicy");
    assert_eq!(network["spec"]["podSelector"]["matchLabels"], labels);
    assert_eq!(
        template["metadata"]["labels"]["app.kubernetes.io/name"],
        labels["app.kubernetes.io/name"]
    );
    assert_eq!(
        template["metadata"]["labels"][policy::pod::OPT_OUT],
        "false"
    );
    assert_eq!(deployment["spec"]["replicas"], 2);
    // One may go while the other serves.
    assert_eq!(budget["spec"]["minAvailable"], 1);
    let service = object("Service");
    let port = &service["spec"]["ports"][0];
    let registration = object("MutatingWebhookConfiguration");
    let called = &registration["webhooks"][0]["clientConfig"]["service"];
    assert_eq!(called["name"], service["metadata"]["name"]);
    assert_eq!(called["namespace"], service["metadata"]["namespace"]);
    assert_eq!(called["port"], port["port"]);
    let container = &template["spec"]["containers"][0];
    let ports = container["ports"].as_array().unwrap();
    let names: Vec<_> = ports.iter().map(|port| &port["name"]).collect();
    assert_eq!(names, [&port["targetPort"], &json!("health")]);
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
}

#[test]
fn the_network_policy_knows_no_port_of_api_servers() {
    let network = object("NetworkPolicy");
    let egress = network["spec"]["egress"].as_array().unwrap();
    let is_open = |port: u64| {
        let ports = egress.iter().filter(|rule| rule.get("to").is_none());
        let mut ports = ports.flat_map(|rule| rule["ports"].as_array().unwrap());
        ports.any(|p| p["protocol"] == "TCP" && (p.get("port").is_none() || p["port"] == port))
    };
    for port in [443, 6443, 8443, 16443, 5000] {
        assert!(is_open(port), "{port}");
    }
}

#[test]
fn the_pods_are_allowed_under_the_restricted_profile() {
    let namespace = object("Namespace");
    assert_eq!(
        namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"],
        "restricted"
    );
    let deployment = object("Deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let [container] = &pod["containers"].as_array().unwrap()[..] else {
        panic!("one container");
    };
    let context = &container["securityContext"];
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
    for volume in pod["volumes"].as_array().unwrap() {
        assert!(volume["configMap"].is_object(), "{volume}");
    }
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(
        grace
            > webhook::Limits::default()
                .connections
                .drain_timeout
                .as_secs()
                + 5
    );
}

#[test]
fn the_rights_are_for_named_objects() {
    let secrets = object("Role");
    assert_eq!(
        secrets["rules"],
        json!([
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["image-cri-shim-webhook-tls"], "verbs": ["get", "update"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
        ])
    );
    let registrations = object("ClusterRole");
    let name = &object("MutatingWebhookConfiguration")["metadata"]["name"];
    assert_eq!(
        registrations["rules"],
        json!([{
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations"],
            "resourceNames": [name], "verbs": ["get", "list", "watch", "patch"],
        }])
    );
    for kind in ["RoleBinding", "ClusterRoleBinding"] {
        let binding = object(kind);
        let account = object("ServiceAccount");
        assert_eq!(binding["subjects"][0]["name"], account["metadata"]["name"]);
    }
}

#[test]
fn the_image_is_one_static_binary_without_root() {
    let text = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
    let last = text.rsplit_once("FROM ").unwrap().1;
    assert!(last.starts_with("scratch\n"));
    assert!(last.contains("USER 65532:65532\n"));
    let deployment = object("Deployment");
    let user = &deployment["spec"]["template"]["spec"]["securityContext"]["runAsUser"];
    assert_eq!(*user, 65532);
}
