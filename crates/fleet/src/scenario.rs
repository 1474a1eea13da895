//! What a run is made of, and running it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use policy::jitter::Jitter;
use tokio::time::Instant;

use crate::images::Images;
use crate::kubelet::Node;
use crate::meter::{Series, Waits};
use crate::network::World;
use crate::places::{Asker, PlaceModel};
use crate::predecessor::Predecessor;
use crate::runtime::Runtime;
use crate::shim::Shim;

/// What stands between kubelet and the runtime on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// The product.
    Ours,
    /// The predecessor.
    Predecessor,
}

/// A pod that wants an image.
#[derive(Clone, Copy, Debug)]
pub struct Pod {
    /// When, since the start of the run.
    pub at: Duration,
    /// Which.
    pub image: usize,
}

/// The pods of one node, from numbers of its own.
pub type Schedule = dyn Fn(&Jitter) -> Vec<Pod>;

/// What happens to a fleet.
pub struct Scenario {
    /// Its name on the command line and in file names.
    pub name: &'static str,
    /// One line for people.
    pub title: &'static str,
    /// Nodes.
    pub nodes: usize,
    /// How long it is followed.
    pub horizon: Duration,
    /// The config of every node.
    pub config: &'static str,
    /// The images, as pods name them.
    pub images: Vec<String>,
    /// Where images come from.
    pub places: Vec<PlaceModel>,
    /// Images that every node has at the start, with the candidate that each came from.
    pub present: Vec<(usize, usize)>,
    /// The pods of one node, by their times.
    pub pods: Box<Schedule>,
}

/// What one place was asked.
#[derive(Clone, Debug, PartialEq)]
pub struct PlaceLoad {
    /// The place's name.
    pub name: &'static str,
    /// By the program between kubelet and the runtime.
    pub shim: Series,
    /// By the runtime.
    pub runtime: Series,
}

/// What a run has shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Each place's load.
    pub places: Vec<PlaceLoad>,
    /// How long pods have waited.
    pub waits: Waits,
}

impl Outcome {
    /// The load of one place.
    pub fn place(&self, name: &str) -> Option<&PlaceLoad> {
        self.places.iter().find(|place| place.name == name)
    }
}

/// Runs a scenario on virtual time. The same seed gives the same outcome.
///
/// # Errors
/// The scenario's config or images have mistakes, or no tokio runtime can be made.
pub fn run(scenario: &Scenario, behaviour: Behaviour, seed: u64) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .context("the simulation's tokio runtime")?;
    runtime.block_on(simulate(scenario, behaviour, seed))
}

async fn simulate(scenario: &Scenario, behaviour: Behaviour, seed: u64) -> Result<Outcome> {
    let start = Instant::now();
    let images = Arc::new(Images::new(scenario.config, &scenario.images)?);
    let world = Arc::new(World::new(scenario.places.clone()));
    let waits = Arc::new(Mutex::new(Waits::default()));
    let seeds = Jitter::from_seed(seed);
    for _ in 0..scenario.nodes {
        let jitter = Arc::new(Jitter::from_seed(seeds.bits()));
        let pods = (scenario.pods)(&jitter);
        let runtime = Runtime::new(Arc::clone(&world), Arc::clone(&jitter));
        for (image, source) in &scenario.present {
            runtime.put(*image, Some(*source));
        }
        let images = Arc::clone(&images);
        let node = match behaviour {
            Behaviour::Ours => Node::Shim(Box::new(Shim::new(images, runtime, &jitter))),
            Behaviour::Predecessor => Node::Predecessor(Predecessor::new(images, runtime)),
        };
        tokio::spawn(live(Arc::new(node), pods, start, Arc::clone(&waits)));
    }
    tokio::time::sleep_until(start + scenario.horizon).await;
    let places = world.places().iter().map(|place| PlaceLoad {
        name: place.model.name,
        shim: place.series(Asker::Shim),
        runtime: place.series(Asker::Runtime),
    });
    Ok(Outcome {
        places: places.collect(),
        waits: waits.lock().clone(),
    })
}

/// The life of one node: its pods, each when its time has come.
async fn live(node: Arc<Node>, pods: Vec<Pod>, start: Instant, waits: Arc<Mutex<Waits>>) {
    for pod in pods {
        tokio::time::sleep_until(start + pod.at).await;
        let (node, waits) = (Arc::clone(&node), Arc::clone(&waits));
        tokio::spawn(async move { node.start_pod(pod.image, &waits).await });
    }
    // A node goes on trying the registries that have failed.
    std::future::pending::<()>().await;
    drop(node);
}
