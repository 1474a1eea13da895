//! `rewrite: best`, against registries that can be told what to have.

use serde_json::{Value, json};
use testkit::fake_registry::FakeRegistry;
use testkit::images::Image;
use webhook::Limits;

use crate::world::{World, fixture};

fn config(registries: &[&FakeRegistry]) -> String {
    let entries: Vec<_> = registries
        .iter()
        .enumerate()
        .map(|(at, registry)| {
            format!(
                "{{address: '{}', priority: {}, pullSecret: of-{at}}}",
                registry.url(),
                900 - at
            )
        })
        .collect();
    format!(
        "rewrite: best\nprobeTimeout: 300ms\nregistries: [{}]\n\
         imageRedirMapping: [{{src: docker.io, to: 'http://127.0.0.1:9/m'}}]\n",
        entries.join(", ")
    )
}

fn review(image: &str) -> Value {
    let mut review = fixture("create");
    let spec = &mut review["request"]["object"]["spec"];
    spec["containers"] = json!([{"name": "c", "image": image}]);
    spec["initContainers"] = json!([]);
    spec["volumes"] = json!([]);
    review
}

fn image_of(pod: &Value) -> &Value {
    &pod["spec"]["containers"][0]["image"]
}

#[tokio::test]
async fn the_first_registry_that_has_it() {
    let (without, with) = (
        FakeRegistry::start().unwrap(),
        FakeRegistry::start().unwrap(),
    );
    with.add(&Image::new("nats"), "library/nats", "2");
    let world = World::start(&config(&[&without, &with]), Limits::default()).await;
    let pod = world.admitted(&review("nats:2")).await;
    assert_eq!(*image_of(&pod), format!("{}/library/nats:2", with.host()));
    assert_eq!(
        pod["spec"]["imagePullSecrets"],
        json!([{"name": "dockerhub"}, {"name": "of-1"}])
    );
    assert_eq!(
        pod["metadata"]["annotations"]["image-cri-shim/rules"],
        r#"{"c":"registries[2]"}"#
    );
    assert!(!without.requests().is_empty());

    // A later call for the same Pod asks nobody and changes nothing.
    let asked = with.requests().len();
    let mut again = review("nats:2");
    again["request"]["object"] = pod.clone();
    assert_eq!(world.admitted(&again).await, pod);
    assert_eq!(with.requests().len(), asked);
}

#[tokio::test]
async fn nothing_found_leaves_the_redirect_or_the_original() {
    let empty = FakeRegistry::start().unwrap();
    let world = World::start(&config(&[&empty]), Limits::default()).await;
    let pod = world.admitted(&review("nats:2")).await;
    assert_eq!(*image_of(&pod), "127.0.0.1:9/m/nats:2");
    let other = review("ghcr.io/team/app:1");
    assert_eq!(world.review(&other).await.get("patch"), None);
}

#[tokio::test]
async fn registries_that_never_answer_cost_no_more_than_the_review_has() {
    let hole = FakeRegistry::start().unwrap();
    hole.set_black_hole(true);
    let limits = Limits {
        // Shorter than any probe's deadline.
        answer_timeout: std::time::Duration::from_millis(100),
        ..Limits::default()
    };
    let world = World::start(&config(&[&hole]), limits).await;
    let pod = world.admitted(&review("nats:2")).await;
    assert_eq!(*image_of(&pod), "127.0.0.1:9/m/nats:2");
}

#[tokio::test]
async fn redirect_mode_asks_nobody() {
    let registry = FakeRegistry::start().unwrap();
    registry.add(&Image::new("nats"), "library/nats", "2");
    let config = config(&[&registry]).replace("rewrite: best", "rewrite: redirect");
    let world = World::start(&config, Limits::default()).await;
    let pod = world.admitted(&review("nats:2")).await;
    assert_eq!(*image_of(&pod), "127.0.0.1:9/m/nats:2");
    assert!(registry.requests().is_empty());
}
