//! The calls about an image that the shim understands.
//!
//! | module | what it does |
//! |---|---|
//! | `local` | ImageStatus, RemoveImage, CreateContainer: what a name stands for on this node |
//! | `names` | original names of images from mirrors: after pulls, in ListImages |
//! | `presence` | whether the runtime has an image, by its answer |
//! | `pull` | PullImage: candidates in order until one succeeds |
//! | `early` | a pull that begins while registries are still asked |
//! | `attempt` | one request to the runtime, within what is left of the caller's time |
//! | `record` | what a pull leaves behind: history, counters, its line in the log |
//!
//! Whatever can't be decided here is forwarded as it came: the shim must never be the reason that a
//! call fails which the runtime could answer (rule 7 of `docs/rules.md`). With `fallbackToOrigin: false` a pull is not.

mod attempt;
mod early;
mod local;
mod names;
mod presence;
mod pull;
mod record;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use policy::Reference;
use policy::config::Settings;
use policy::reference::ReferenceError;
use resolver::{LastPlaces, Resolver};
use telemetry::Telemetry;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::alias::Aliases;
use crate::call::{ImageCalls, UnaryCall};
use crate::grpc::{Code, Status};
use crate::method::ImageMethod;
use crate::upstream::UnaryReply;
use crate::wire;
use attempt::Attempts;
use names::NamesApi;
use record::Failing;

/// Answers the image calls. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct ImageService {
    shared: Arc<Shared>,
}

/// What pulls wait for, and for how long at most: for a short time after a start the credentials that the config points to
/// may not be known yet, and a registry that is asked without them says no.
#[derive(Clone, Debug)]
pub struct PullGate {
    is_open: watch::Receiver<bool>,
    until: Instant,
}

impl PullGate {
    /// Pulls wait until `is_open` says so, but no longer than `at_most` from now.
    pub fn new(is_open: watch::Receiver<bool>, at_most: Duration) -> Self {
        Self {
            is_open,
            until: Instant::now() + at_most,
        }
    }

    async fn pass(&self) {
        let mut is_open = self.is_open.clone();
        // Neither the end of the time nor a sender that is gone is a reason to keep a pull.
        let _ = timeout_at(self.until, is_open.wait_for(|is_open| *is_open)).await;
    }
}

#[derive(Debug)]
struct Shared {
    /// Finds out who has an image.
    resolver: Resolver,
    /// What names were pulled as.
    aliases: Aliases,
    /// The config in force. A call finishes with the one that it began with.
    settings: Arc<ArcSwap<Settings>>,
    /// Runtime for what blocks: saving aliases.
    background: Handle,
    /// Counts and remembers what was decided.
    telemetry: Telemetry,
    /// What a pull waits for first.
    gate: Option<PullGate>,
    /// Whether the runtime can keep original names itself.
    names_api: NamesApi,
    /// Where the last image of each repository came from.
    last_places: LastPlaces,
    /// Images whose last pull failed, so that the log says it once.
    failing: Failing,
    /// Whether the aliases could not be saved last time, so that the log says it once.
    unsaved: Arc<AtomicBool>,
}

impl ImageService {
    /// A service that asks `resolver` who has an image, and remembers in `aliases` what it was pulled as, by
    /// whatever config is in `settings` when a call begins; for a pull, when it has passed `gate`. Blocking work goes to
    /// `background`'s runtime; what was decided, to `telemetry`.
    pub fn new(
        resolver: Resolver,
        aliases: Aliases,
        settings: Arc<ArcSwap<Settings>>,
        background: Handle,
        telemetry: Telemetry,
        gate: Option<PullGate>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                resolver,
                aliases,
                settings,
                background,
                telemetry,
                gate,
                names_api: NamesApi::default(),
                last_places: LastPlaces::default(),
                failing: Failing::default(),
                unsaved: Arc::default(),
            }),
        }
    }
}

impl ImageCalls for ImageService {
    fn call(&self, call: UnaryCall) -> BoxFuture<'static, UnaryReply> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let method = call.method;
            if let (ImageMethod::Pull, Some(gate)) = (method, &shared.gate) {
                gate.pass().await;
            }
            let settings = shared.settings.load_full();
            let is_about_one = method != ImageMethod::List;
            let name = is_about_one.then(|| reference(method, &call.message));
            let attempts = Attempts::new(call, settings.timeout);
            match (method, name) {
                (ImageMethod::List, _) | (_, None) => {
                    names::list(&shared, &settings, &attempts).await
                }
                (_, Some(Err(why))) => {
                    tracing::debug!("no rule applies to a {}: {why}", method.name());
                    pass_on(&settings, &attempts, &why).await
                }
                (ImageMethod::Pull, Some(Ok(name))) => {
                    pull::pull(&shared, &settings, &attempts, &name).await
                }
                (ImageMethod::Status, Some(Ok(name))) => {
                    local::status(&shared, &settings, &attempts, &name).await
                }
                (ImageMethod::Remove, Some(Ok(name))) => {
                    local::remove(&shared, &settings, &attempts, &name).await
                }
                (ImageMethod::Create, Some(Ok(name))) => {
                    local::create(&shared, &settings, &attempts, &name).await
                }
            }
        })
    }

    fn refusal(&self, method: ImageMethod, why: &str) -> Option<Status> {
        let settings = self.shared.settings.load();
        let unread = Untouched::Unread(why.to_owned());
        is_closed(&settings, method).then(|| unread.status())
    }

    fn answers(&self, method: ImageMethod) -> bool {
        let shared = &self.shared;
        method != ImageMethod::List || names::edits_lists(shared, &shared.settings.load())
    }
}

impl Shared {
    /// Remembers what a name was pulled as; `None` is: as it was written.
    fn remember(&self, name: &str, image: Option<&str>) {
        let changed = match image {
            Some(image) => self.aliases.set(name, image),
            None => self.aliases.remove(name),
        };
        if changed {
            let (aliases, unsaved) = (self.aliases.clone(), Arc::clone(&self.unsaved));
            self.background.spawn_blocking(move || {
                let saved = aliases.save();
                let failed_before = unsaved.swap(saved.is_err(), Ordering::Relaxed);
                match saved {
                    Err(error) if !failed_before => tracing::warn!(
                        "cannot save what images were pulled as: {error}; they are still found while the config stays"
                    ),
                    Ok(()) if failed_before => {
                        tracing::info!("what images were pulled as can be saved again");
                    }
                    _ => {}
                }
            });
        }
    }
}

/// Why no rule applies to a call.
#[derive(Debug, thiserror::Error)]
enum Untouched {
    /// It can't be read.
    #[error("{0}")]
    Unread(String),
    /// It names no image at any registry: an image ID, or no reference.
    #[error("{0}")]
    NoName(#[from] ReferenceError),
}

impl Untouched {
    /// What the caller gets where the call must not be forwarded.
    fn status(&self) -> Status {
        let code = match self {
            Self::Unread(_) => Code::UNAVAILABLE,
            Self::NoName(_) => Code::NOT_FOUND,
        };
        let message = format!(
            "image-cri-shim can't apply its rules to this pull: {self}; `fallbackToOrigin: false` forbids passing it on to the runtime as it came"
        );
        Status::new(code, message)
    }
}

/// Whether a call must not reach the runtime as it came: it would pull from wherever the name says, or from what the
/// name means to the runtime alone.
fn is_closed(settings: &Settings, method: ImageMethod) -> bool {
    method == ImageMethod::Pull && !settings.rules.fallback_to_origin
}

/// Answers a call that no rule applies to.
async fn pass_on(settings: &Settings, attempts: &Attempts, why: &Untouched) -> UnaryReply {
    if is_closed(settings, attempts.method()) {
        return UnaryReply::from_status(&why.status());
    }
    attempt::reply(attempts.unchanged().await)
}

/// The name that a request is about, where it is one that rules can apply to: not an image ID, and
/// a valid reference.
fn reference(method: ImageMethod, message: &[u8]) -> Result<Reference, Untouched> {
    let name = wire::text_at(message, method.name_path());
    let name = name.map_err(|error| Untouched::Unread(error.to_string()))?;
    Ok(Reference::parse(name.unwrap_or_default())?)
}
