//! The config reaches each part as it was written, with its credentials.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use policy::config::Settings;
use serde_json::{Value, json};

use crate::world::{self, find, list, value_set, value_sets};

/// Every set's config is what the binary takes, and says what the values say.
#[test]
fn the_config_is_the_values_and_nothing_is_wrong_with_it() {
    for (set, path) in value_sets() {
        let values: Value =
            serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let maps = world::objects(&set);
        let maps: Vec<&Value> = maps.iter().filter(|o| o["kind"] == "ConfigMap").collect();
        for map in &maps {
            let text = map["data"]["image-cri-shim.yaml"].as_str().unwrap();
            let (_, mut findings) = Settings::read(text, &|_| Some("a-value".to_owned()));
            // The chart's own config routes nothing, which is said.
            if values["config"].is_null() {
                let said = findings.remove(0).message;
                assert!(said.starts_with("nothing is routed"), "{set}: {said}");
            }
            assert!(findings.is_empty(), "{set}: {findings:?}\n{text}");
            let written: Value = serde_saphyr::from_str(text).unwrap();
            let Some(wanted) = values["config"].as_object() else {
                continue;
            };
            for (field, value) in wanted {
                assert_eq!(written[field], *value, "{set}: {field}");
            }
        }
        // One for each part that is enabled and wants one.
        let expected = match set.as_str() {
            "nothing" | "cert-manager" | "node-installer-k3s" => 0,
            "defaults" | "node-uninstall" | "registries-with-secrets" => 2,
            "everything" | "no-priority" => 3,
            _ => 1,
        };
        assert_eq!(maps.len(), expected, "{set}");
    }
}

/// What `helm install` says at its end.
fn notes(config: &Value) -> String {
    let dir = tempfile::tempdir().unwrap();
    let values = dir.path().join("values.yaml");
    std::fs::write(&values, json!({"config": config}).to_string()).unwrap();
    let (chart, values) = (world::chart(), values.display().to_string());
    let arguments = ["install", "release", chart.to_str().unwrap()];
    let options = ["--dry-run=client", "--values", &values];
    let output = world::helm(&[&arguments[..], &options].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, notes) = text.split_once("\nNOTES:\n").unwrap_or_else(|| {
        panic!("{text}{}", String::from_utf8_lossy(&output.stderr));
    });
    notes.to_owned()
}

#[test]
fn passwords_in_the_config_are_warned_about_wherever_they_stand() {
    let s3 = |secret: &str| {
        json!({"store": {"s3": {"bucket": "b",
            "credentials": {"accessKeyId": "i", "secretAccessKey": secret}}}})
    };
    for (config, place) in [
        (json!({"address": "a.corp", "auth": "u:hunter2"}), "a.corp"),
        (
            json!({"address": "a.corp", "auth": {"username": "u", "password": "hunter2"}}),
            "a.corp",
        ),
        (
            json!({"registries": [{"address": "b.corp", "auth": "u:hunter2"}]}),
            "b.corp",
        ),
        (
            json!({"registries": [{"address": "http://u:hunter2@b.corp"}]}),
            "b.corp",
        ),
        (
            json!({"imageRedirMapping": [{"src": "a.io", "to": "c.corp/x", "auth": "u:hunter2"}]}),
            "c.corp/x",
        ),
        (json!({"useNodeCache": "http://u:hunter2@d.corp"}), "d.corp"),
        (json!({"nodeCache": s3("hunter2")}), "the cache's bucket"),
    ] {
        let notes = notes(&config);
        let warning = format!("Passwords of {place} stand in a ConfigMap");
        assert!(notes.contains(&warning), "{config}: {notes}");
        assert!(!notes.contains("hunter2"), "{notes}");
    }
    for config in [
        json!({"address": "a.corp", "auth": "u:${A}"}),
        json!({"address": "a.corp", "auth": {"username": "u", "password": "${A}"}}),
        json!({"registries": [{"address": "b.corp", "authFile": "/x"}], "nodeCache": null}),
        json!({"nodeCache": s3("${A}"), "useNodeCache": true}),
    ] {
        let notes = notes(&config);
        assert!(!notes.contains("Passwords"), "{config}: {notes}");
    }
}

#[test]
fn credentials_that_are_given_become_secrets_and_stand_nowhere_else() {
    let text = world::rendered(&value_set("everything"), &[]);
    assert!(!text.contains("secret-of-the-test"), "{text}");
    let objects = world::objects("everything");
    for part in ["image-cri-shim-webhook", "image-cri-shim-cache"] {
        let secret = find(&objects, "Secret", &format!("{part}-environment")).unwrap();
        assert_eq!(
            secret["data"],
            json!({"HARBOR_TOKEN": STANDARD.encode("secret-of-the-test")})
        );
        let secret = find(&objects, "Secret", &format!("{part}-docker-config")).unwrap();
        assert_eq!(secret["type"], "kubernetes.io/dockerconfigjson");
        let json = STANDARD
            .decode(secret["data"][".dockerconfigjson"].as_str().unwrap())
            .unwrap();
        let docker: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            docker,
            json!({"auths": {"mirror.region.example": {
                "username": "robot", "password": "secret-of-the-test",
                "auth": STANDARD.encode("robot:secret-of-the-test"),
            }}})
        );
    }
}

/// The paths that values.yaml names are the ones where the files stand.
#[test]
fn credentials_stand_where_the_values_file_says() {
    let documented = std::fs::read_to_string(world::chart().join("values.yaml")).unwrap();
    for set in ["everything", "registries-with-secrets"] {
        let objects = world::objects(set);
        for (kind, name) in [
            ("Deployment", "image-cri-shim-webhook"),
            ("DaemonSet", "image-cri-shim-cache"),
        ] {
            let object = find(&objects, kind, name).unwrap();
            let spec = &object["spec"]["template"]["spec"];
            let mount = |volume: &str| {
                let mounts = list(&spec["containers"][0]["volumeMounts"]);
                let mount = mounts.iter().find(|mount| mount["name"] == volume).unwrap();
                assert_eq!(mount["readOnly"], true);
                // With subPath a change would never arrive.
                assert!(mount["subPath"].is_null());
                mount["mountPath"].as_str().unwrap().to_owned()
            };
            let volume = |name: &str| {
                let volumes = list(&spec["volumes"]);
                volumes
                    .iter()
                    .find(|volume| volume["name"] == name)
                    .unwrap()
            };
            let item = &volume("docker-config")["secret"]["items"][0];
            assert_eq!(item["key"], ".dockerconfigjson");
            let file = format!(
                "{}/{}",
                mount("docker-config"),
                item["path"].as_str().unwrap()
            );
            assert!(documented.contains(&format!("{file};")), "{file}");
            let folder = mount("certificate-authorities");
            assert!(documented.contains(&format!("{folder}.")), "{folder}");
        }
    }
}

/// A process does not see a change of its environment: the Pods have to be made anew, and only for that.
#[test]
fn pods_restart_for_changed_variables_and_for_nothing_else() {
    let template = |more: &[&str]| {
        let text = world::rendered(&value_set("shared-cache"), more);
        let objects = world::documents(&text);
        find(&objects, "DaemonSet", "image-cri-shim-cache").unwrap()["spec"]["template"].clone()
    };
    let before = template(&[]);
    assert_ne!(
        before,
        template(&["--set", "credentials.environment.values.S3_SECRET=other"])
    );
    assert_eq!(
        before,
        template(&[
            "--set",
            "config.registries[0].address=https://other.example"
        ])
    );
    assert_eq!(before, template(&["--set", "config.nodeCache.maxSize=1Gi"]));
}

/// The installer reads the config once, so its Pods are made anew, and one node after another gets it.
#[test]
fn installers_restart_for_another_config() {
    let template = |more: &[&str]| {
        let text = world::rendered(&value_set("node-installer"), more);
        let objects = world::documents(&text);
        find(&objects, "DaemonSet", "image-cri-shim-installer").unwrap()["spec"]["template"].clone()
    };
    let before = template(&[]);
    let change = [
        "--set",
        "config.registries[0].address=https://other.example",
    ];
    assert_ne!(before, template(&change));
    let unwritten = ["--set", "nodeInstaller.writeConfig=false"];
    let more = [unwritten, change].concat();
    assert_eq!(template(&unwritten), template(&more));
}
