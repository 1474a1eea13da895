//! One review: what becomes of a Pod.

mod probing;
mod shown;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use listener::memory::Share;
use policy::config::{Rewrite, Settings};
use policy::pod::{Draft, Operation, Pod, PodSettings, rule_names};
use policy::rules::EntryKind;
use resolver::Resolver;
use telemetry::Telemetry;
use telemetry::metrics::Reviewed;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use self::probing::{Probing, Waiting};
use self::shown::Shown;
use crate::caller::Caller;
use crate::review::{self, Question, Request, Response, ReviewError};

/// Bodies from this size on are read on another thread, so that nothing else waits meanwhile.
const LARGE_BODY: usize = 64 << 10;
/// Large bodies that are read at one time; reading one takes memory beside its own.
const LARGE_AT_ONCE: usize = 2;

/// The body of a review, and its share of the memory.
#[derive(Debug)]
pub struct ReviewBody {
    /// As it came.
    pub bytes: Vec<u8>,
    /// Held until the review is answered.
    pub share: Share,
}

/// Decides what becomes of Pods, by the config in force. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Admission {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `None` until there is a valid config; until then every Pod stays as it is.
    config: ArcSwapOption<Config>,
    probing: Probing,
    /// The webhook's own, which it leaves alone by default.
    own_namespace: Option<String>,
    /// Counts reviews. Dry runs don't count.
    telemetry: Telemetry,
    large: Arc<Semaphore>,
}

/// The config as reviews need it: one value, so that no Pod is patched by half of one and half of
/// another.
#[derive(Debug)]
struct Config {
    settings: Settings,
    options: PodSettings,
}

impl Admission {
    /// Without a config yet. `resolver` is asked in `rewrite: best` only.
    pub fn new(resolver: Resolver, own_namespace: Option<String>, telemetry: Telemetry) -> Self {
        telemetry.metrics().expect_reviews([]);
        Self {
            inner: Arc::new(Inner {
                config: ArcSwapOption::empty(),
                probing: Probing::new(resolver),
                own_namespace,
                telemetry,
                large: Arc::new(Semaphore::new(LARGE_AT_ONCE)),
            }),
        }
    }

    /// Puts a config in force for every review that begins from now on.
    pub fn apply(&self, mut settings: Settings) {
        // The cache of the *node* is none that the webhook, in a Pod, could ask.
        let registries = &mut settings.rules.registries;
        registries.retain(|registry| registry.kind != EntryKind::NodeCache);
        let options = PodSettings::new(&settings.webhook, self.inner.own_namespace.as_deref());
        let rules = rule_names(&settings.rules, &options);
        self.inner.telemetry.metrics().expect_reviews(rules);
        self.inner
            .config
            .store(Some(Arc::new(Config { settings, options })));
    }

    /// Whether there is a config.
    pub fn is_configured(&self) -> bool {
        self.inner.config.load().is_some()
    }

    /// Counts a review that has come to its end.
    pub(crate) fn count(&self, result: Reviewed, began: Instant) {
        let metrics = self.inner.telemetry.metrics();
        metrics.review(result, began.elapsed());
    }

    /// Counts a review whose caller has shown a certificate that is not an API server's.
    pub(crate) fn certificate_refused(&self) {
        self.inner.telemetry.metrics().client_certificate_refused();
    }

    /// Answers a review. What can't be handled is allowed as it is. `deadline` is for all of it: what
    /// registries have not answered by then is not waited for.
    ///
    /// # Errors
    /// [`ReviewError`]: the body is no AdmissionReview, so that there is nothing to answer to, or its turn
    /// doesn't come.
    pub async fn review(
        &self,
        body: ReviewBody,
        caller: Caller,
        deadline: Instant,
    ) -> Result<Response, ReviewError> {
        let began = Instant::now();
        let read = self.read(body, deadline).await;
        let (mut question, share) = read.inspect_err(|error| {
            let result = match error {
                ReviewError::Busy => Reviewed::Busy,
                _ => Reviewed::Refused,
            };
            self.count(result, began);
        })?;
        let patched = self.patch(&mut question, share, caller, deadline).await;
        if !question.is_dry_run() {
            let result = match patched {
                Some(_) => Reviewed::Patched,
                None => Reviewed::Unchanged,
            };
            self.count(result, began);
        }
        Ok(patched.unwrap_or_else(|| Response::unchanged(question.uid())))
    }

    async fn read(
        &self,
        body: ReviewBody,
        deadline: Instant,
    ) -> Result<(Question, Share), ReviewError> {
        let ReviewBody { bytes, share } = body;
        if bytes.len() < LARGE_BODY {
            return Ok((review::read(&bytes)?, share));
        }
        let turn = Arc::clone(&self.inner.large).acquire_owned();
        let Ok(Ok(turn)) = timeout_at(deadline, turn).await else {
            return Err(ReviewError::Busy);
        };
        // The body and its turn go along: they are in use until it is read, even if nobody waits for that.
        let reading = tokio::task::spawn_blocking(move || {
            let question = review::read(&bytes);
            drop(bytes);
            drop(turn);
            question.map(|question| (question, share))
        });
        reading.await.unwrap_or(Err(ReviewError::Busy))
    }

    async fn patch(
        &self,
        question: &mut Question,
        share: Share,
        caller: Caller,
        deadline: Instant,
    ) -> Option<Response> {
        let config = self.inner.config.load_full()?;
        let request = match question {
            Question::Pods(request) => request,
            Question::Other(request) => {
                if request.is_for_pod() {
                    tracing::warn!(
                        "a Pod in namespace {} can't be read; it stays as it is",
                        shown::text(request.namespace.as_deref().unwrap_or("?"))
                    );
                }
                return None;
            }
        };
        let old = request.old_object.take();
        let request = &*request;
        let pod = request.object.as_ref()?;
        let operation = operation(request, old.as_ref())?;
        let namespace = request.namespace.as_deref().unwrap_or_default();
        let shown = Shown::of(request);
        let is_dry_run = request.dry_run == Some(true);
        let rules = &config.settings.rules;
        let draft = match Draft::new(pod, namespace, operation, rules, &config.options) {
            Ok(draft) => draft,
            Err(reason) => {
                tracing::debug!("pod {shown} stays as it is: {reason}");
                return None;
            }
        };
        // While registries are asked, no more is kept than the answer needs.
        drop(old);
        let may_ask = caller.may_ask(is_dry_run);
        let answers = match config.settings.webhook.rewrite {
            Rewrite::Best if may_ask => {
                let kept = request.size() + draft.size();
                let waiting = Waiting::new(share, kept, deadline);
                self.inner.probing.answers(&draft, waiting).await
            }
            Rewrite::Best | Rewrite::Redirect => Vec::new(),
        };
        let patch = draft.patch(&answers)?;
        let Some(response) = Response::patched(&request.uid, &patch).ok()? else {
            tracing::warn!("pod {shown} stays as it is: its patch would be too large");
            return None;
        };
        if is_dry_run {
            return Some(response);
        }
        for rule in &patch.moved_by {
            self.inner.telemetry.metrics().image_moved(rule);
        }
        if patch.unrecorded {
            tracing::warn!(
                "pod {shown} has no room for our annotations; its images are moved all the same"
            );
        }
        tracing::info!("rewrote {} images of pod {shown}", patch.moved_by.len());
        Some(response)
    }
}

fn operation<'p>(request: &Request<Pod>, old: Option<&'p Pod>) -> Option<Operation<'p>> {
    let sub_resource = request.sub_resource.as_deref().unwrap_or_default();
    match (request.operation.as_str(), sub_resource) {
        ("CREATE", "") => Some(Operation::Create),
        ("UPDATE", "" | "ephemeralcontainers") => Some(Operation::Update { old: old? }),
        _ => None,
    }
}
