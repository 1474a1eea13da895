//! `rewrite: best`: who has an image, as far as that is known in time.

use std::sync::Arc;

use futures_util::stream::{FuturesOrdered, StreamExt};
use listener::memory::Share;
use policy::pod::Draft;
use policy::{Plan, Verdict};
use resolver::{Depth, Resolver};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

/// Images of one Pod that are asked for at one time, at most.
const AT_ONCE: usize = 32;
/// What a place that is asked for an image takes of memory: its part of the plan, the request, a connection.
const PER_PLACE: usize = 16 << 10;
/// What the questions of one review may take at one time, unless one image alone takes more.
const PER_REVIEW: usize = 4 << 20;
/// Questions that go on after their review has ended, at most: 12 MiB of them.
const IN_BACKGROUND: usize = 768;

/// Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Probing {
    resolver: Resolver,
    background: Arc<Semaphore>,
}

/// A review that waits for registries. Its share of the memory is what is kept of it, and what asking takes.
/// It gives way to others, as a body does that doesn't come: then it is answered with what is known.
pub(super) struct Waiting {
    share: Share,
    deadline: Instant,
}

impl Waiting {
    /// `kept` is what is kept of the review, in bytes; the body is gone.
    pub(super) fn new(mut share: Share, kept: usize, deadline: Instant) -> Self {
        share.shrink_to(kept);
        share.wait();
        Self { share, deadline }
    }

    /// Whether there is room for this much more.
    async fn grow(&mut self, bytes: usize) -> bool {
        let grown = timeout_at(self.deadline, self.share.grow(bytes)).await;
        grown.is_ok_and(|grown| grown.is_ok())
    }

    /// Until its time is over.
    async fn over(&self) {
        tokio::select! {
            () = self.share.ended() => {}
            () = sleep_until(self.deadline) => {}
        }
    }
}

impl Probing {
    pub(super) fn new(resolver: Resolver) -> Self {
        Self {
            resolver,
            background: Arc::new(Semaphore::new(IN_BACKGROUND)),
        }
    }

    /// For each image of `draft` what the candidates of its plan say, as far as that is known in time.
    pub(super) async fn answers(
        &self,
        draft: &Draft<'_>,
        mut waiting: Waiting,
    ) -> Vec<Vec<Option<Verdict>>> {
        let per_image = PER_PLACE * draft.places_at_most();
        let at_once = (PER_REVIEW / per_image).clamp(1, AT_ONCE);
        let at_once = at_once.min(draft.images().len());
        let over = CancellationToken::new();
        if !waiting.grow(per_image * at_once).await {
            over.cancel();
        }
        let asking = self.ask_all(draft, at_once, over.clone());
        let mut asking = std::pin::pin!(asking);
        tokio::select! {
            answers = asking.as_mut() => return answers,
            () = waiting.over() => over.cancel(),
        }
        asking.await
    }

    /// Ends soon after `over`.
    async fn ask_all(
        &self,
        draft: &Draft<'_>,
        at_once: usize,
        over: CancellationToken,
    ) -> Vec<Vec<Option<Verdict>>> {
        let mut answers = Vec::with_capacity(draft.images().len());
        let mut searches = FuturesOrdered::new();
        for image in draft.images() {
            if searches.len() == at_once {
                answers.extend(searches.next().await);
            }
            searches.push_back(self.clone().ask(draft.plan(image), over.clone()));
        }
        while let Some(answer) = searches.next().await {
            answers.push(answer);
        }
        answers
    }

    async fn ask(self, plan: Option<Arc<Plan>>, over: CancellationToken) -> Vec<Option<Verdict>> {
        let Some(plan) = plan else {
            return Vec::new();
        };
        if over.is_cancelled() {
            return self.resolver.known(&plan, None).verdicts();
        }
        let (resolver, searched) = (self.resolver.clone(), Arc::clone(&plan));
        let search = async move { resolver.resolve(&searched, None, Depth::Best).await };
        let places = u32::try_from(plan.candidates.len()).unwrap_or(u32::MAX);
        let found = match Arc::clone(&self.background).try_acquire_many_owned(places) {
            // It goes on when the review's time is over, so that the next review knows more: which
            // registry has the image, and which one does not answer.
            Ok(place) => {
                let search = tokio::spawn(async move {
                    let resolution = search.await;
                    drop(place);
                    resolution
                });
                let found = over.run_until_cancelled(search).await;
                found.and_then(Result::ok)
            }
            Err(_) => over.run_until_cancelled(search).await,
        };
        match found {
            Some(resolution) => resolution.verdicts(),
            // What has been said by now, whatever better places may say later.
            None => self.resolver.known(&plan, None).verdicts(),
        }
    }
}
