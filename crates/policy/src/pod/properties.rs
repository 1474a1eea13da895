//! What holds for every Pod and every config.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::apply;
use super::{ORIGINAL_IMAGES, RULES};
use crate::{Plan, Verdict};

fn host() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "docker.io",
        "a.io",
        "b.io:5000",
        "c.io",
        "localhost:7439",
    ])
}

fn prefix() -> impl Strategy<Value = String> {
    (
        host(),
        prop::sample::select(vec!["", "/", "/m", "/library/", "/m/n"]),
    )
        .prop_map(|(host, path)| format!("{host}{path}"))
}

fn image() -> impl Strategy<Value = String> {
    let host = prop_oneof![
        Just(String::new()),
        host().prop_map(|host| format!("{host}/")),
        Just("index.docker.io/".to_owned()),
    ];
    let path = prop::sample::select(vec!["x", "m/x", "m/n/x", "library/x", "m", "BAD", "mm/x"]);
    let suffix = prop::sample::select(vec!["", ":1", ":1@sha256:", ":"]);
    (host, path, suffix).prop_map(|(host, path, suffix)| {
        let hex = if suffix.ends_with("sha256:") {
            "a".repeat(64)
        } else {
            String::new()
        };
        format!("{host}{path}{suffix}{hex}")
    })
}

fn config() -> impl Strategy<Value = String> {
    let rule = (prefix(), prefix(), any::<bool>(), any::<bool>());
    let registry = prefix();
    (
        prop::collection::vec(rule, 1..5),
        prop::collection::vec(registry, 0..3),
        prop::sample::select(vec![
            "",
            "cache: {prefix: 'localhost:7439'}\n",
            "cache: {prefix: 'localhost:7439', images: moved}\n",
            "cache: {prefix: 'c.io/edge', exclude: ['**/x', 'a.io/**'], include: ['*.io/**']}\n",
        ]),
        any::<bool>(),
    )
        .prop_map(|(rules, registries, cache, best)| {
            let rewrite = if best { "best" } else { "redirect" };
            let mut config = format!("rewrite: {rewrite}\nimageRedirMapping:\n");
            for (src, to, canonical, secret) in rules {
                let secret = if secret { ", pullSecret: s" } else { "" };
                config.push_str(&format!(
                    "- {{src: '{src}', to: '{to}', canonical: {canonical}{secret}}}\n"
                ));
            }
            config.push_str("registries:\n");
            for address in registries {
                config.push_str(&format!("- {{address: '{address}'}}\n"));
            }
            config.push_str(cache);
            config
        })
}

fn pod() -> impl Strategy<Value = Value> {
    let containers = || prop::collection::vec(image(), 0..3);
    (containers(), containers(), containers()).prop_map(|(init, main, volumes)| {
        let named = |kind: &str, images: &[String]| -> Vec<Value> {
            let images = images.iter().enumerate();
            images
                .map(|(at, image)| json!({"name": format!("{kind}{at}"), "image": image}))
                .collect()
        };
        let volumes: Vec<_> = volumes
            .iter()
            .enumerate()
            .map(|(at, image)| json!({"name": format!("v{at}"), "image": {"reference": image}}))
            .collect();
        json!({"metadata": {"name": "p"}, "spec": {
            "initContainers": named("i", &init),
            "containers": named("c", &main),
            "volumes": volumes,
        }})
    })
}

/// The Pod with everything put back that a patch may change.
fn undone(mut pod: Value) -> Value {
    let note = pod["metadata"]["annotations"][ORIGINAL_IMAGES].clone();
    let Some(note) = note.as_str() else {
        return pod;
    };
    let originals: Value = serde_json::from_str(note).unwrap();
    for kind in ["initContainers", "containers"] {
        for container in pod["spec"][kind].as_array_mut().unwrap() {
            if let Some(original) = originals.get(container["name"].as_str().unwrap()) {
                container["image"] = original.clone();
            }
        }
    }
    for volume in pod["spec"]["volumes"].as_array_mut().unwrap() {
        let name = format!("volume/{}", volume["name"].as_str().unwrap());
        if let Some(original) = originals.get(&name) {
            volume["image"]["reference"] = original.clone();
        }
    }
    pod["spec"]
        .as_object_mut()
        .unwrap()
        .remove("imagePullSecrets");
    pod["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("annotations");
    pod
}

/// What registries answer: for one image always the same, and for some that none has it.
fn said(plan: &Plan, seed: usize) -> Vec<Option<Verdict>> {
    let candidates = plan.candidates.len();
    let chosen = plan.key.bytes().map(usize::from).sum::<usize>() + seed;
    let chosen = chosen % (candidates + 1);
    let says = |at| match at == chosen {
        true => Verdict::Found,
        false => Verdict::NotFound,
    };
    (0..candidates).map(|at| Some(says(at))).collect()
}

proptest! {
    #[test]
    fn twice_is_once_and_the_annotation_undoes_it(config in config(), pod in pod(), seed in 0..4_usize) {
        let change = |pod: &Value| {
            apply(&config, pod, None, &mut |plan| Some(said(plan, seed))).unwrap_or_else(|_| pod.clone())
        };
        let once = change(&pod);
        let twice = change(&once);
        prop_assert_eq!(&twice, &once);
        if once["metadata"].get("annotations").is_some() {
            prop_assert!(once["metadata"]["annotations"][RULES].is_string());
        }
        prop_assert_eq!(undone(once), pod);
    }
}
