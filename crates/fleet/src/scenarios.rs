//! The scenarios.

use std::time::Duration;

use policy::jitter::Jitter;

use crate::places::Span;
use crate::scenario::{Pod, Scenario};
use crate::sites::{self, CONFIG, CONFIG_WITHOUT_HARBOR, DOCKER_HUB, OFFLINE};

/// The time within which all nodes start a pod of a new image.
const SPREAD: Duration = Duration::from_secs(30);
/// The time within which roll-outs of all images begin.
const ROLL_OUT: Duration = Duration::from_secs(600);

/// All of them, with this many nodes and images.
pub fn all(nodes: usize, images: usize) -> Vec<Scenario> {
    vec![
        roll_out(nodes, images),
        offline_restarts(nodes, images),
        limited(nodes, images),
    ]
}

/// Every node gets a pod of each image; one image's roll-out begins after another's.
pub fn roll_out(nodes: usize, images: usize) -> Scenario {
    Scenario {
        name: "roll-out",
        title: "images are rolled out to all nodes, one after another, within 10 minutes",
        nodes,
        horizon: ROLL_OUT + Duration::from_secs(120),
        config: CONFIG,
        images: sites::images(images),
        places: sites::places(nodes, images),
        present: Vec::new(),
        pods: Box::new(move |jitter| rolled_out(images, jitter)),
    }
}

fn rolled_out(images: usize, jitter: &Jitter) -> Vec<Pod> {
    let begins = |image| ROLL_OUT.mul_f64(image as f64 / images as f64);
    let pods = (0..images).map(|image| Pod {
        at: begins(image) + SPREAD.mul_f64(jitter.next()),
        image,
    });
    let mut pods: Vec<Pod> = pods.collect();
    pods.sort_by_key(|pod| pod.at);
    pods
}

/// The offline registry is away for two minutes in the middle of such a roll-out.
pub fn offline_restarts(nodes: usize, images: usize) -> Scenario {
    let mut scenario = Scenario {
        name: "restart",
        title: "the offline registry restarts in the middle of a roll-out: away from 200 s to 320 s",
        ..roll_out(nodes, images)
    };
    for place in &mut scenario.places {
        if place.name == OFFLINE {
            place.refuses = vec![Span::seconds(200, 320)];
        }
    }
    scenario
}

/// Docker Hub answers 429 for ten minutes. No other place has what the offline registry lacks.
pub fn limited(nodes: usize, images: usize) -> Scenario {
    let mut scenario = Scenario {
        name: "limited",
        title: "docker.io answers 429 with `Retry-After: 60` from 60 s to 660 s of a roll-out",
        config: CONFIG_WITHOUT_HARBOR,
        horizon: Duration::from_secs(1200),
        ..roll_out(nodes, images)
    };
    for place in &mut scenario.places {
        if place.name == DOCKER_HUB {
            let retry_after = Some(Duration::from_secs(60));
            place.limits = vec![(Span::seconds(60, 660), retry_after)];
        }
    }
    scenario
}
