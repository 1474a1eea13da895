//! Pods in, Pods out: every patch is applied by an RFC 6902 library and the whole Pod compared.

use serde_json::{Value, json};

use super::*;
use crate::config::Settings;
use crate::{Plan, Verdict};

const HUB: &str = "imageRedirMapping:\n\
    - {src: docker.io/, to: project-a.azurecr.io/docker-mirror/, name: hub, pullSecret: mirror}\n\
    - {src: quay.io, to: q.io/m}\n";

pub(super) fn settings(config: &str) -> Settings {
    let (settings, findings) = Settings::read(config, &|_| None);
    assert!(findings.is_empty(), "{findings:?}");
    settings
}

fn create(config: &str, pod: &Value) -> Result<Value, Skipped> {
    change(config, pod, None, &[])
}

fn change(
    config: &str,
    pod: &Value,
    old: Option<&Value>,
    chosen: &[Option<usize>],
) -> Result<Value, Skipped> {
    let mut answers = chosen.iter().map(|chosen| {
        let found = |at| [vec![None; at], vec![Some(Verdict::Found)]].concat();
        chosen.map_or_else(Vec::new, found)
    });
    apply(config, pod, old, &mut |_| answers.next())
}

/// What comes of `pod`, where `say` gives what the candidates of a plan say; `None`: nobody is asked.
pub(super) fn apply(
    config: &str,
    pod: &Value,
    old: Option<&Value>,
    say: &mut dyn FnMut(&Plan) -> Option<Vec<Option<Verdict>>>,
) -> Result<Value, Skipped> {
    let settings = settings(config);
    let options = PodSettings::new(&settings.webhook, Some("image-cri-shim"));
    let typed: Pod = serde_json::from_value(pod.clone()).unwrap();
    let old: Option<Pod> = old.map(|old| serde_json::from_value(old.clone()).unwrap());
    let operation = match &old {
        Some(old) => Operation::Update { old },
        None => Operation::Create,
    };
    let draft = Draft::new(&typed, "default", operation, &settings.rules, &options)?;
    let plans = draft.images().iter().map(|image| draft.plan(image));
    let answers = plans.map(|plan| plan.and_then(|plan| say(&plan)).unwrap_or_default());
    let answers: Vec<_> = answers.collect();
    let mut changed = pod.clone();
    if let Some(patch) = draft.patch(&answers) {
        let text = serde_json::to_string(&patch.operations).unwrap();
        let operations: json_patch::Patch = serde_json::from_str(&text).unwrap();
        json_patch::patch(&mut changed, &operations).unwrap();
    }
    Ok(changed)
}

fn notes(originals: Value, rules: Value) -> Value {
    json!({ORIGINAL_IMAGES: originals.to_string(), RULES: rules.to_string()})
}

#[test]
fn every_kind_of_container_and_image_volumes() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "web-", "labels": {"app": "web"}},
        "spec": {
            "initContainers": [{"name": "init", "image": "busybox", "command": ["true"]}],
            "containers": [
                {"name": "web", "image": "docker.io/nats:2.10.26-alpine", "env": [{"name": "A", "value": "nats"}]},
                {"name": "side", "image": "quay.io/team/app@sha256:1111111111111111111111111111111111111111111111111111111111111111"},
                {"name": "other", "image": "ghcr.io/team/app:1"},
            ],
            "ephemeralContainers": [{"name": "debug", "image": "library/alpine:3"}],
            "volumes": [
                {"name": "data", "image": {"reference": "bitnami/models:7", "pullPolicy": "Always"}},
                {"name": "web", "emptyDir": {}},
            ],
        },
    });
    let mut expected = pod.clone();
    expected["spec"]["initContainers"][0]["image"] =
        json!("project-a.azurecr.io/docker-mirror/busybox:latest");
    expected["spec"]["containers"][0]["image"] =
        json!("project-a.azurecr.io/docker-mirror/nats:2.10.26-alpine");
    expected["spec"]["containers"][1]["image"] = json!(
        "q.io/m/team/app@sha256:1111111111111111111111111111111111111111111111111111111111111111"
    );
    expected["spec"]["ephemeralContainers"][0]["image"] =
        json!("project-a.azurecr.io/docker-mirror/library/alpine:3");
    expected["spec"]["volumes"][0]["image"]["reference"] =
        json!("project-a.azurecr.io/docker-mirror/bitnami/models:7");
    expected["spec"]["imagePullSecrets"] = json!([{"name": "mirror"}]);
    expected["metadata"]["annotations"] = notes(
        json!({
            "debug": "library/alpine:3",
            "init": "busybox",
            "side": "quay.io/team/app@sha256:1111111111111111111111111111111111111111111111111111111111111111",
            "volume/data": "bitnami/models:7",
            "web": "docker.io/nats:2.10.26-alpine",
        }),
        json!({
            "debug": "hub", "init": "hub", "side": "imageRedirMapping[2]",
            "volume/data": "hub", "web": "hub",
        }),
    );
    assert_eq!(create(HUB, &pod).unwrap(), expected);
    assert_eq!(create(HUB, &expected), Err(Skipped::NoRule));
}

fn with(image: &str) -> Value {
    json!({"metadata": {}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

#[test]
fn annotations_and_secrets_that_are_there_stay() {
    let mut pod = with("nats:1");
    pod["metadata"]["annotations"] =
        json!({"a/b~c": "x", ORIGINAL_IMAGES: "not json", RULES: "{}"});
    pod["spec"]["imagePullSecrets"] = json!([{"name": "own"}]);
    let changed = create(HUB, &pod).unwrap();
    assert_eq!(changed["metadata"]["annotations"]["a/b~c"], "x");
    assert_eq!(
        changed["metadata"]["annotations"][ORIGINAL_IMAGES],
        r#"{"c":"nats:1"}"#
    );
    let secrets = json!([{"name": "own"}, {"name": "mirror"}]);
    assert_eq!(changed["spec"]["imagePullSecrets"], secrets);

    pod["spec"]["imagePullSecrets"] = json!([{"name": "mirror"}]);
    let changed = create(HUB, &pod).unwrap();
    assert_eq!(
        changed["spec"]["imagePullSecrets"],
        json!([{"name": "mirror"}])
    );

    for absent in [json!(null), json!([])] {
        pod["spec"]["imagePullSecrets"] = absent;
        let changed = create(HUB, &pod).unwrap();
        assert_eq!(
            changed["spec"]["imagePullSecrets"],
            json!([{"name": "mirror"}])
        );
    }
    // The rule without a Secret adds none.
    let changed = create(HUB, &with("quay.io/a/b:1")).unwrap();
    assert_eq!(changed["spec"].get("imagePullSecrets"), None);
}

#[test]
fn missing_and_null_metadata() {
    let expected = notes(
        json!({"c": "quay.io/a/b:1"}),
        json!({"c": "imageRedirMapping[2]"}),
    );
    let mut pod = with("quay.io/a/b:1");
    for metadata in [json!({}), json!(null), json!({"annotations": null})] {
        pod["metadata"] = metadata;
        let changed = create(HUB, &pod).unwrap();
        assert_eq!(changed["metadata"]["annotations"], expected);
    }
    pod.as_object_mut().unwrap().remove("metadata");
    let changed = create(HUB, &pod).unwrap();
    assert_eq!(changed["metadata"]["annotations"], expected);
}

#[test]
fn pods_that_are_left_alone() {
    let spared = |path: &[&str], value: &str| {
        let mut pod = with("nats:1");
        pod["metadata"][path[0]] = json!({path[1]: value});
        create(HUB, &pod)
    };
    assert_eq!(
        spared(&["annotations", "kubernetes.io/config.mirror"], "abc"),
        Err(Skipped::Static)
    );
    assert_eq!(
        spared(&["annotations", "kubernetes.io/config.source"], "file"),
        Err(Skipped::Static)
    );
    assert!(spared(&["annotations", "kubernetes.io/config.source"], "api").is_ok());
    for value in ["false", "off", "no", "disabled"] {
        assert_eq!(
            spared(&["annotations", OPT_OUT], value),
            Err(Skipped::OptedOut)
        );
        assert_eq!(spared(&["labels", OPT_OUT], value), Err(Skipped::OptedOut));
    }
    assert!(spared(&["labels", OPT_OUT], "true").is_ok());
    for image in [
        "ghcr.io/a/b:1",
        "project-a.azurecr.io/docker-mirror/nats:1",
        "q.io/m/team/app:1",
        "Upper/Case:x:y",
        "sha256:1111111111111111111111111111111111111111111111111111111111111111",
        "",
        "{{ .Values.image }}",
    ] {
        assert_eq!(create(HUB, &with(image)), Err(Skipped::NoRule), "{image}");
    }
    for empty in [
        json!({}),
        json!({"spec": null}),
        json!({"spec": {"containers": null}}),
    ] {
        assert_eq!(create(HUB, &empty), Err(Skipped::NoRule));
    }
}

#[test]
fn images_that_are_never_pulled_keep_their_name() {
    let pod = json!({"spec": {
        "containers": [
            {"name": "local", "image": "nats:1", "imagePullPolicy": "Never"},
            {"name": "pulled", "image": "nats:1", "imagePullPolicy": "IfNotPresent"},
            {"name": "later"},
        ],
        "volumes": [{"name": "v", "image": {"reference": "nats:1", "pullPolicy": "Never"}},
            {"name": "w", "image": {}}],
    }});
    let changed = create(HUB, &pod).unwrap();
    assert_eq!(
        changed["spec"]["containers"][0],
        pod["spec"]["containers"][0]
    );
    assert_ne!(
        changed["spec"]["containers"][1],
        pod["spec"]["containers"][1]
    );
    assert_eq!(changed["spec"]["volumes"], pod["spec"]["volumes"]);
}

#[test]
fn namespaces() {
    let in_namespace = |config: &str, namespace: &str| {
        let settings = settings(config);
        let options = PodSettings::new(&settings.webhook, Some("own"));
        let pod: Pod = serde_json::from_value(with("nats:1")).unwrap();
        Draft::new(
            &pod,
            namespace,
            Operation::Create,
            &settings.rules,
            &options,
        )
        .err()
    };
    assert_eq!(in_namespace(HUB, "default"), None);
    assert_eq!(in_namespace(HUB, "kube-system"), Some(Skipped::Namespace));
    assert_eq!(in_namespace(HUB, "own"), Some(Skipped::Namespace));
    let listed = format!("{HUB}excludeNamespaces: [ops]\n");
    assert_eq!(in_namespace(&listed, "ops"), Some(Skipped::Namespace));
    assert_eq!(in_namespace(&listed, "kube-system"), None);
    let none = format!("{HUB}excludeNamespaces: []\n");
    assert_eq!(in_namespace(&none, "own"), None);
}

#[test]
fn an_update_changes_new_ephemeral_containers_only() {
    let old = json!({"metadata": {"annotations": {ORIGINAL_IMAGES: r#"{"web":"nats:1"}"#}}, "spec": {
        "imagePullSecrets": [{"name": "mirror"}],
        "containers": [{"name": "web", "image": "nats:2"}],
        "ephemeralContainers": [{"name": "first", "image": "busybox:1"}],
    }});
    let mut new = old.clone();
    new["spec"]["ephemeralContainers"] =
        json!([{"name": "first", "image": "busybox:1"}, {"name": "second", "image": "busybox:2"}]);
    let mut expected = new.clone();
    expected["spec"]["ephemeralContainers"][1]["image"] =
        json!("project-a.azurecr.io/docker-mirror/busybox:2");
    expected["metadata"]["annotations"] = notes(
        json!({"second": "busybox:2", "web": "nats:1"}),
        json!({"second": "hub"}),
    );
    let changed = change(HUB, &new, Some(&old), &[]).unwrap();
    assert_eq!(changed, expected);
    assert_eq!(
        change(HUB, &expected, Some(&old), &[]),
        Err(Skipped::NoRule)
    );
    assert_eq!(change(HUB, &old, Some(&old), &[]), Err(Skipped::NoRule));
}

#[test]
fn through_the_node_cache() {
    let config = format!(
        "{HUB}cache: {{prefix: 'localhost:7439'}}\nregistries: [{{address: 'r.io:5000'}}]\nrewrite: best\n"
    );
    let changed = create(&config, &with("nats:2.10.26-alpine")).unwrap();
    assert_eq!(
        changed["spec"]["containers"][0]["image"],
        "localhost:7439/project-a.azurecr.io/docker-mirror/nats:2.10.26-alpine"
    );
    assert_eq!(create(&config, &changed), Err(Skipped::NoRule));
    let best = change(&config, &with("nats:1"), None, &[Some(0)]).unwrap();
    assert_eq!(
        best["spec"]["containers"][0]["image"],
        "localhost:7439/r.io_5000/library/nats:1"
    );
    assert_eq!(
        best["metadata"]["annotations"][RULES],
        r#"{"c":"registries[1]"}"#
    );
    assert_eq!(create(&config, &best), Err(Skipped::NoRule));
}

#[test]
fn the_best_candidate_or_the_redirect() {
    let config = "rewrite: best\naddress: s.io\nregistries: [{address: docker.io, pullSecret: hub}]\n\
                  imageRedirMapping: [{src: quay.io, to: q.io}]\n";
    // Nothing found, no redirect: unchanged.
    let pod = with("nats:1");
    assert_eq!(change(config, &pod, None, &[None]).unwrap(), pod);
    let found = change(config, &pod, None, &[Some(0)]).unwrap();
    assert_eq!(
        found["spec"]["containers"][0]["image"],
        "s.io/library/nats:1"
    );
    assert_eq!(
        found["metadata"]["annotations"][RULES],
        r#"{"c":"address"}"#
    );
    assert_eq!(
        change(config, &found, None, &[Some(0)]),
        Err(Skipped::NoRule)
    );
    // Where it was all along: unchanged.
    assert_eq!(change(config, &pod, None, &[Some(1)]).unwrap(), pod);
    // Nothing found: the redirect.
    let redirected = change(config, &with("quay.io/a/b:1"), None, &[None]).unwrap();
    assert_eq!(redirected["spec"]["containers"][0]["image"], "q.io/a/b:1");
    // A candidate that doesn't exist is none.
    assert_eq!(change(config, &pod, None, &[Some(9)]).unwrap(), pod);
}

#[test]
fn a_target_is_not_redirected_by_a_later_call() {
    let config = "imageRedirMapping: [{src: a.io, to: b.io}, {src: b.io, to: c.io}]";
    let once = create(config, &with("a.io/x:1")).unwrap();
    assert_eq!(once["spec"]["containers"][0]["image"], "b.io/x:1");
    assert_eq!(create(config, &once), Err(Skipped::NoRule));
    // Another webhook put its own image in between: that is the original now.
    let mut twice = once;
    twice["spec"]["containers"][0]["image"] = json!("b.io/y:1");
    let twice = create(config, &twice).unwrap();
    assert_eq!(twice["spec"]["containers"][0]["image"], "c.io/y:1");
    assert_eq!(
        twice["metadata"]["annotations"][ORIGINAL_IMAGES],
        r#"{"c":"b.io/y:1"}"#
    );
}

#[test]
fn a_digest_that_another_webhook_pinned_is_no_new_image() {
    let digest = format!("@sha256:{}", "1".repeat(64));
    let chain = "imageRedirMapping: [{src: a.io, to: b.io}, {src: b.io, to: c.io}]";
    let mut once = create(chain, &with("a.io/x:1")).unwrap();
    once["spec"]["containers"][0]["image"] = json!(format!("b.io/x:1{digest}"));
    assert_eq!(create(chain, &once), Err(Skipped::NoRule));

    let best = "rewrite: best\naddress: s.io\nregistries: [{address: r.io}]";
    let mut once = change(best, &with("nats:1"), None, &[Some(0)]).unwrap();
    once["spec"]["containers"][0]["image"] = json!(format!("s.io/library/nats:1{digest}"));
    assert_eq!(change(best, &once, None, &[Some(1)]), Err(Skipped::NoRule));
}

#[test]
fn an_original_that_was_put_back_is_moved_again() {
    // As by who saves a Pod's YAML, edits the image and creates it again.
    let config = "rewrite: best\nregistries: [{address: docker.io}]\n\
                  imageRedirMapping: [{src: docker.io, to: m.io}]";
    let mut pod = create(config, &with("docker.io/library/nats:1")).unwrap();
    assert_eq!(pod["spec"]["containers"][0]["image"], "m.io/library/nats:1");
    for image in ["docker.io/library/nats:1", "nats:2"] {
        pod["spec"]["containers"][0]["image"] = json!(image);
        let again = create(config, &pod).unwrap();
        let moved = &again["spec"]["containers"][0]["image"];
        assert!(moved.as_str().unwrap().starts_with("m.io/"), "{moved}");
    }
}

#[test]
fn annotations_stay_within_what_a_pod_may_have() {
    let mut pod = with("nats:1");
    let limit = 256 * 1024;
    pod["metadata"]["annotations"] = json!({"big": "x".repeat(limit - 50)});
    let changed = create(HUB, &pod).unwrap();
    assert_eq!(
        changed["spec"]["containers"][0]["image"],
        "project-a.azurecr.io/docker-mirror/nats:1"
    );
    assert!(
        changed["metadata"] == pod["metadata"],
        "the annotations grew"
    );
}

#[test]
fn what_is_filled_in_later_is_left_alone() {
    // `auto` is Istio's; what is no name can't be Docker Hub's either.
    for image in [
        "auto",
        " auto ",
        "${IMAGE}",
        "{{ inputs.parameters.image }}",
        "$(params.image)",
        "$IMAGE",
        "<registry>/app:1",
        "",
        " ",
        "nats :1",
        " nats:1",
    ] {
        for config in [
            HUB.to_owned(),
            format!("{HUB}cache: {{prefix: 'localhost:7439'}}\n"),
        ] {
            assert_eq!(
                create(&config, &with(image)),
                Err(Skipped::NoRule),
                "{image:?}"
            );
        }
    }
    assert!(create(HUB, &with("auto:1")).is_ok());
}

#[test]
fn opting_out_does_as_it_reads() {
    for (value, expected) in [
        ("False", true),
        ("FALSE", true),
        ("0", true),
        ("No", true),
        (" off ", true),
        ("never", true),
        ("true", false),
        ("1", false),
        ("yes", false),
        ("", false),
        ("best", false),
    ] {
        for place in ["labels", "annotations"] {
            let mut pod = with("nats:1");
            pod["metadata"][place] = json!({OPT_OUT: value});
            let left = create(HUB, &pod) == Err(Skipped::OptedOut);
            assert_eq!(left, expected, "{place} {value:?}");
        }
    }
    for place in ["labels", "annotations"] {
        let mut pod = with("nats:1");
        pod["metadata"][place] = json!({KUIK_POLICY: "ignore"});
        assert_eq!(create(HUB, &pod), Err(Skipped::OptedOut));
        pod["metadata"][place] = json!({KUIK_POLICY: "cache"});
        assert!(create(HUB, &pod).is_ok());
    }
}

#[test]
fn five_hundred_containers_and_no_more() {
    let pod = |init: usize, main: usize, volumes: usize| {
        let named = |kind: &str, count: usize| -> Vec<Value> {
            let names = (0..count).map(|at| format!("{kind}{at}"));
            names
                .map(|name| json!({"name": name, "image": "nats:1"}))
                .collect()
        };
        let volume = |at| json!({"name": format!("v{at}"), "image": {"reference": "nats:1"}});
        json!({"metadata": {}, "spec": {
            "initContainers": named("i", init),
            "containers": named("c", main),
            "volumes": (0..volumes).map(volume).collect::<Vec<_>>(),
        }})
    };
    let changed = create(HUB, &pod(100, 400, 500)).unwrap();
    let last = &changed["spec"]["containers"][399]["image"];
    assert_eq!(*last, "project-a.azurecr.io/docker-mirror/nats:1");
    let last = &changed["spec"]["volumes"][499]["image"]["reference"];
    assert_eq!(*last, "project-a.azurecr.io/docker-mirror/nats:1");
    for (init, main, volumes) in [(0, 501, 0), (101, 400, 0), (0, 1, 501)] {
        let many = pod(init, main, volumes);
        assert_eq!(create(HUB, &many), Err(Skipped::TooMany));
    }
}

#[test]
fn names_that_kubernetes_does_not_accept() {
    let pod = |name: usize, volume: usize| {
        json!({"metadata": {}, "spec": {
            "initContainers": [{"name": "n".repeat(name), "image": "nats:1"}],
            "volumes": [{"name": "v".repeat(volume), "image": {"reference": "nats:1"}}],
        }})
    };
    assert!(create(HUB, &pod(63, 63)).is_ok());
    for (name, volume) in [(64, 1), (1, 64)] {
        assert_eq!(create(HUB, &pod(name, volume)), Err(Skipped::LongName));
    }
}

#[test]
fn what_is_kept_of_a_pod_is_measured() {
    let size = |pod: Value| serde_json::from_value::<Pod>(pod).unwrap().size();
    let nothing = size(json!({}));
    let text = "x".repeat(1000);
    for pod in [
        json!({"metadata": {"generateName": text}}),
        json!({"metadata": {"annotations": {ORIGINAL_IMAGES: text}}}),
        json!({"metadata": {"labels": {OPT_OUT: text}}}),
        json!({"metadata": {"ownerReferences": [{"name": text}]}}),
        json!({"spec": {"containers": [{"name": text}]}}),
        json!({"spec": {"initContainers": [{"image": text}]}}),
        json!({"spec": {"ephemeralContainers": [{"imagePullPolicy": text}]}}),
        json!({"spec": {"volumes": [{"name": text, "image": {}}]}}),
        json!({"spec": {"volumes": [{"name": "v", "image": {"reference": text}}]}}),
        json!({"spec": {"imagePullSecrets": [{"name": text}]}}),
    ] {
        let size = size(pod.clone());
        assert!((nothing + 1000..nothing + 1500).contains(&size), "{pod}");
    }
    // What is not kept doesn't count.
    let other = json!({"metadata": {"name": text, "annotations": {"other": text}}});
    assert_eq!(size(other), nothing);
}

#[test]
fn a_patch_has_a_size() {
    // As long as names can be, and names that grow where they are quoted twice.
    let (host, path) = (vec!["x".repeat(62); 4].join("."), "p".repeat(250));
    let config = format!("imageRedirMapping: [{{src: docker.io, to: {host}/{path}, name: r}}]");
    let settings = settings(&config);
    let options = PodSettings::new(&settings.webhook, None);
    let patch_of = |volumes: usize| {
        let name = |at: usize| format!("{at:03}{}", "\"".repeat(58));
        let container = |at| json!({"name": name(at), "image": "a"});
        let volume = |at| json!({"name": name(at), "image": {"reference": "a"}});
        let pod = json!({"metadata": {}, "spec": {
            "containers": (0..500).map(container).collect::<Vec<_>>(),
            "volumes": (0..volumes).map(volume).collect::<Vec<_>>(),
        }});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let draft = Draft::new(&pod, "n", Operation::Create, &settings.rules, &options);
        draft.unwrap().patch(&[]).unwrap()
    };
    let some = patch_of(0);
    assert!(some.to_json().unwrap().is_some());
    let many = patch_of(500);
    assert!(!many.unrecorded);
    assert!(serde_json::to_vec(&many.operations).unwrap().len() > MAX_PATCH);
    assert_eq!(many.to_json().unwrap(), None);
}

#[test]
fn an_update_moves_what_it_changes_and_keeps_the_annotations_in_step() {
    let mirror = |image: &str| format!("project-a.azurecr.io/docker-mirror/{image}");
    let pod = json!({"metadata": {"annotations": {"own": "note"}}, "spec": {
        "initContainers": [{"name": "init", "image": "busybox:1"}],
        "containers": [{"name": "web", "image": "nats:1"}, {"name": "side", "image": "ghcr.io/a/b:1"}],
    }});
    let old = create(HUB, &pod).unwrap();
    // Nothing that concerns images.
    let mut new = old.clone();
    new["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(change(HUB, &new, Some(&old), &[]), Err(Skipped::NoRule));

    // kubectl set image: another one that a rule moves.
    new["spec"]["containers"][0]["image"] = json!("nats:2");
    let changed = change(HUB, &new, Some(&old), &[]).unwrap();
    assert_eq!(changed["spec"]["containers"][0]["image"], mirror("nats:2"));
    assert_eq!(
        changed["spec"]["initContainers"],
        old["spec"]["initContainers"]
    );
    assert_eq!(
        changed["spec"].get("imagePullSecrets"),
        old["spec"].get("imagePullSecrets")
    );
    let mut expected = notes(
        json!({"init": "busybox:1", "web": "nats:2"}),
        json!({"init": "hub", "web": "hub"}),
    );
    expected["own"] = json!("note");
    assert_eq!(changed["metadata"]["annotations"], expected);
    // A later call for the same update.
    assert_eq!(change(HUB, &changed, Some(&old), &[]), Err(Skipped::NoRule));

    // One that no rule moves: what the annotations say of it is not true any more.
    new["spec"]["containers"][0]["image"] = json!("ghcr.io/a/web:1");
    let changed = change(HUB, &new, Some(&old), &[]).unwrap();
    assert_eq!(changed["spec"], new["spec"]);
    let mut expected = notes(json!({"init": "busybox:1"}), json!({"init": "hub"}));
    expected["own"] = json!("note");
    assert_eq!(changed["metadata"]["annotations"], expected);

    // And with the last of them the annotations go.
    new["spec"]["initContainers"][0]["image"] = json!("ghcr.io/a/init:1");
    let changed = change(HUB, &new, Some(&old), &[]).unwrap();
    assert_eq!(changed["metadata"]["annotations"], json!({"own": "note"}));
    assert_eq!(change(HUB, &changed, Some(&old), &[]), Err(Skipped::NoRule));
}

/// The Secrets of a Pod that is there can't be changed, and who was not given the Secret of a private mirror can
/// pull nothing from it.
#[test]
fn an_update_moves_nothing_to_where_a_secret_is_missing() {
    let pod = |image: &str, secrets: Value| {
        let mut pod = with(image);
        pod["spec"]["imagePullSecrets"] = secrets;
        pod
    };
    let update = |config: &str, secrets: Value, answers: &[Verdict]| {
        let (old, new) = (pod("ghcr.io/a:1", secrets.clone()), pod("nats:1", secrets));
        let answers: Vec<_> = answers.iter().copied().map(Some).collect();
        let changed = apply(config, &new, Some(&old), &mut |_| Some(answers.clone())).unwrap();
        assert_eq!(
            changed["spec"]["imagePullSecrets"],
            new["spec"]["imagePullSecrets"]
        );
        let image = &changed["spec"]["containers"][0]["image"];
        image.as_str().unwrap().to_owned()
    };
    let (none, mirror) = (json!(null), json!([{"name": "own"}, {"name": "mirror"}]));
    assert_eq!(update(HUB, none.clone(), &[]), "nats:1");
    let moved = "project-a.azurecr.io/docker-mirror/nats:1";
    assert_eq!(update(HUB, mirror.clone(), &[]), moved);
    // Through the cache, nobody needs the Secret.
    let cached = format!("{HUB}cache: {{prefix: 'localhost:7439'}}\n");
    let image = format!("localhost:7439/{moved}");
    assert_eq!(update(&cached, none.clone(), &[]), image);
    // A site that never pulls from the origin.
    let closed = format!("{HUB}fallbackToOrigin: false\n");
    assert_eq!(update(&closed, none.clone(), &[]), moved);

    // The next place that has it, and wants no Secret or one that is there.
    let best = "rewrite: best\nregistries: [{address: a.io, priority: 900, pullSecret: mirror}, {address: b.io}]\n";
    let both = [Verdict::Found, Verdict::Found];
    assert_eq!(update(best, none.clone(), &both), "b.io/library/nats:1");
    assert_eq!(update(best, mirror, &both), "a.io/library/nats:1");
    let first = [Verdict::Found, Verdict::NotFound];
    assert_eq!(update(best, none, &first), "nats:1");
}

#[test]
fn a_redirect_that_has_said_no_is_not_gone_to() {
    let config = "rewrite: best\naddress: s.io\nimageRedirMapping: [{src: docker.io, to: m.io}]\n";
    let image = |config: &str, answers: [Option<Verdict>; 2]| {
        let changed = apply(config, &with("nats:1"), None, &mut |plan| {
            assert_eq!(plan.candidates.len(), 2);
            Some(answers.to_vec())
        });
        let image = &changed.unwrap()["spec"]["containers"][0]["image"];
        image.as_str().unwrap().to_owned()
    };
    for other in [None, Some(Verdict::NotFound), Some(Verdict::Unavailable)] {
        assert_eq!(image(config, [other, Some(Verdict::NotFound)]), "nats:1");
        for stands in Verdict::ALL.into_iter().filter(|v| *v != Verdict::NotFound) {
            assert_eq!(image(config, [other, Some(stands)]), "m.io/nats:1");
        }
        assert_eq!(image(config, [other, None]), "m.io/nats:1");
    }
    // Where the origin must not be pulled, the Pod rather waits.
    let closed = format!("{config}fallbackToOrigin: false\n");
    let nowhere = [Some(Verdict::NotFound); 2];
    assert_eq!(image(&closed, nowhere), "m.io/nats:1");
    // And through the cache it goes all the same, by its own name.
    let cached = format!("{config}cache: {{prefix: 'localhost:7439'}}\n");
    let through = "localhost:7439/docker.io/library/nats:1";
    assert_eq!(image(&cached, nowhere), through);
}

/// `kubectl apply` of an unchanged file puts every original name back. A container that runs is not to be
/// restarted by what registries say today.
#[test]
fn a_running_container_keeps_its_image_when_its_file_is_applied_again() {
    let config = "rewrite: best\naddress: s.io\nregistries: [{address: r.io}]\n";
    let cached = format!("{config}cache: {{prefix: 'localhost:7439'}}\n");
    let digest = format!("@sha256:{}", "1".repeat(64));
    for (config, pinned) in [(config, ""), (config, digest.as_str()), (&cached, "")] {
        let mut running = change(config, &with("nats:1"), None, &[Some(0)]).unwrap();
        let moved = running["spec"]["containers"][0]["image"].as_str().unwrap();
        let moved = json!(format!("{moved}{pinned}"));
        running["spec"]["containers"][0]["image"] = moved;
        for written in ["nats:1", "docker.io/library/nats:1"] {
            let mut again = running.clone();
            again["spec"]["containers"][0]["image"] = json!(written);
            let kept = apply(config, &again, Some(&running), &mut |_| {
                panic!("nobody is to be asked")
            });
            let kept = kept.unwrap();
            assert_eq!(kept["spec"], running["spec"]);
            let recorded = notes(json!({"c": written}), json!({"c": "address"}));
            assert_eq!(kept["metadata"]["annotations"], recorded);
            // By `kubectl replace` the annotations are not there.
            again["metadata"] = json!({});
            let replaced = change(config, &again, Some(&running), &[]).unwrap();
            assert_eq!(replaced["spec"], running["spec"]);
            assert_eq!(replaced["metadata"]["annotations"], recorded);
        }
        // Another image, or another place for this one, is decided anew.
        let mut other = running.clone();
        other["spec"]["containers"][0]["image"] = json!("nats:2");
        let other = change(config, &other, Some(&running), &[Some(1)]).unwrap();
        let image = other["spec"]["containers"][0]["image"].as_str().unwrap();
        assert!(image.ends_with("r.io/library/nats:2"), "{image}");
        let mut again = running.clone();
        again["spec"]["containers"][0]["image"] = json!("nats:1");
        let elsewhere = config.replace("s.io", "t.io");
        let moved = change(&elsewhere, &again, Some(&running), &[Some(0)]).unwrap();
        let image = moved["spec"]["containers"][0]["image"].as_str().unwrap();
        assert!(image.ends_with("t.io/library/nats:1"), "{image}");
    }
}

#[test]
fn a_record_of_another_tag_goes() {
    let config = "imageRedirMapping: [{src: docker.io, to: m.io/d}]";
    let cached = "cache: {prefix: 'localhost:7439'}\naddress: s.io";
    for config in [config, cached] {
        let old = create(config, &with("nats:1")).unwrap();
        let moved = old["spec"]["containers"][0]["image"].as_str().unwrap();
        let mut new = old.clone();
        // kubectl set image pod/p c=m.io/d/nats:2
        new["spec"]["containers"][0]["image"] = json!(moved.replace(":1", ":2"));
        let changed = change(config, &new, Some(&old), &[]).unwrap();
        assert_eq!(changed["spec"], new["spec"]);
        assert_eq!(changed["metadata"]["annotations"], json!({}));
        // A digest that another webhook has put in the tag's place is no other image.
        let digest = format!("@sha256:{}", "1".repeat(64));
        new["spec"]["containers"][0]["image"] = json!(moved.replace(":1", &digest));
        assert_eq!(create(config, &new), Err(Skipped::NoRule));
    }
}

#[test]
fn every_image_goes_through_the_cache() {
    let image = |config: &str, image: &str| {
        let changed = create(config, &with(image)).ok()?;
        let rules = changed["metadata"]["annotations"][RULES]
            .as_str()?
            .to_owned();
        let image = changed["spec"]["containers"][0]["image"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(create(config, &changed), Err(Skipped::NoRule), "{image}");
        Some((image, rules))
    };
    let config = format!(
        "{HUB}cache: {{prefix: 'localhost:7439', exclude: ['ghcr.io/secret/**', docker.io/library/postgres]}}\n"
    );
    let through = |image: &str, rule: &str| {
        Some((
            format!("localhost:7439/{image}"),
            format!(r#"{{"c":"{rule}"}}"#),
        ))
    };
    let mirror = "project-a.azurecr.io/docker-mirror";
    for (written, expected) in [
        ("ghcr.io/a/b:1", through("ghcr.io/a/b:1", "cache.prefix")),
        (
            "registry.corp:5000/a:1",
            through("registry.corp:5000/a:1", "cache.prefix")
                .map(|(i, r)| (i.replace("corp:", "corp_"), r)),
        ),
        ("nats:1", through(&format!("{mirror}/nats:1"), "hub")),
        (
            "project-a.azurecr.io/docker-mirror/nats:1",
            through(&format!("{mirror}/nats:1"), "cache.prefix"),
        ),
        // Excluded: the rule holds all the same.
        (
            "postgres:16",
            Some((format!("{mirror}/postgres:16"), r#"{"c":"hub"}"#.to_owned())),
        ),
        ("ghcr.io/secret/app:1", None),
        // Our own image, wherever it is, and what is on the node anyway.
        ("registry.corp/image-cri-shim:0.1.0", None),
        (
            "registry.corp/team/image-cri-shim@sha256:1111111111111111111111111111111111111111111111111111111111111111",
            None,
        ),
        ("localhost:5000/a:1", None),
        ("127.0.0.1:5000/a:1", None),
        ("localhost:7439/quay.io-5000/a:1", None),
        ("[::1]:5000/a:1", None),
        ("[fd00::1]:5000/a:1", None),
    ] {
        assert_eq!(image(&config, written), expected, "{written}");
    }
    let moved = config.replace("exclude:", "images: moved, exclude:");
    assert_eq!(image(&moved, "ghcr.io/a/b:1"), None);
    assert_eq!(
        image(&moved, "nats:1"),
        through(&format!("{mirror}/nats:1"), "hub")
    );
    let only = "cache: {prefix: 'localhost:7439', include: ['ghcr.io/**'], exclude: ['**/b']}\naddress: s.io\n";
    assert_eq!(
        image(only, "ghcr.io/a/c:1"),
        through("ghcr.io/a/c:1", "cache.prefix")
    );
    assert_eq!(image(only, "ghcr.io/a/b:1"), None);
    assert_eq!(image(only, "quay.io/a/c:1"), None);
    let never = json!({"spec": {"containers": [
        {"name": "c", "image": "ghcr.io/a/b:1", "imagePullPolicy": "Never"}]}});
    assert_eq!(create(&config, &never), Err(Skipped::NoRule));
}

#[test]
fn records_of_containers_that_are_not_there_go() {
    let mut pod = with("nats:1");
    pod["metadata"]["annotations"] = json!({
        ORIGINAL_IMAGES: r#"{"gone":"a.io/x:1","c":"old:1"}"#, RULES: r#"{"gone":"hub"}"#});
    let changed = create(HUB, &pod).unwrap();
    let expected = notes(json!({"c": "nats:1"}), json!({"c": "hub"}));
    assert_eq!(changed["metadata"]["annotations"], expected);
    // Also where nothing is moved.
    pod["spec"]["containers"][0]["image"] = json!("ghcr.io/a/b:1");
    let changed = create(HUB, &pod).unwrap();
    assert_eq!(changed["metadata"]["annotations"], json!({}));
    assert_eq!(create(HUB, &changed), Err(Skipped::NoRule));
}

#[test]
fn the_owner_of_a_pod() {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"generateName": "web-", "ownerReferences": [
        {"kind": "Other", "name": "o"}, {"kind": "ReplicaSet", "name": "web-1", "controller": true}]}}))
    .unwrap();
    assert_eq!(pod.owner().as_deref(), Some("ReplicaSet/web-1"));
    assert_eq!(Pod::default().owner(), None);
}
