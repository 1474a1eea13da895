//! `rewrite: best`: who has an image, as far as that is known in time.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use policy::Plan;
use policy::pod::PodImage;
use resolver::{Depth, Resolver};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// Images of one Pod that are asked for at one time.
const AT_ONCE: usize = 32;
/// Searches that go on after their review has ended, at most.
const IN_BACKGROUND: usize = 256;

/// Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Probing {
    resolver: Resolver,
    background: Arc<Semaphore>,
}

impl Probing {
    pub(super) fn new(resolver: Resolver) -> Self {
        Self {
            resolver,
            background: Arc::new(Semaphore::new(IN_BACKGROUND)),
        }
    }

    /// For each image the candidate that has it, as far as that is known by `deadline`.
    pub(super) async fn choose(
        &self,
        images: &[PodImage],
        deadline: Instant,
    ) -> Vec<Option<usize>> {
        let plans: Vec<_> = images.iter().map(|image| image.plan.clone()).collect();
        let searches = plans.into_iter().map(|plan| {
            let this = self.clone();
            async move { this.best(&plan?, deadline).await }
        });
        let searches: Vec<_> = searches.collect();
        stream::iter(searches).buffered(AT_ONCE).collect().await
    }

    async fn best(&self, plan: &Arc<Plan>, deadline: Instant) -> Option<usize> {
        let (resolver, searched) = (self.resolver.clone(), Arc::clone(plan));
        let search = async move { resolver.resolve(&searched, None, Depth::Best).await };
        let found = match Arc::clone(&self.background).try_acquire_owned() {
            // It goes on when the review's time is over, so that the next review knows more: which
            // registry has the image, and which one does not answer.
            Ok(place) => {
                let search = tokio::spawn(async move {
                    let resolution = search.await;
                    drop(place);
                    resolution
                });
                let found = timeout_at(deadline, search).await;
                found.ok().and_then(Result::ok)
            }
            Err(_) => timeout_at(deadline, search).await.ok(),
        };
        match found {
            Some(resolution) => resolution.chosen(),
            // Who has been found to have it by now, whatever better places may say later.
            None => self.resolver.known(plan, None).chosen(),
        }
    }
}
