//! A fleet that follows the ConfigMap: through the product's own loop, or as the predecessor does.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use cluster::{ClientProvider, follow_config_map};
use parking_lot::Mutex;
use policy::jitter::Jitter;
use tokio::time::Instant;

use crate::api_server::{ApiLoad, ApiServer};
use crate::meter::Waits;
use crate::places::Span;
use crate::scenario::Behaviour;

/// `reloadInterval`, and how often the predecessor asks.
const INTERVAL: Duration = Duration::from_secs(15);

/// What happens to a fleet that follows the ConfigMap.
pub struct Following {
    /// Its name on the command line and in file names.
    pub name: &'static str,
    /// One line for people.
    pub title: &'static str,
    /// Nodes.
    pub nodes: usize,
    /// How long it is followed.
    pub horizon: Duration,
    /// The time within which all nodes start.
    pub boots: Duration,
    /// When the API server is away.
    pub outages: Vec<Span>,
    /// When the ConfigMap is changed.
    pub changes: Vec<Duration>,
}

/// What a run has shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Followed {
    /// What the API server was asked.
    pub load: ApiLoad,
    /// For each change, how long it took to reach the nodes that were up.
    pub lags: Vec<Waits>,
}

/// Runs on virtual time. The same seed gives the same outcome.
///
/// # Errors
/// No tokio runtime can be made.
pub fn run(following: &Following, behaviour: Behaviour, seed: u64) -> Result<Followed> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .context("the simulation's tokio runtime")?;
    Ok(runtime.block_on(simulate(following, behaviour, seed)))
}

/// When each change was made, and how long each took.
struct Changes {
    made: Vec<Instant>,
    lags: Mutex<Vec<Waits>>,
}

impl Changes {
    /// A node knows the ConfigMap's version `new`, and knew `known`.
    fn note(&self, known: u64, new: u64) {
        let now = Instant::now();
        let mut lags = self.lags.lock();
        // Version 1 is there from the start.
        for change in known.max(1)..new {
            let at = usize::try_from(change - 1).unwrap_or(usize::MAX);
            if let (Some(made), Some(waits)) = (self.made.get(at), lags.get_mut(at)) {
                waits.unfinished = waits.unfinished.saturating_sub(1);
                waits.note(now.saturating_duration_since(*made));
            }
        }
    }
}

async fn simulate(following: &Following, behaviour: Behaviour, seed: u64) -> Followed {
    let start = Instant::now();
    let server = ApiServer::new(following.outages.clone());
    let waiting = Waits::of(following.nodes as u64);
    let changes = Arc::new(Changes {
        made: following.changes.iter().map(|at| start + *at).collect(),
        lags: Mutex::new(vec![waiting; following.changes.len()]),
    });
    let seeds = Jitter::from_seed(seed);
    for _ in 0..following.nodes {
        let jitter = Arc::new(Jitter::from_seed(seeds.bits()));
        let boot = start + following.boots.mul_f64(jitter.next());
        let (server, changes) = (Arc::clone(&server), Arc::clone(&changes));
        tokio::spawn(async move {
            tokio::time::sleep_until(boot).await;
            match behaviour {
                Behaviour::Ours => follow(&server, &jitter, &changes).await,
                Behaviour::Predecessor => poll(&server, &jitter, &changes).await,
            }
        });
    }
    let cutting = Arc::clone(&server);
    tokio::spawn(async move { cutting.cut_watches().await });
    for made in &changes.made {
        tokio::time::sleep_until(*made).await;
        server.change();
    }
    tokio::time::sleep_until(start + following.horizon).await;
    let lags = changes.lags.lock().clone();
    Followed {
        load: server.load(),
        lags,
    }
}

/// The product's way.
async fn follow(server: &Arc<ApiServer>, jitter: &Arc<Jitter>, changes: &Changes) {
    let (reached, distance) = (Arc::clone(server), Arc::clone(jitter));
    let clients = ClientProvider::connected_by(move || reached.client(&distance))
        .spread_by(Jitter::from_seed(jitter.bits()));
    let mut followed = follow_config_map(Arc::new(clients), Arc::new(|| INTERVAL));
    let mut known = 0;
    loop {
        followed.changed().await;
        let text = followed.take_snapshot().value.and_then(|value| value.text);
        let version = text.and_then(|text| text.trim_start_matches("# ").parse().ok());
        if let Some(new) = version {
            changes.note(known, new);
            known = new;
        }
    }
}

/// The predecessor's.
async fn poll(server: &ApiServer, jitter: &Jitter, changes: &Changes) {
    let mut ticks = tokio::time::interval(INTERVAL);
    let mut known = 0;
    loop {
        ticks.tick().await;
        if let Ok(new) = server.version(jitter.next()).await {
            changes.note(known, new);
            known = new;
        }
    }
}
