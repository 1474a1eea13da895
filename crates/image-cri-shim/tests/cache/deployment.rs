//! The manifests under `deploy/cache` fit each other, and what the binary does.

use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota, ServiceAccount};
use policy::config::NodeCache;
use serde_json::{Value, json};
use testkit::kubernetes::check;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/cache")
}

fn documents(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The files that the kustomization names as resources.
fn resources() -> Vec<String> {
    let kustomization = documents("kustomization.yaml").remove(0);
    let listed = kustomization["resources"].as_array().unwrap();
    listed
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

fn daemon_set() -> Value {
    documents("daemonset.yaml").remove(0)
}

#[test]
fn every_file_is_listed_and_every_field_is_one_that_kubernetes_knows() {
    let kustomization = documents("kustomization.yaml").remove(0);
    let config = &kustomization["configMapGenerator"][0]["files"];
    assert_eq!(*config, json!(["image-cri-shim.yaml"]));
    let listed = resources();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_known = matches!(
            name.as_str(),
            "README.md" | "kustomization.yaml" | "image-cri-shim.yaml"
        );
        assert!(is_known || listed.contains(&name), "{name}");
    }
    let namespace = documents("namespace.yaml").remove(0)["metadata"]["name"].clone();
    for name in listed {
        for object in documents(&name) {
            let is_own = [
                check::<DaemonSet>,
                check::<Namespace>,
                check::<ResourceQuota>,
                check::<ServiceAccount>,
            ]
            .iter()
            .any(|check| check(&object));
            assert!(is_own, "{name}");
            if object["kind"] != "Namespace" {
                assert_eq!(object["metadata"]["namespace"], namespace, "{name}");
            }
        }
    }
    assert_eq!(
        kustomization["configMapGenerator"][0]["namespace"],
        namespace
    );
}

#[test]
fn the_config_is_accepted_by_the_binary() {
    let output = Command::new(env!("CARGO_BIN_EXE_image-cri-shim"))
        .args(["cache", "--dry-run", "--file"])
        .arg(folder().join("image-cri-shim.yaml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{errors}");
    assert_eq!(said, "config: ok\n");
}

#[test]
fn it_listens_where_the_pod_says_and_on_loopback_only() {
    let daemon_set = daemon_set();
    let pod = &daemon_set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let text = std::fs::read_to_string(folder().join("image-cri-shim.yaml")).unwrap();
    let (settings, findings) = policy::config::Settings::read(&text, &|_| None);
    assert!(findings.is_empty(), "{findings:?}");
    let cache = settings.node_cache;
    // With the node's own network, what is loopback to the cache is the node's.
    assert_eq!(pod["hostNetwork"], true);
    assert_eq!(cache.listen, NodeCache::default().listen);
    assert_eq!(cache.refusal(), None);
    let images = cache.listen[0].address;
    let metrics = cache.metrics_address.unwrap();
    for (port, address) in container["ports"]
        .as_array()
        .unwrap()
        .iter()
        .zip([images, metrics])
    {
        assert_eq!(port["hostIP"], address.ip().to_string());
        assert_eq!(port["hostPort"], address.port());
        // An API server refuses others on the node's network.
        assert_eq!(port["containerPort"], port["hostPort"]);
    }
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let asked = &container[probe]["httpGet"];
        assert_eq!(asked["host"], images.ip().to_string(), "{probe}");
        assert_eq!(asked["port"], container["ports"][0]["name"], "{probe}");
        assert_eq!(asked["path"], "/v2/", "{probe}");
    }
    // Above what the role gives to answers under way.
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > 25);
}

#[test]
fn it_may_write_to_its_store_and_never_waits_for_itself() {
    let daemon_set = daemon_set();
    let template = &daemon_set["spec"]["template"];
    let labels = &template["metadata"]["labels"];
    let selector = &daemon_set["spec"]["selector"]["matchLabels"];
    assert_eq!(
        labels["app.kubernetes.io/name"],
        selector["app.kubernetes.io/name"]
    );
    let namespace = documents("namespace.yaml").remove(0);
    for marks in [labels, &namespace["metadata"]["labels"]] {
        let mark = marks[policy::pod::OPT_OUT].as_str().unwrap();
        assert!(policy::pod::scope::is_opt_out(mark));
    }
    let pod = &template["spec"];
    let container = &pod["containers"][0];
    let context = &container["securityContext"];
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
    // The mounts have what is written to: the store, and the socket of commands.
    let mount = |path: &Path| {
        let mut mounts = container["volumeMounts"].as_array().unwrap().iter();
        let found = mounts.find(|mount| mount["mountPath"] == path.to_str().unwrap());
        let name = &found.unwrap()["name"];
        let mut volumes = pod["volumes"].as_array().unwrap().iter();
        let found = volumes.find(|volume| volume["name"] == *name);
        found.unwrap().clone()
    };
    let store = NodeCache::default().dir;
    assert_eq!(mount(&store)["hostPath"]["path"], store.to_str().unwrap());
    let socket = Path::new(cache::control::SOCKET);
    assert!(mount(socket.parent().unwrap())["emptyDir"].is_object());
    let file = container["args"][1].as_str().unwrap();
    let file = Path::new(file.strip_prefix("--file=").unwrap());
    let config = documents("kustomization.yaml").remove(0)["configMapGenerator"][0].clone();
    assert_eq!(
        mount(file.parent().unwrap())["configMap"]["name"],
        config["name"]
    );
    assert_eq!(
        config["files"][0],
        file.file_name().unwrap().to_str().unwrap()
    );
}
