//! One review: what becomes of a Pod.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use futures_util::future::join_all;
use policy::config::{Rewrite, Settings};
use policy::pod::{Draft, Operation, Options, Pod};
use resolver::{Depth, Resolver};
use telemetry::Telemetry;
use telemetry::metrics::Reviewed;
use tokio::time::{Instant, timeout_at};

use crate::review::{self, Request, Response, ReviewError};

/// Decides what becomes of Pods, by the config in force. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Admission {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `None` until there is a valid config; until then every Pod stays as it is.
    config: ArcSwapOption<Config>,
    resolver: Resolver,
    /// The webhook's own, which it leaves alone by default.
    own_namespace: Option<String>,
    /// Counts reviews. Dry runs don't count.
    telemetry: Telemetry,
}

/// The config as reviews need it: one value, so that no Pod is patched by half of one and half of
/// another.
#[derive(Debug)]
struct Config {
    settings: Settings,
    options: Options,
}

impl Admission {
    /// Without a config yet. `resolver` is asked in `rewrite: best` only.
    pub fn new(resolver: Resolver, own_namespace: Option<String>, telemetry: Telemetry) -> Self {
        Self {
            inner: Arc::new(Inner {
                config: ArcSwapOption::empty(),
                resolver,
                own_namespace,
                telemetry,
            }),
        }
    }

    /// Puts a config in force for every review that begins from now on.
    pub fn apply(&self, settings: Settings) {
        let options = Options::new(&settings.webhook, self.inner.own_namespace.as_deref());
        self.inner
            .config
            .store(Some(Arc::new(Config { settings, options })));
    }

    /// Whether there is a config.
    pub fn is_configured(&self) -> bool {
        self.inner.config.load().is_some()
    }

    /// Answers a review. What can't be handled is allowed as it is. Probes, where the config wants
    /// them, end at `deadline`; then the redirects apply.
    ///
    /// # Errors
    /// [`ReviewError`]: the body is no AdmissionReview, so that there is nothing to answer to.
    pub async fn review(&self, body: &[u8], deadline: Instant) -> Result<Response, ReviewError> {
        let began = Instant::now();
        let metrics = self.inner.telemetry.metrics();
        let request = review::read(body).inspect_err(|_| {
            metrics.review(Reviewed::Refused, began.elapsed());
        })?;
        let patched = self.patch(&request, body, deadline).await;
        if request.dry_run != Some(true) {
            let result = match patched {
                Some(_) => Reviewed::Patched,
                None => Reviewed::Unchanged,
            };
            metrics.review(result, began.elapsed());
        }
        Ok(patched.unwrap_or_else(|| Response::unchanged(&request.uid)))
    }

    async fn patch<T>(
        &self,
        question: &Request<T>,
        body: &[u8],
        deadline: Instant,
    ) -> Option<Response> {
        let config = self.inner.config.load_full()?;
        if !question.kind.group.is_empty() || question.kind.kind != "Pod" {
            return None;
        }
        let Some(request) = review::read_pods(body) else {
            tracing::warn!(
                "a Pod in namespace {} can't be read; it stays as it is",
                question.namespace.as_deref().unwrap_or("?").escape_debug()
            );
            return None;
        };
        let pod = request.object.as_ref()?;
        let operation = operation(&request)?;
        let namespace = request.namespace.as_deref().unwrap_or_default();
        let shown = Shown::of(&request);
        let rules = &config.settings.rules;
        let draft = match Draft::new(pod, namespace, operation, rules, &config.options) {
            Ok(draft) => draft,
            Err(reason) => {
                tracing::debug!("pod {shown} stays as it is: {reason}");
                return None;
            }
        };
        let chosen = match config.settings.webhook.rewrite {
            Rewrite::Redirect => Vec::new(),
            Rewrite::Best => self.probe(&draft, deadline).await,
        };
        let patch = draft.patch(&chosen)?;
        let response = Response::patched(&request.uid, &patch).ok()?;
        if request.dry_run == Some(true) {
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

    /// For each image of `draft` the candidate that has it, as far as that is known by `deadline`.
    async fn probe(&self, draft: &Draft<'_>, deadline: Instant) -> Vec<Option<usize>> {
        let resolutions = draft.images().iter().map(|image| async {
            let resolution = self.inner.resolver.resolve(&image.plan, None, Depth::Best);
            match timeout_at(deadline, resolution).await {
                Ok(resolution) => resolution.chosen(),
                Err(_) => None,
            }
        });
        join_all(resolutions).await
    }
}

fn operation(request: &Request<Pod>) -> Option<Operation<'_>> {
    let sub_resource = request.sub_resource.as_deref().unwrap_or_default();
    match (request.operation.as_str(), sub_resource) {
        ("CREATE", "") => Some(Operation::Create),
        ("UPDATE", "ephemeralcontainers") => Some(Operation::EphemeralContainers {
            old: request.old_object.as_ref()?,
        }),
        _ => None,
    }
}

/// `namespace/name`; a Pod that has no name yet is told by its request. Names are validated only after
/// admission: until then they may hold anything, line breaks for our log among it.
struct Shown<'r> {
    namespace: &'r str,
    name: &'r str,
}

impl<'r> Shown<'r> {
    fn of(request: &'r Request<Pod>) -> Self {
        let named = request.name.as_deref().filter(|name| !name.is_empty());
        Self {
            namespace: request.namespace.as_deref().unwrap_or_default(),
            name: named.unwrap_or(&request.uid),
        }
    }
}

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (namespace, name) = (self.namespace.escape_debug(), self.name.escape_debug());
        write!(f, "{namespace}/{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_line_of_the_log() {
        let request = Request::<Pod> {
            name: Some("x\nWARN forged\u{1b}[31m".to_owned()),
            namespace: Some("default".to_owned()),
            ..Request::default()
        };
        let shown = Shown::of(&request).to_string();
        assert_eq!(shown, r"default/x\nWARN forged\u{1b}[31m");
    }
}
