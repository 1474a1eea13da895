//! One node with the predecessor, modelled by what was measured of it: registries are asked one after another
//! by two GETs each, without a deadline, also for images that are there; what came of it is remembered for 30
//! minutes, failures included.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use registry::Cause;
use tokio::time::Instant;

use crate::images::Images;
use crate::places::{Asker, Place, Question, Said};
use crate::runtime::{Runtime, Source};

/// How long any outcome is remembered.
const REMEMBERED: Duration = Duration::from_secs(30 * 60);

/// The predecessor on one node.
pub struct Predecessor {
    images: Arc<Images>,
    runtime: Runtime,
    known: Mutex<HashMap<usize, (Source, Instant)>>,
}

impl Predecessor {
    /// One that has just started.
    pub fn new(images: Arc<Images>, runtime: Runtime) -> Self {
        Self {
            images,
            runtime,
            known: Mutex::default(),
        }
    }

    /// The node's runtime.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Kubelet asks whether an image is there: the name that it would be pulled by now is looked for, then
    /// the name as it was written.
    pub async fn has_image(&self, image: usize) -> bool {
        let source = self.resolve(image).await;
        self.runtime.has(image, source) || self.runtime.has(image, None)
    }

    /// Kubelet asks for an image to be pulled: from one place, and from no other where that fails.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn pull(&self, image: usize) -> Result<(), String> {
        let plan = self.images.plan(image).ok_or("no such image")?;
        let source = self.resolve(image).await;
        let candidate = source.and_then(|at| plan.candidates.get(at));
        let (host, repository) = match candidate {
            Some(candidate) => (candidate.endpoint.domain(), candidate.repository.as_str()),
            None => (plan.meaning.domain().to_owned(), plan.meaning.repository()),
        };
        let name = format!("{repository}:{}", plan.meaning.manifest());
        self.runtime.pull(image, source, &host, &name).await
    }

    async fn resolve(&self, image: usize) -> Source {
        let known = self.known.lock().get(&image).copied();
        if let Some((source, at)) = known
            && at.elapsed() < REMEMBERED
        {
            return source;
        }
        let source = self.ask(image).await;
        let now = Instant::now();
        self.known.lock().insert(image, (source, now));
        source
    }

    async fn ask(&self, image: usize) -> Source {
        let plan = self.images.plan(image)?;
        for (at, candidate) in plan.candidates.iter().enumerate() {
            let place = self.runtime.world().place(&candidate.endpoint.domain())?;
            let name = format!("{}:{}", candidate.repository, plan.meaning.manifest());
            if self.has(place, &name).await == Ok(true) {
                return Some(at);
            }
        }
        None
    }

    async fn has(&self, place: &Place, image: &str) -> Result<bool, Cause> {
        let asker = Asker::Shim;
        let spread = self.runtime.spread();
        if place.ask(Question::Alive, asker, spread).await? == Said::WantsToken {
            place.ask(Question::Token, asker, spread).await?;
        }
        let question = Question::Manifest {
            image,
            with_token: true,
        };
        Ok(place.ask(question, asker, spread).await? == Said::Yes)
    }
}
