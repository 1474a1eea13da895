//! Reviews in, Pods out.

use serde_json::{Value, json};
use testkit::admission::operations;
use webhook::Limits;

use crate::world::{CONFIG, World, fixture};

const MIRROR: &str = "project-a.azurecr.io/docker-mirror";

async fn world() -> World {
    World::start(CONFIG, Limits::default()).await
}

#[tokio::test]
async fn a_pod_of_a_deployment_is_changed_where_it_should_be_and_nowhere_else() {
    let world = world().await;
    let review = fixture("create");
    let mut expected = review["request"]["object"].clone();
    expected["spec"]["containers"][0]["image"] = json!(format!("{MIRROR}/nats:2.10.26-alpine"));
    expected["spec"]["initContainers"][0]["image"] = json!("q.io/m/istio/proxy:1.2");
    expected["spec"]["volumes"][0]["image"]["reference"] =
        json!(format!("{MIRROR}/bitnami/models:7"));
    expected["spec"]["imagePullSecrets"] = json!([{"name": "dockerhub"}, {"name": "mirror"}]);
    expected["metadata"]["annotations"]["image-cri-shim/original-images"] = json!(
        r#"{"nats":"nats:2.10.26-alpine","proxy":"quay.io/istio/proxy:1.2","volume/models":"bitnami/models:7"}"#
    );
    expected["metadata"]["annotations"]["image-cri-shim/rules"] =
        json!(r#"{"nats":"hub","proxy":"imageRedirMapping[2]","volume/models":"hub"}"#);
    assert_eq!(world.admitted(&review).await, expected);

    let response = world.review(&review).await;
    assert_eq!(
        response["auditAnnotations"]["rules"],
        r#"{"nats":"hub","proxy":"imageRedirMapping[2]","volume/models":"hub"}"#
    );
}

#[tokio::test]
async fn reinvocation_after_another_mutation() {
    let world = world().await;
    let mut review = fixture("create");
    let once = world.admitted(&review).await;
    review["request"]["object"] = once.clone();
    assert!(world.review(&review).await.get("patch").is_none());

    // A sidecar injector came in between.
    let sidecar = json!({"name": "istio", "image": "docker.io/istio/proxyv2:1"});
    let containers = review["request"]["object"]["spec"]["containers"].as_array_mut();
    containers.unwrap().push(sidecar);
    let twice = world.admitted(&review).await;
    let mut expected = review["request"]["object"].clone();
    expected["spec"]["containers"][2]["image"] = json!(format!("{MIRROR}/istio/proxyv2:1"));
    let note = |pod: &Value, name: &str| -> Value {
        let text = pod["metadata"]["annotations"][name].as_str().unwrap();
        serde_json::from_str(text).unwrap()
    };
    let mut originals = note(&once, "image-cri-shim/original-images");
    originals["istio"] = json!("docker.io/istio/proxyv2:1");
    let mut rules = note(&once, "image-cri-shim/rules");
    rules["istio"] = json!("hub");
    expected["metadata"]["annotations"]["image-cri-shim/original-images"] =
        json!(originals.to_string());
    expected["metadata"]["annotations"]["image-cri-shim/rules"] = json!(rules.to_string());
    assert_eq!(twice, expected);
}

#[tokio::test]
async fn ephemeral_containers_that_are_new() {
    let world = world().await;
    let review = fixture("ephemeral");
    let mut expected = review["request"]["object"].clone();
    expected["spec"]["ephemeralContainers"][1]["image"] = json!(format!("{MIRROR}/busybox:2"));
    expected["metadata"]["annotations"] = json!({
        "image-cri-shim/original-images": r#"{"debugger-2":"busybox:2"}"#,
        "image-cri-shim/rules": r#"{"debugger-2":"hub"}"#,
    });
    assert_eq!(world.admitted(&review).await, expected);
}

#[tokio::test]
async fn what_is_not_ours_is_allowed_unchanged() {
    let world = world().await;
    type Spoil = fn(&mut Value);
    let cases: [(&str, Spoil); 14] = [
        ("another kind", |r| r["kind"]["kind"] = json!("Deployment")),
        ("another group", |r| {
            r["kind"]["group"] = json!("example.com")
        }),
        ("no kind", |r| r["kind"] = json!({})),
        ("DELETE", |r| r["operation"] = json!("DELETE")),
        ("UPDATE of what nobody knows", |r| {
            r["operation"] = json!("UPDATE");
        }),
        ("a subresource", |r| r["subResource"] = json!("status")),
        ("kube-system", |r| r["namespace"] = json!("kube-system")),
        ("its own namespace", |r| {
            r["namespace"] = json!("image-cri-shim")
        }),
        ("no object", |r| r["object"] = json!(null)),
        ("no spec", |r| r["object"] = json!({"metadata": {}})),
        ("an object that is no object", |r| {
            r["object"] = json!("pod")
        }),
        ("containers that are none", |r| {
            r["object"]["spec"]["containers"] = json!({"a": 1})
        }),
        ("an image that is a number", |r| {
            r["object"]["spec"]["containers"][0]["image"] = json!(7);
        }),
        ("opted out", |r| {
            r["object"]["metadata"]["labels"]["image-cri-shim/rewrite"] = json!("false");
        }),
    ];
    let count = cases.len();
    for (what, spoil) in cases {
        let mut review = fixture("create");
        spoil(&mut review["request"]);
        let response = world.review(&review).await;
        assert_eq!(response.get("patch"), None, "{what}");
    }
    // Without what was there before, an update can't be judged.
    let mut review = fixture("ephemeral");
    review["request"]["oldObject"] = json!(null);
    assert_eq!(world.review(&review).await.get("patch"), None);
    let counted = world.counted("image_cri_shim_reviews_total");
    let unchanged = format!(
        r#"image_cri_shim_reviews_total{{result="unchanged"}} {}"#,
        count + 1
    );
    assert!(counted.contains(&unchanged), "{counted:?}");
}

#[tokio::test]
async fn what_is_no_review_is_a_bad_request() {
    let world = world().await;
    let mut wrong_version = fixture("create");
    wrong_version["apiVersion"] = json!("admission.k8s.io/v1beta1");
    let mut no_uid = fixture("create");
    no_uid["request"].as_object_mut().unwrap().remove("uid");
    let text = fixture("create").to_string();
    for (body, message) in [
        (String::new(), "no AdmissionReview"),
        ("{".to_owned(), "no AdmissionReview"),
        (text[..text.len() / 2].to_owned(), "no AdmissionReview"),
        ("[]".to_owned(), "expected kind `AdmissionReview`"),
        ("{}".to_owned(), "expected kind `AdmissionReview`"),
        (
            r#"{"kind":"Pod","apiVersion":"v1"}"#.to_owned(),
            "got `Pod` of `v1`",
        ),
        (
            wrong_version.to_string(),
            "got `AdmissionReview` of `admission.k8s.io/v1beta1`",
        ),
        (no_uid.to_string(), "no `request.uid`"),
        (
            r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#.to_owned(),
            "no `request.uid`",
        ),
        ("[".repeat(100_000), "no AdmissionReview"),
    ] {
        let response = world.post(body).await;
        assert_eq!(response.status(), 400);
        let text = response.text().await.unwrap();
        assert!(text.contains(message), "{text}");
    }
}

#[tokio::test]
async fn a_dry_run_gets_the_patch_and_leaves_no_trace() {
    let world = world().await;
    let mut review = fixture("create");
    let real = world.admitted(&review).await;
    let before = world.counted("image_cri_shim");
    assert!(
        before.contains(&r#"image_cri_shim_reviews_total{result="patched"} 1"#.to_owned())
            && before
                .iter()
                .any(|line| line.starts_with(r#"image_cri_shim_images_moved_total{rule="hub"}"#)),
        "{before:?}"
    );
    review["request"]["dryRun"] = json!(true);
    assert_eq!(world.admitted(&review).await, real);
    assert_eq!(world.counted("image_cri_shim"), before);
}

#[tokio::test]
async fn five_hundred_containers() {
    let world = world().await;
    let mut review = fixture("create");
    let containers: Vec<_> = (0..500)
        .map(|n| json!({"name": format!("c{n}"), "image": format!("team/app-{n}:1")}))
        .collect();
    let spec = &mut review["request"]["object"]["spec"];
    spec["initContainers"] = json!([]);
    spec["containers"] = json!(containers);
    let admitted = world.admitted(&review).await;
    for n in 0..500 {
        assert_eq!(
            admitted["spec"]["containers"][n]["image"],
            format!("{MIRROR}/team/app-{n}:1")
        );
    }
}

#[tokio::test]
async fn more_than_five_hundred_containers_are_admitted_as_they_are() {
    let world = world().await;
    let mut review = fixture("create");
    for count in [501, 90_000] {
        let container = json!({"name": "c", "image": "a"});
        review["request"]["object"]["spec"]["containers"] = json!(vec![container; count]);
        assert_eq!(world.review(&review).await.get("patch"), None, "{count}");
    }
}

#[tokio::test]
async fn another_image_on_a_running_pod() {
    let world = world().await;
    let mut review = fixture("create");
    let old = world.admitted(&review).await;
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = json!("nats:3");
    let request = &mut review["request"];
    request["operation"] = json!("UPDATE");
    request["name"] = json!("nats-0");
    request["oldObject"] = old;
    request["object"] = new.clone();
    let admitted = world.admitted(&review).await;
    new["spec"]["containers"][0]["image"] = json!(format!("{MIRROR}/nats:3"));
    let mut originals: Value = serde_json::from_str(
        new["metadata"]["annotations"]["image-cri-shim/original-images"]
            .as_str()
            .unwrap(),
    )
    .unwrap();
    originals["nats"] = json!("nats:3");
    new["metadata"]["annotations"]["image-cri-shim/original-images"] = json!(originals.to_string());
    assert_eq!(admitted, new);
    // A status, or a field that is none of ours, is not looked at any further.
    review["request"]["object"] = review["request"]["oldObject"].clone();
    assert_eq!(world.review(&review).await.get("patch"), None);
}

#[tokio::test]
async fn what_will_be_counted_is_there_from_the_beginning() {
    let world = world().await;
    for line in [
        r#"image_cri_shim_reviews_total{result="patched"} 0"#,
        r#"image_cri_shim_reviews_total{result="unchanged"} 0"#,
        r#"image_cri_shim_reviews_total{result="refused"} 0"#,
        r#"image_cri_shim_images_moved_total{rule="hub"} 0"#,
        r#"image_cri_shim_images_moved_total{rule="imageRedirMapping[2]"} 0"#,
        "image_cri_shim_review_duration_seconds_count 0",
    ] {
        let counted = world.counted("image_cri_shim");
        assert!(
            counted
                .iter()
                .any(|l| l == line || l.replace("{}", "") == line),
            "{line}: {counted:?}"
        );
    }
    // A body that can't be read is one that was refused.
    let before = world.post("{").await.status();
    assert_eq!(before, 400);
    let counted = world.counted("image_cri_shim_reviews_total{result=\"refused\"}");
    assert!(counted[0].ends_with(" 1"), "{counted:?}");
}

#[tokio::test]
async fn a_pod_of_three_mebibytes() {
    let world = world().await;
    let mut review = fixture("create");
    let big = "x".repeat(3 << 20);
    review["request"]["object"]["spec"]["containers"][0]["env"][0]["value"] = json!(big);
    let response = world.review(&review).await;
    let patch = response["patch"].as_str().unwrap();
    // The answer holds what changes, not the Pod.
    assert!(patch.len() < 4096, "{}", patch.len());
    let admitted = world.admitted(&review).await;
    assert_eq!(
        admitted["spec"]["containers"][0]["image"],
        format!("{MIRROR}/nats:2.10.26-alpine")
    );
}

#[tokio::test]
async fn an_update_of_a_pod_of_three_mebibytes() {
    let world = world().await;
    let mut review = fixture("ephemeral");
    let env = json!([{"name": "BIG", "value": "x".repeat(3 << 20)}]);
    for object in ["object", "oldObject"] {
        review["request"][object]["spec"]["containers"][0]["env"] = env.clone();
    }
    let admitted = world.admitted(&review).await;
    let moved = &admitted["spec"]["ephemeralContainers"][1]["image"];
    assert_eq!(*moved, format!("{MIRROR}/busybox:2"));
}

#[tokio::test]
async fn fields_of_a_newer_api_server_are_passed_over() {
    let world = world().await;
    let review = fixture("create");
    let patch = operations(&world.review(&review).await).unwrap();
    let mut newer = review.clone();
    for place in [
        "",
        "/request",
        "/request/object",
        "/request/object/metadata",
        "/request/object/spec",
        "/request/object/spec/containers/0",
        "/request/object/spec/volumes/0/image",
    ] {
        let place = newer.pointer_mut(place).unwrap();
        place["fromTheFuture"] = json!({"any": [1, null, "thing"]});
    }
    let response = world.review(&newer).await;
    assert_eq!(operations(&response).unwrap(), patch);
}

#[tokio::test]
async fn a_new_config_holds_from_the_next_review_on() {
    let world = world().await;
    let review = fixture("create");
    let new =
        "imageRedirMapping: [{src: docker.io, to: other.io}]\ncache: {prefix: 'localhost:7439'}";
    world.admission.apply(crate::world::settings(new));
    let admitted = world.admitted(&review).await;
    assert_eq!(
        admitted["spec"]["containers"][0]["image"],
        "localhost:7439/other.io/nats:2.10.26-alpine"
    );
    // The cache is for all images, not for those that a rule moves only.
    assert_eq!(
        admitted["spec"]["initContainers"][0]["image"],
        "localhost:7439/quay.io/istio/proxy:1.2"
    );
}
