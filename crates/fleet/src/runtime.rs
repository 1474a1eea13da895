//! The modelled container runtime of one node: what it asks of a registry to pull an image, and what it has.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use policy::jitter::Jitter;
use registry::Cause;

use crate::network::World;
use crate::places::{Asker, Question, Said};

/// Requests after the first one of a pull: the index and the manifest by digest, the image's config, three
/// layers.
const REQUESTS_AFTER_FIRST: u32 = 6;
/// Requests after the first one where it is answered 429: containerd tries five times without a pause.
const RETRIES_OF_429: u32 = 4;
/// The time that layers take, without the places' own queues: half as much to half as much again.
const TRANSFER: Duration = Duration::from_secs(3);

/// Under which name an image is there: a place's, or as it was written.
pub type Source = Option<usize>;

/// A node's runtime.
#[derive(Debug)]
pub struct Runtime {
    world: Arc<World>,
    jitter: Arc<Jitter>,
    images: Mutex<HashSet<(usize, Source)>>,
}

impl Runtime {
    /// A runtime without images.
    pub fn new(world: Arc<World>, jitter: Arc<Jitter>) -> Self {
        Self {
            world,
            jitter,
            images: Mutex::default(),
        }
    }

    /// The network that it pulls over.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// A number that differs from node to node.
    pub fn spread(&self) -> f64 {
        self.jitter.next()
    }

    /// Whether the image is there under this name.
    pub fn has(&self, image: usize, source: Source) -> bool {
        self.images.lock().contains(&(image, source))
    }

    /// It has the image under this name from the beginning.
    pub fn put(&self, image: usize, source: Source) {
        self.images.lock().insert((image, source));
    }

    /// Pulls `name` (`repository:tag`) from the place at `host`.
    ///
    /// # Errors
    /// What the runtime would say.
    pub async fn pull(
        &self,
        image: usize,
        source: Source,
        host: &str,
        name: &str,
    ) -> Result<(), String> {
        let place = self
            .world
            .place(host)
            .ok_or_else(|| format!("no such host: {host}"))?;
        if place.model.wants_tokens {
            let token = place.ask(Question::Token, Asker::Runtime, self.spread());
            token.await.map_err(|cause: Cause| cause.to_string())?;
        }
        let question = Question::Manifest {
            image: name,
            with_token: true,
        };
        let said = place.ask(question, Asker::Runtime, self.spread()).await;
        match said.map_err(|cause| cause.to_string())? {
            Said::Yes => {}
            Said::No => return Err("not found".to_owned()),
            Said::WantsToken => return Err("unauthorized".to_owned()),
            Said::TooMany { .. } => {
                place.count(Asker::Runtime, RETRIES_OF_429);
                return Err("429 Too Many Requests".to_owned());
            }
        }
        let served = place.count(Asker::Runtime, REQUESTS_AFTER_FIRST);
        tokio::time::sleep_until(served + TRANSFER.mul_f64(0.5 + self.spread())).await;
        self.put(image, source);
        Ok(())
    }
}
