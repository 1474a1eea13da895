//! The objects of one rendering fit each other, and what the binary does.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use crate::world::{self, NAMESPACE, find, list, pods, rendered, value_set, value_sets};

/// Everything that the values name as being there already.
fn brought(values: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut open = vec![(String::new(), values)];
    while let Some((field, value)) = open.pop() {
        match value {
            Value::Object(fields) => {
                open.extend(fields.iter().map(|(name, value)| (name.clone(), value)));
            }
            Value::Array(entries) => {
                open.extend(entries.iter().map(|entry| (field.clone(), entry)));
            }
            Value::String(name)
                if field.starts_with("existing")
                    || matches!(field.as_str(), "secretName" | "name") =>
            {
                names.insert(name.clone());
            }
            _ => {}
        }
    }
    names
}

/// Every set of values with its objects.
fn all() -> Vec<(String, Value, Vec<Value>)> {
    let sets = value_sets().into_iter().map(|(name, path)| {
        let text = std::fs::read_to_string(path).unwrap();
        let values: Value = serde_saphyr::from_str(&text).unwrap();
        let objects = world::objects(&name);
        (name, values, objects)
    });
    sets.collect()
}

#[test]
fn what_is_referred_to_is_there() {
    for (set, values, objects) in all() {
        let brought = brought(&values);
        let is_there = |kind: &str, name: &Value| {
            let name = name.as_str().unwrap();
            let is_there = find(&objects, kind, name).is_some() || brought.contains(name);
            assert!(is_there, "{set}: {kind} {name}");
        };
        for (object, template) in pods(&objects) {
            let spec = &template["spec"];
            is_there("ServiceAccount", &spec["serviceAccountName"]);
            let mut volumes = BTreeSet::new();
            for volume in list(&spec["volumes"]) {
                assert!(volumes.insert(volume["name"].as_str().unwrap()), "{volume}");
                if volume["configMap"].is_object() {
                    is_there("ConfigMap", &volume["configMap"]["name"]);
                }
                // What cert-manager makes.
                let secret = &volume["secret"]["secretName"];
                if secret.is_string() && *secret != "image-cri-shim-webhook-cert" {
                    is_there("Secret", secret);
                }
            }
            let mut mounted = BTreeSet::new();
            for container in list(&spec["containers"]) {
                for from in list(&container["envFrom"]) {
                    is_there("Secret", &from["secretRef"]["name"]);
                }
                let mounts = list(&container["volumeMounts"]);
                mounted.extend(mounts.iter().map(|mount| mount["name"].as_str().unwrap()));
            }
            assert_eq!(volumes, mounted, "{set}: {object:#}");
        }
        for object in &objects {
            let kind = object["kind"].as_str().unwrap();
            if kind.ends_with("Binding") {
                let role = &object["roleRef"];
                is_there(role["kind"].as_str().unwrap(), &role["name"]);
                for subject in list(&object["subjects"]) {
                    is_there("ServiceAccount", &subject["name"]);
                }
            }
        }
    }
}

#[test]
fn namespaces_are_the_release_s_or_made_by_the_chart_or_named_by_the_values() {
    let unbound = ["ClusterRole", "ClusterRoleBinding", "Namespace"];
    for (set, values, objects) in all() {
        let mut known = BTreeSet::from([NAMESPACE.to_owned(), "kube-system".to_owned()]);
        for object in objects
            .iter()
            .filter(|object| object["kind"] == "Namespace")
        {
            known.insert(object["metadata"]["name"].as_str().unwrap().to_owned());
        }
        for part in ["cache", "nodeInstaller"] {
            let named = &values[part]["namespace"]["name"];
            known.extend(named.as_str().map(str::to_owned));
        }
        for object in &objects {
            let kind = object["kind"].as_str().unwrap();
            let namespace = object["metadata"]["namespace"].as_str();
            if unbound.contains(&kind) || kind.ends_with("WebhookConfiguration") {
                assert_eq!(namespace, None, "{set}: {object:#}");
            } else {
                assert!(known.contains(namespace.unwrap()), "{set}: {object:#}");
            }
        }
    }
}

/// No part of ours waits for another: neither for the webhook nor for the cache.
#[test]
fn our_own_image_comes_past_the_webhook() {
    for (set, _, objects) in all() {
        for (object, template) in pods(&objects) {
            let labels = &template["metadata"]["labels"];
            let mark = labels[policy::pod::OPT_OUT].as_str().unwrap();
            assert!(policy::pod::scope::is_opt_out(mark), "{set}: {object:#}");
            let selector = object["spec"]["selector"]["matchLabels"].as_object();
            for (label, value) in selector.unwrap() {
                assert_eq!(labels[label], *value, "{set}");
            }
            for object in &objects {
                let selector = match object["kind"].as_str().unwrap() {
                    "Service" => &object["spec"]["selector"],
                    "NetworkPolicy" => &object["spec"]["podSelector"]["matchLabels"],
                    "PodDisruptionBudget" => &object["spec"]["selector"]["matchLabels"],
                    _ => continue,
                };
                assert!(
                    pods(&objects).any(|(_, template)| {
                        let labels = &template["metadata"]["labels"];
                        let mut wanted = selector.as_object().unwrap().iter();
                        wanted.all(|(label, value)| labels[label] == *value)
                    }),
                    "{set}: {object:#} selects nothing"
                );
            }
        }
        for namespace in objects
            .iter()
            .filter(|object| object["kind"] == "Namespace")
        {
            let labels = &namespace["metadata"]["labels"];
            assert_eq!(labels[policy::pod::OPT_OUT], "false", "{set}");
            assert_eq!(
                labels["pod-security.kubernetes.io/enforce"], "privileged",
                "{set}"
            );
        }
    }
}

/// As GKE asks for it: a Pod of such a priority starts only where a quota of its namespace is for that priority.
#[test]
fn pods_of_a_priority_of_kubernetes_own_may_start() {
    let mut seen = 0;
    for (set, _, objects) in all() {
        for (object, template) in pods(&objects) {
            let priority = &template["spec"]["priorityClassName"];
            let is_limited = priority
                .as_str()
                .is_some_and(|name| name.starts_with("system-"));
            let quotas: Vec<_> = objects
                .iter()
                .filter(|quota| quota["kind"] == "ResourceQuota")
                .filter(|quota| {
                    quota["metadata"]["namespace"] == object["metadata"]["namespace"]
                        && quota["metadata"]["name"] == object["metadata"]["name"]
                })
                .collect();
            assert_eq!(quotas.len(), usize::from(is_limited), "{set}: {object:#}");
            for quota in quotas {
                let scope = &quota["spec"]["scopeSelector"]["matchExpressions"];
                assert_eq!(
                    *scope,
                    json!([{"scopeName": "PriorityClass", "operator": "In", "values": [priority]}]),
                    "{set}"
                );
                seen += 1;
            }
        }
    }
    assert!(seen >= 3, "{seen}");
}

/// A budget that no eviction can keep would stop every drain.
#[test]
fn one_replica_has_no_disruption_budget() {
    let budget = |more: &[&str]| {
        let objects = world::documents(&rendered(&value_set("defaults"), more));
        find(&objects, "PodDisruptionBudget", "image-cri-shim-webhook").is_some()
    };
    assert!(budget(&[]));
    assert!(!budget(&["--set", "webhook.replicas=1"]));
}

/// Each container's arguments are ones that the binary takes: `--help` comes last, and what stands before it is
/// read first.
#[test]
fn the_binary_takes_the_arguments() {
    for (set, _, objects) in all() {
        for (_, template) in pods(&objects) {
            let [container] = list(&template["spec"]["containers"]) else {
                panic!("{set}: one container");
            };
            let arguments = list(&container["args"]).iter().map(|a| a.as_str().unwrap());
            let output = Command::new(env!("CARGO_BIN_EXE_image-cri-shim"))
                .args(arguments)
                .arg("--help")
                .output()
                .unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{set}: {errors}");
        }
    }
}

#[test]
fn the_image_is_what_the_values_say() {
    let image = |name: &str| {
        let objects = world::objects(name);
        let images: BTreeSet<String> = pods(&objects)
            .map(|(_, template)| &template["spec"]["containers"][0]["image"])
            .map(|image| image.as_str().unwrap().to_owned())
            .collect();
        let [image] = &images.into_iter().collect::<Vec<_>>()[..] else {
            panic!("{name}: one image");
        };
        image.clone()
    };
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        image("defaults"),
        format!("registry.example.com/image-cri-shim:{version}")
    );
    assert_eq!(
        image("everything"),
        format!("harbor.corp.example:8443/infra/image-cri-shim:1.2.3@{digest}")
    );
    // The installer's alone, past a tag or a digest of the others.
    assert_eq!(
        image("node-installer-k3s"),
        "public.example.org/image-cri-shim:1.2.3"
    );
    assert_eq!(
        image("high-availability"),
        format!("registry.example.com/image-cri-shim@{digest}")
    );
    for (set, _, objects) in all() {
        for (_, template) in pods(&objects) {
            let image = template["spec"]["containers"][0]["image"].as_str().unwrap();
            assert!(policy::Reference::parse(image).is_ok(), "{set}: {image}");
            let secrets = &template["spec"]["imagePullSecrets"];
            if set == "everything" {
                assert_eq!(*secrets, json!([{"name": "harbor-pull"}]));
            } else {
                assert!(secrets.is_null(), "{set}");
            }
        }
    }
}

#[test]
fn ports_probes_and_store_of_the_cache_follow_its_config() {
    let cache = |name: &str| {
        let objects = world::objects(name);
        let object = find(&objects, "DaemonSet", "image-cri-shim-cache").unwrap();
        object["spec"]["template"]["spec"].clone()
    };
    let open = cache("cache-only");
    let container = &open["containers"][0];
    assert_eq!(
        container["ports"],
        json!([{"name": "images", "containerPort": 5443, "hostPort": 5443}])
    );
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(
            container[probe]["httpGet"],
            json!({"host": "::1", "path": "/v2/", "port": "images", "scheme": "HTTPS"})
        );
    }
    assert_eq!(container["volumeMounts"][1]["mountPath"], "/data/images");
    assert_eq!(open["volumes"][1]["hostPath"]["path"], "/data/images");
    let shared = cache("shared-cache");
    assert_eq!(
        shared["containers"][0]["ports"],
        json!([
            {"name": "images", "containerPort": 5000, "hostPort": 5000, "hostIP": "127.0.0.1"},
            {"name": "metrics", "containerPort": 7442, "hostPort": 7442},
        ])
    );
}

#[test]
fn each_switch_takes_away_what_it_names() {
    let names = |set: &str| -> Vec<String> {
        let objects = world::objects(set);
        let all = objects
            .iter()
            .map(|object| object["metadata"]["name"].as_str().unwrap());
        all.map(str::to_owned).collect()
    };
    assert_eq!(names("nothing"), [""; 0]);
    let only = names("cache-only");
    assert!(
        only.iter().all(|name| name == "image-cri-shim-cache"),
        "{only:?}"
    );
    let only = names("node-installer");
    assert!(
        only.iter().all(|name| name == "image-cri-shim-installer"),
        "{only:?}"
    );
    let only = names("node-installer-k3s");
    assert_eq!(only.len(), 4, "{only:?}");
    for set in ["defaults", "high-availability"] {
        let names = names(set);
        assert!(names.iter().all(|name| !name.contains("installer")));
    }
    let only = names("webhook-only");
    assert!(only.iter().all(|name| !name.contains("cache")), "{only:?}");
    let objects = world::objects("webhook-only");
    for kind in ["PodDisruptionBudget", "NetworkPolicy"] {
        assert_eq!(find(&objects, kind, "image-cri-shim-webhook"), None);
    }
}

#[test]
fn a_certificate_from_elsewhere_needs_no_rights() {
    for (set, secret) in [
        ("existing-certificate", "webhook-certificate"),
        ("cert-manager", "image-cri-shim-webhook-cert"),
    ] {
        let objects = world::objects(set);
        assert_eq!(
            find(&objects, "ClusterRole", "image-cri-shim-webhook"),
            None
        );
        assert_eq!(find(&objects, "Role", "image-cri-shim-webhook"), None);
        let deployment = find(&objects, "Deployment", "image-cri-shim-webhook").unwrap();
        let volumes = list(&deployment["spec"]["template"]["spec"]["volumes"]);
        let tls = volumes
            .iter()
            .find(|volume| volume["name"] == "tls")
            .unwrap();
        assert_eq!(
            tls["secret"],
            json!({"secretName": secret, "defaultMode": 0o440})
        );
    }
    let objects = world::objects("existing-certificate");
    let registration = find(&objects, "MutatingWebhookConfiguration", "image-cri-shim").unwrap();
    let bundle = &registration["webhooks"][0]["clientConfig"]["caBundle"];
    let pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    use base64::Engine as _;
    assert_eq!(
        *bundle,
        base64::engine::general_purpose::STANDARD.encode(pem)
    );
}

/// Old API servers don't know matchConditions, and a server-side apply of an unknown field fails.
#[test]
fn an_old_cluster_gets_no_field_that_it_does_not_know() {
    for (version, has) in [("1.27.4", false), ("1.28.0", true), ("1.30.1-gke.3", true)] {
        let text = rendered(&value_set("webhook-only"), &["--kube-version", version]);
        assert_eq!(text.contains("matchConditions:"), has, "{version}");
    }
}

/// What makes the installer what it is, in every set of values.
#[test]
fn the_installer_can_do_its_work_and_its_end_undoes_nothing() {
    let mut seen = 0;
    for (set, values, objects) in all() {
        let Some(object) = find(&objects, "DaemonSet", "image-cri-shim-installer") else {
            continue;
        };
        seen += 1;
        let spec = &object["spec"]["template"]["spec"];
        let container = &spec["containers"][0];
        assert_eq!(spec["hostPID"], true);
        assert_eq!(spec["hostNetwork"], true);
        assert_eq!(spec["automountServiceAccountToken"], true);
        assert_eq!(container["securityContext"]["privileged"], true);
        assert_eq!(container["securityContext"]["runAsUser"], 0);
        for absent in ["lifecycle", "livenessProbe"] {
            assert!(container[absent].is_null(), "{set}: {absent}");
        }
        assert_eq!(
            object["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"],
            "100%"
        );
        if values["nodeInstaller"]["tolerations"].is_null() {
            assert_eq!(spec["tolerations"], json!([{"operator": "Exists"}]));
        }
        let arguments: Vec<&str> = list(&container["args"])
            .iter()
            .map(|argument| argument.as_str().unwrap())
            .collect();
        let has = |argument: &str| arguments.contains(&argument);
        let is_k3s = set == "node-installer-k3s";
        assert_eq!(has("--mode=uninstall"), set == "node-uninstall");
        assert_eq!(has("--restart-kubelet"), set != "node-uninstall");
        assert_eq!(has("--yes-restart-k3s"), is_k3s);
        assert_eq!(has("--both"), set == "everything");
        assert_eq!(has("--prefix=/opt"), is_k3s);
        assert_eq!(has("--runtime=/run/k3s/containerd/containerd.sock"), is_k3s);
        // A Lease by its name, and nothing else.
        let role = find(&objects, "Role", "image-cri-shim-installer").unwrap();
        assert_eq!(
            role["rules"],
            json!([
                {
                    "apiGroups": ["coordination.k8s.io"],
                    "resources": ["leases"],
                    "resourceNames": ["image-cri-shim-node-installer"],
                    "verbs": ["get", "update"],
                },
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
            ])
        );
        assert_eq!(
            find(&objects, "ClusterRole", "image-cri-shim-installer"),
            None
        );
    }
    assert_eq!(seen, 5);
}
