//! `rewrite: best`, against registries that can be told what to have.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::admission::{admitted, ask, client_as};
use testkit::certs::{Ca, ServerCert};
use testkit::fake_registry::{Behaviour, FakeRegistry};
use testkit::images::Image;
use testkit::wait::until;
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

/// Only a 404 rules a redirect's target out (rule 4), as it does for a pull by the shim.
#[tokio::test]
async fn a_redirect_to_where_the_image_is_not_leaves_the_original() {
    let target = FakeRegistry::start().unwrap();
    target.add(&Image::new("nats"), "m/nats", "2");
    let config = format!(
        "rewrite: best\nimageRedirMapping: [{{src: docker.io, to: '{}/m'}}]\n",
        target.url()
    );
    let world = World::start(&config, Limits::default()).await;
    let pod = world.admitted(&review("nats:2")).await;
    assert_eq!(*image_of(&pod), format!("{}/m/nats:2", target.host()));
    assert_eq!(world.review(&review("nats:3")).await.get("patch"), None);
    target.behave_for("m/nats", Behaviour::CaptivePortal);
    let pod = world.admitted(&review("nats:4")).await;
    assert_eq!(*image_of(&pod), format!("{}/m/nats:4", target.host()));
}

#[tokio::test]
async fn registries_that_never_answer_cost_no_more_than_the_review_has() {
    let hole = FakeRegistry::start().unwrap();
    hole.set_black_hole(true);
    let limits = Limits {
        // Shorter than any probe's deadline.
        answer_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let world = World::start(&config(&[&hole]), limits).await;
    let pod = world.admitted(&review("nats:2")).await;
    assert_eq!(*image_of(&pod), "127.0.0.1:9/m/nats:2");
}

/// With one registry that never answers before one that has the image, and more time for a probe than for
/// a review.
#[tokio::test]
async fn what_is_known_when_the_time_is_over_is_used_and_the_search_goes_on() {
    let (hole, with) = (
        FakeRegistry::start().unwrap(),
        FakeRegistry::start().unwrap(),
    );
    hole.set_black_hole(true);
    with.add(&Image::new("nats"), "library/nats", "2");
    let limits = Limits {
        answer_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let config = config(&[&hole, &with]).replace("300ms", "2s");
    let world = World::start(&config, limits).await;
    let pod = world.admitted(&review("nats:2")).await;
    // Found, and not dropped for the redirect because a better place is silent.
    assert_eq!(*image_of(&pod), format!("{}/library/nats:2", with.host()));
    // Nobody waits any more, and the silent one is found out all the same.
    let silent = |line: &str| line.contains(&hole.host()) && !line.ends_with(" 0");
    until("the search has ended by itself", || async {
        let counted = world.counted("image_cri_shim_probes_total");
        counted.iter().any(|line| silent(line)).then_some(())
    })
    .await;
    // (Whether it is alive at all may be asked meanwhile, but not for this image.)
    let manifests = || {
        let requests = hole.requests().into_iter();
        let requests = requests.filter(|r| format!("{r:?}").contains("manifests"));
        requests.count()
    };
    let asked = manifests();
    let pod = world.admitted(&review("nats:2")).await;
    assert_eq!(*image_of(&pod), format!("{}/library/nats:2", with.host()));
    assert_eq!(manifests(), asked);
}

fn dry_run(image: &str) -> Value {
    let mut review = review(image);
    review["request"]["dryRun"] = json!(true);
    review
}

#[tokio::test]
async fn a_dry_run_of_anybody_asks_nobody() {
    let registry = FakeRegistry::start().unwrap();
    registry.add(&Image::new("nats"), "library/nats", "2");
    let world = World::start(&config(&[&registry]), Limits::default()).await;
    let pod = world.admitted(&dry_run("nats:2")).await;
    assert_eq!(*image_of(&pod), "127.0.0.1:9/m/nats:2");
    assert!(registry.requests().is_empty());
    // And learns nothing of what is known.
    world.admitted(&review("nats:2")).await;
    assert!(!registry.requests().is_empty());
    let pod = world.admitted(&dry_run("nats:2")).await;
    assert_eq!(*image_of(&pod), "127.0.0.1:9/m/nats:2");
}

#[tokio::test]
async fn with_a_client_ca_registries_are_asked_for_api_servers_only() {
    let registry = FakeRegistry::start().unwrap();
    registry.add(&Image::new("nats"), "library/nats", "2");
    let (clients, others) = (Ca::new().unwrap(), Ca::new().unwrap());
    let config = config(&[&registry]);
    let world = World::for_api_servers(&config, &clients, "kube-apiserver").await;
    let found = format!("{}/library/nats:2", registry.host());
    let answer = async |certificate: Option<ServerCert>, review: &Value| {
        let protocols: [&[u8]; 2] = [b"h2", b"http/1.1"];
        let client = client_as(
            world.address,
            &[&world.ca],
            &protocols,
            certificate.as_ref(),
        );
        let response = ask(&client.unwrap(), review).await.ok()?;
        let pod = admitted(review, &response).unwrap();
        Some(image_of(&pod).as_str().unwrap().to_owned())
    };
    let kubelet = clients.issue_client("system:node:n1").unwrap();
    let forged = others.issue_client("kube-apiserver").unwrap();
    for stranger in [None, Some(kubelet.clone()), Some(forged.clone())] {
        for review in [review("nats:2"), dry_run("nats:2")] {
            let image = answer(stranger.clone(), &review).await;
            assert_eq!(image.as_deref(), Some("127.0.0.1:9/m/nats:2"));
        }
    }
    assert!(registry.requests().is_empty());
    // Those who have shown one: two reviews of a kubelet, two of a forger.
    let counted = || world.counted("image_cri_shim_client_certificates_refused_total");
    assert_eq!(
        counted(),
        ["image_cri_shim_client_certificates_refused_total{} 4"]
    );
    let server = || Some(clients.issue_client("kube-apiserver").unwrap());
    for review in [dry_run("nats:2"), review("nats:2")] {
        assert_eq!(answer(server(), &review).await.as_ref(), Some(&found));
    }
    // What is known by now is not for strangers either.
    let image = answer(Some(kubelet), &review("nats:2")).await;
    assert_eq!(image.as_deref(), Some("127.0.0.1:9/m/nats:2"));
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
