//! The modelled site: its config, its registries, and which has which image.

use std::collections::HashSet;
use std::time::Duration;

use crate::places::PlaceModel;

/// The offline registry.
pub const OFFLINE: &str = "offline registry";
/// The company's registry.
pub const HARBOR: &str = "harbor";
/// Docker Hub.
pub const DOCKER_HUB: &str = "docker.io";
/// Another public registry, which no config names.
pub const GHCR: &str = "ghcr.io";

/// The offline registry first, then the company's, then Docker Hub for its own images.
pub const CONFIG: &str = "
address: http://sealos.hub:5000
registries:
  - address: https://harbor.corp
    priority: 800
  - address: docker.io
";

/// Without the company's registry.
pub const CONFIG_WITHOUT_HARBOR: &str = "
address: http://sealos.hub:5000
registries:
  - address: docker.io
";

/// Repositories that the images are of.
const REPOSITORIES: usize = 25;
/// Of four repositories, this one is at ghcr.io; the others are at docker.io.
const AT_GHCR: usize = 3;

/// `count` images of 25 repositories, one tag after another.
pub fn images(count: usize) -> Vec<String> {
    let name = |n| format!("{}/{}", host(n), path(n));
    (0..count).map(name).collect()
}

fn host(image: usize) -> &'static str {
    match image % REPOSITORIES % 4 {
        AT_GHCR => GHCR,
        _ => DOCKER_HUB,
    }
}

fn path(image: usize) -> String {
    let (repository, tag) = (image % REPOSITORIES, image / REPOSITORIES);
    format!("team{}/app{repository}:v{tag}", repository % 7)
}

/// The candidate of [`CONFIG`] that an image is pulled from when all places are up.
pub fn best(image: usize) -> usize {
    if image % 5 != 4 {
        0
    } else if image % REPOSITORIES != REPOSITORIES - 1 {
        1
    } else {
        2
    }
}

/// The registries of a site of `nodes` nodes: the offline one has four of five repositories, the company's
/// all but one of 25.
pub fn places(nodes: usize, images: usize) -> Vec<PlaceModel> {
    let holding = |has: &dyn Fn(usize) -> bool| -> HashSet<String> {
        (0..images).filter(|n| has(*n)).map(path).collect()
    };
    let own = |hosts, round_trip, images| PlaceModel {
        name: "",
        hosts,
        round_trip: Duration::from_millis(round_trip),
        capacity: 4.0 * nodes as f64,
        wants_tokens: false,
        images,
        refuses: Vec::new(),
        limits: Vec::new(),
    };
    let public = |hosts, images| PlaceModel {
        capacity: 1e6,
        wants_tokens: true,
        ..own(hosts, 40, images)
    };
    let offline = holding(&|n| best(n) == 0);
    let harbor = holding(&|n| best(n) != 2);
    let hub = holding(&|n| host(n) == DOCKER_HUB);
    let ghcr = holding(&|n| host(n) == GHCR);
    const HUB_HOSTS: &[&str] = &["docker.io", "registry-1.docker.io", "auth.docker.io"];
    vec![
        PlaceModel {
            name: OFFLINE,
            ..own(&["sealos.hub:5000"], 1, offline)
        },
        PlaceModel {
            name: HARBOR,
            ..own(&["harbor.corp"], 5, harbor)
        },
        PlaceModel {
            name: DOCKER_HUB,
            ..public(HUB_HOSTS, hub)
        },
        PlaceModel {
            name: GHCR,
            ..public(&["ghcr.io"], ghcr)
        },
    ]
}
