//! The scenarios.

use std::time::Duration;

use policy::jitter::Jitter;

use crate::following::Following;
use crate::places::Span;
use crate::scenario::{Pod, Scenario};
use crate::sites::{self, CONFIG, CONFIG_WITHOUT_HARBOR, DOCKER_HUB, OFFLINE};

/// The time within which all nodes start a pod of a new image.
const SPREAD: Duration = Duration::from_secs(30);
/// The time within which roll-outs of all images begin.
const ROLL_OUT: Duration = Duration::from_secs(600);
/// Nodes of the site that has a power cut.
const SITE: usize = 1000;
/// The time within which they boot.
const BOOT: Duration = Duration::from_secs(60);
/// Images that each of them has.
const PRESENT: usize = 40;
/// Images that each of them has not: pods that were rolled out just then.
const MISSING: usize = 2;

/// All of them, with this many nodes and images.
pub fn all(nodes: usize, images: usize) -> Vec<Scenario> {
    vec![
        roll_out(nodes, images),
        offline_restarts(nodes, images),
        limited(nodes, images),
        power_cut(nodes.min(SITE)),
    ]
}

/// Those in which nodes follow the ConfigMap.
pub fn all_following(nodes: usize) -> Vec<Following> {
    vec![
        api_server_restarts(nodes),
        power_cut_following(nodes.min(SITE)),
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

/// A site boots after a power cut: pods whose images are on the nodes, and a few whose images are not. The
/// offline registry is of the site and comes up last.
pub fn power_cut(nodes: usize) -> Scenario {
    let images = PRESENT + MISSING;
    let mut places = sites::places(nodes, images);
    for place in &mut places {
        if place.name == OFFLINE {
            place.refuses = vec![Span::seconds(0, 90)];
        }
    }
    Scenario {
        name: "power-cut",
        title: "a site boots within a minute; its offline registry is up after 90 s; 40 of 42 images are on the nodes",
        nodes,
        horizon: Duration::from_secs(600),
        config: CONFIG,
        images: sites::images(images),
        places,
        present: (0..PRESENT)
            .map(|image| (image, sites::best(image)))
            .collect(),
        pods: Box::new(move |jitter| booted(images, jitter)),
    }
}

fn booted(images: usize, jitter: &Jitter) -> Vec<Pod> {
    let boot = BOOT.mul_f64(jitter.next());
    let pods = (0..images).map(|image| Pod {
        at: boot + Duration::from_secs(10).mul_f64(jitter.next()),
        image,
    });
    let mut pods: Vec<Pod> = pods.collect();
    pods.sort_by_key(|pod| pod.at);
    pods
}

/// The same site and its API server, which is up after 45 s.
pub fn power_cut_following(nodes: usize) -> Following {
    Following {
        name: "power-cut-api",
        title: "a site boots within a minute; its API server is up after 45 s",
        nodes,
        horizon: Duration::from_secs(1200),
        boots: BOOT,
        outages: vec![Span::seconds(0, 45)],
        changes: vec![Duration::from_secs(600)],
    }
}

/// The API server is away for half a minute. The nodes have started over ten minutes before.
pub fn api_server_restarts(nodes: usize) -> Following {
    Following {
        name: "api-server",
        title: "the API server restarts: away from 1200 s to 1230 s",
        nodes,
        horizon: Duration::from_secs(2400),
        boots: Duration::from_secs(600),
        outages: vec![Span::seconds(1200, 1230)],
        changes: [1000, 1240, 2000].map(Duration::from_secs).to_vec(),
    }
}
