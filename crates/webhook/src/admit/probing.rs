//! `rewrite: best`: who has an image, as far as that is known in time.

use std::sync::Arc;

use futures_util::stream::{FuturesOrdered, StreamExt};
use policy::pod::Draft;
use policy::{Plan, Verdict};
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

    /// For each image of `draft` what the candidates of its plan say, as far as that is known by `deadline`.
    pub(super) async fn answers(
        &self,
        draft: &Draft<'_>,
        deadline: Instant,
    ) -> Vec<Vec<Option<Verdict>>> {
        let mut answers = Vec::with_capacity(draft.images().len());
        let mut searches = FuturesOrdered::new();
        for image in draft.images() {
            if searches.len() == AT_ONCE {
                answers.extend(searches.next().await);
            }
            searches.push_back(self.clone().ask(draft.plan(image), deadline));
        }
        while let Some(answer) = searches.next().await {
            answers.push(answer);
        }
        answers
    }

    async fn ask(self, plan: Option<Arc<Plan>>, deadline: Instant) -> Vec<Option<Verdict>> {
        let Some(plan) = plan else {
            return Vec::new();
        };
        let (resolver, searched) = (self.resolver.clone(), Arc::clone(&plan));
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
            Some(resolution) => resolution.verdicts(),
            // What has been said by now, whatever better places may say later.
            None => self.resolver.known(&plan, None).verdicts(),
        }
    }
}
