//! Admission reviews.

use std::sync::LazyLock;

use policy::config::Settings;
use policy::pod::{Draft, Operation, Pod, PodSettings};
use serde_json::{Map, Value};

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let file = "rewrite: redirect\ncache: {prefix: 'localhost:7439', images: moved}\n\
        imageRedirMapping: [{src: docker.io/, to: a.azurecr.io/m/, pullSecret: s}, {src: quay.io/, to: q.io/m}]\n";
    let (settings, findings) = Settings::read(file, &|_| None);
    assert!(
        findings.iter().all(|finding| !finding.is_error()),
        "{findings:?}"
    );
    settings
});

/// A patch applies, changes only what it may, and a second one changes nothing.
pub(crate) fn review(data: &[u8]) {
    let Ok(before) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    let Some(once) = patched(&before) else {
        return;
    };
    assert_eq!(
        without_what_may_change(&once),
        without_what_may_change(&before)
    );
    assert!(patched(&once).is_none_or(|twice| twice == once));
}

/// The Pod with its patch applied; None where there is no Pod, or no patch.
fn patched(pod: &Value) -> Option<Value> {
    let typed: Pod = serde_json::from_value(pod.clone()).ok()?;
    let options = PodSettings::new(&SETTINGS.webhook, Some("image-cri-shim"));
    let draft = Draft::new(
        &typed,
        "default",
        Operation::Create,
        &SETTINGS.rules,
        &options,
    )
    .ok()?;
    let patch = draft.patch(&[])?;
    let json = patch.to_json().expect("a patch is JSON")?;
    let operations: json_patch::Patch = serde_json::from_slice(&json).expect("a patch is a patch");
    let mut changed = pod.clone();
    json_patch::patch(&mut changed, &operations).expect("the patch applies");
    Some(changed)
}

fn without_what_may_change(pod: &Value) -> Value {
    let mut pod = pod.clone();
    if let Some(object) = pod.as_object_mut() {
        // Annotations of a Pod without metadata need some.
        let metadata = object.entry("metadata").or_insert(Value::Null);
        if metadata.is_null() {
            *metadata = Value::Object(Map::new());
        }
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.remove("annotations");
        }
    }
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else {
        return pod;
    };
    spec.remove("imagePullSecrets");
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec
            .get_mut(kind)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(container) = container.as_object_mut() {
                container.remove("image");
            }
        }
    }
    for volume in spec
        .get_mut("volumes")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(image) = volume.get_mut("image").and_then(Value::as_object_mut) {
            image.remove("reference");
        }
    }
    pod
}
