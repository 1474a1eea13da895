//! Counters and histograms of one process, in OpenMetrics text.
//!
//! `docs/metrics.md` lists them all. Labels are bounded: a registry is a label because the config
//! names it, an image never is, and a method that the CRI does not have is `other`.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::live::{Live, LiveCollector};
use crate::report::{Place, ProbeResult};

/// What all our metrics' names begin with.
pub const PREFIX: &str = "image_cri_shim";
/// Content type of [`Metrics::encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Label of what no registry of the config served.
pub const ORIGIN: &str = "origin";
/// Label of a resolution that found the image nowhere.
pub const NONE: &str = "none";

/// From 25 µs, what a call costs, to 2.5 s, a registry that had to be waited for.
const LATENCY: [f64; 12] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.5,
];
/// A registry next door to one that is given up on.
const PROBE: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5];
/// A tiny image to a very large one.
const PULL: [f64; 10] = [0.1, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0];

/// Counters and histograms; shared by reference.
#[derive(Debug)]
pub struct Metrics {
    /// None counts nothing.
    inner: Option<Inner>,
}

struct Inner {
    registry: Mutex<Registry>,
    live: LiveCollector,
    calls: Family<CallLabels, Counter>,
    added: Family<MethodLabels, Histogram, Buckets>,
    resolutions: Family<ResolutionLabels, Counter>,
    probes: Family<ProbeLabels, Counter>,
    probe_seconds: Family<RegistryLabels, Histogram, Buckets>,
    pulls: Family<PullLabels, Counter>,
    pull_seconds: Family<PlaceLabels, Histogram, Buckets>,
    fallbacks: Family<RegistryLabels, Counter>,
    config_generation: Gauge,
    config_good: Gauge,
    config_loaded: Gauge,
    config_errors: Counter,
    reviews: Family<ReviewLabels, Counter>,
    review_seconds: Histogram,
    images_moved: Family<RuleLabels, Counter>,
    /// Registries that labels were made for.
    known: Mutex<HashSet<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResolutionLabels {
    outcome: &'static str,
    registry: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProbeLabels {
    registry: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RegistryLabels {
    registry: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PullLabels {
    registry: String,
    place: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlaceLabels {
    place: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReviewLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabels {
    rule: String,
}

/// How a resolution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// A registry has the image.
    Found,
    /// Everybody was asked and nobody has it.
    Absent,
    /// Nobody is known to have it, and somebody gave no answer.
    Unanswered,
}

impl Resolved {
    fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Absent => "absent",
            Self::Unanswered => "unanswered",
        }
    }

    const ALL: [Self; 3] = [Self::Found, Self::Absent, Self::Unanswered];
}

/// How a review ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reviewed {
    /// Images were moved.
    Patched,
    /// Nothing in it was ours to change.
    Unchanged,
    /// It was no review that we can read.
    Refused,
}

impl Reviewed {
    fn name(self) -> &'static str {
        match self {
            Self::Patched => "patched",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// Makes the histograms of a family.
#[derive(Clone, Copy)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            inner: Some(Inner::new()),
        }
    }
}

impl Metrics {
    /// One that counts nothing.
    pub(crate) fn off() -> Self {
        Self { inner: None }
    }

    /// All of it as OpenMetrics text, with what is so at this moment.
    pub fn encode(&self, live: Live) -> String {
        let mut out = String::new();
        if let Some(inner) = &self.inner {
            inner.live.set(live);
            // Fails only where writing to a string does, which it never does.
            let _ = text::encode(&mut out, &lock(&inner.registry));
        }
        out
    }

    /// Forgets the registries that `keep` doesn't want, so that a config which changes for years leaves
    /// no trace.
    pub fn retain_registries(&self, keep: impl Fn(&str) -> bool) {
        let Some(inner) = &self.inner else {
            return;
        };
        let mut known = lock(&inner.known);
        let gone: Vec<String> = known.iter().filter(|name| !keep(name)).cloned().collect();
        for registry in gone {
            known.remove(&registry);
            inner.forget(&registry);
        }
    }

    /// A call of a client has ended. `method` is one of a fixed list; `code` is gRPC's.
    pub fn call(&self, method: &'static str, code: i32) {
        if let Some(inner) = &self.inner {
            let code = code_name(code);
            inner
                .calls
                .get_or_create(&CallLabels { method, code })
                .inc();
        }
    }

    /// What a call took on top of what the runtime took.
    pub fn added(&self, method: &'static str, latency: Duration) {
        if let Some(inner) = &self.inner {
            let histogram = inner.added.get_or_create(&MethodLabels { method });
            histogram.observe(latency.as_secs_f64());
        }
    }

    /// Somebody was looked for who has an image; `registry` is who has it.
    pub fn resolution(&self, outcome: Resolved, registry: Option<&str>) {
        if let Some(inner) = &self.inner {
            let labels = ResolutionLabels {
                outcome: outcome.name(),
                registry: inner.know(registry.unwrap_or(NONE)),
            };
            inner.resolutions.get_or_create(&labels).inc();
        }
    }

    /// A registry was asked.
    pub fn probe(&self, registry: &str, result: ProbeResult, elapsed: Duration) {
        if let Some(inner) = &self.inner {
            let registry = inner.know(registry);
            let labels = RegistryLabels {
                registry: registry.clone(),
            };
            let histogram = inner.probe_seconds.get_or_create(&labels);
            histogram.observe(elapsed.as_secs_f64());
            // Its read lock must be gone before the next family may need a write lock.
            drop(histogram);
            let result = result.name();
            inner
                .probes
                .get_or_create(&ProbeLabels { registry, result })
                .inc();
        }
    }

    /// The runtime was told to pull; `registry` is [`ORIGIN`] for the name as written.
    pub fn pull(&self, registry: &str, place: Place, succeeded: bool, elapsed: Duration) {
        if let Some(inner) = &self.inner {
            let labels = PullLabels {
                registry: inner.know(registry),
                place: place.name(),
                result: pull_result(succeeded),
            };
            inner.pulls.get_or_create(&labels).inc();
            if succeeded {
                let labels = PlaceLabels {
                    place: place.name(),
                };
                let histogram = inner.pull_seconds.get_or_create(&labels);
                histogram.observe(elapsed.as_secs_f64());
            }
        }
    }

    /// An image came from `registry` after another place had failed to give it.
    pub fn fallback(&self, registry: &str) {
        if let Some(inner) = &self.inner {
            let registry = inner.know(registry);
            inner
                .fallbacks
                .get_or_create(&RegistryLabels { registry })
                .inc();
        }
    }

    /// A config is in force; `is_good` says whether it is also the newest that was written.
    pub fn config_loaded(&self, generation: u64, is_good: bool) {
        if let Some(inner) = &self.inner {
            let generation = i64::try_from(generation).unwrap_or(i64::MAX);
            inner.config_generation.set(generation);
            inner.config_good.set(i64::from(is_good));
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let seconds = now.map_or(0, |since| since.as_secs());
            inner
                .config_loaded
                .set(i64::try_from(seconds).unwrap_or(i64::MAX));
        }
    }

    /// A config could not be taken; the last good one stays in force.
    pub fn config_refused(&self) {
        if let Some(inner) = &self.inner {
            inner.config_good.set(0);
            inner.config_errors.inc();
        }
    }

    /// The config is the one in force again, after one that could not be taken.
    pub fn config_good_again(&self) {
        if let Some(inner) = &self.inner {
            inner.config_good.set(1);
        }
    }

    /// The webhook has answered a review.
    pub fn review(&self, result: Reviewed, elapsed: Duration) {
        if let Some(inner) = &self.inner {
            let result = result.name();
            inner.reviews.get_or_create(&ReviewLabels { result }).inc();
            inner.review_seconds.observe(elapsed.as_secs_f64());
        }
    }

    /// The webhook has moved an image by the rule of this name, which the config gives.
    pub fn image_moved(&self, rule: &str) {
        if let Some(inner) = &self.inner {
            let rule = rule.to_owned();
            inner.images_moved.get_or_create(&RuleLabels { rule }).inc();
        }
    }

    /// Times `registry` was asked, times it had the image, and images pulled from there.
    pub fn registry_counts(&self, registry: &str) -> (u64, u64, u64) {
        let Some(inner) = &self.inner else {
            return (0, 0, 0);
        };
        let probes = |result: ProbeResult| {
            let labels = ProbeLabels {
                registry: registry.to_owned(),
                result: result.name(),
            };
            inner.probes.get(&labels).map_or(0, |counter| counter.get())
        };
        let pulls = |place: Place| {
            let labels = PullLabels {
                registry: registry.to_owned(),
                place: place.name(),
                result: pull_result(true),
            };
            inner.pulls.get(&labels).map_or(0, |counter| counter.get())
        };
        (
            ProbeResult::ALL.into_iter().map(probes).sum(),
            probes(ProbeResult::Found),
            PLACES.into_iter().map(pulls).sum(),
        )
    }
}

const PLACES: [Place; 4] = [
    Place::Offline,
    Place::Registry,
    Place::Redirect,
    Place::Origin,
];

fn pull_result(succeeded: bool) -> &'static str {
    if succeeded { "ok" } else { "failed" }
}

impl Inner {
    fn new() -> Self {
        let buckets = |bounds: &'static [f64]| Buckets(bounds);
        let inner = Self {
            registry: Mutex::new(Registry::default()),
            live: LiveCollector::default(),
            calls: Family::default(),
            added: Family::new_with_constructor(buckets(&LATENCY)),
            resolutions: Family::default(),
            probes: Family::default(),
            probe_seconds: Family::new_with_constructor(buckets(&PROBE)),
            pulls: Family::default(),
            pull_seconds: Family::new_with_constructor(buckets(&PULL)),
            fallbacks: Family::default(),
            config_generation: Gauge::default(),
            config_good: Gauge::default(),
            config_loaded: Gauge::default(),
            config_errors: Counter::default(),
            reviews: Family::default(),
            review_seconds: Histogram::new(LATENCY),
            images_moved: Family::default(),
            known: Mutex::default(),
        };
        inner.register();
        inner
    }

    fn register(&self) {
        let mut root = lock(&self.registry);
        root.register_collector(Box::new(self.live.clone()));
        let all = root.sub_registry_with_prefix(PREFIX);
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        all.register("build", "Which image-cri-shim this is", build);
        all.register(
            "calls",
            "gRPC calls on the shim's socket that have ended",
            self.calls.clone(),
        );
        all.register_with_unit(
            "added_latency",
            "Time of a call that was not spent waiting for the runtime, asking registries included",
            Unit::Seconds,
            self.added.clone(),
        );
        all.register(
            "resolutions",
            "Searches for who has an image, by how they ended and who has it",
            self.resolutions.clone(),
        );
        all.register(
            "probes",
            "Questions to registries whether they have a manifest",
            self.probes.clone(),
        );
        all.register_with_unit(
            "probe_duration",
            "Time until a registry's answer, or until it was given up on",
            Unit::Seconds,
            self.probe_seconds.clone(),
        );
        all.register(
            "pulls",
            "Pulls that the runtime was asked for",
            self.pulls.clone(),
        );
        all.register_with_unit(
            "pull_duration",
            "Time of pulls that succeeded",
            Unit::Seconds,
            self.pull_seconds.clone(),
        );
        all.register(
            "fallbacks",
            "Images that came from here after another place had failed to give them",
            self.fallbacks.clone(),
        );
        all.register(
            "config_generation",
            "Configs that have been in force, the present one included",
            self.config_generation.clone(),
        );
        all.register(
            "config_last_reload_successful",
            "Whether the newest config is the one in force: 0 after one that could not be taken",
            self.config_good.clone(),
        );
        all.register_with_unit(
            "config_loaded_timestamp",
            "When the config in force was taken",
            Unit::Seconds,
            self.config_loaded.clone(),
        );
        all.register(
            "config_reload_errors",
            "Configs that could not be taken",
            self.config_errors.clone(),
        );
        all.register(
            "reviews",
            "Admission reviews that the webhook has answered",
            self.reviews.clone(),
        );
        all.register_with_unit(
            "review_duration",
            "Time of a review, from its whole body to its answer",
            Unit::Seconds,
            self.review_seconds.clone(),
        );
        all.register(
            "images_moved",
            "Images that the webhook has changed, by the rule that did it",
            self.images_moved.clone(),
        );
    }

    /// Notes that labels are made for `registry`.
    fn know(&self, registry: &str) -> String {
        let mut known = lock(&self.known);
        if !known.contains(registry) {
            known.insert(registry.to_owned());
        }
        registry.to_owned()
    }

    fn forget(&self, registry: &str) {
        let registry = || registry.to_owned();
        let name = RegistryLabels {
            registry: registry(),
        };
        self.probe_seconds.remove(&name);
        self.fallbacks.remove(&name);
        for result in ProbeResult::ALL {
            self.probes.remove(&ProbeLabels {
                registry: registry(),
                result: result.name(),
            });
        }
        for outcome in Resolved::ALL {
            self.resolutions.remove(&ResolutionLabels {
                outcome: outcome.name(),
                registry: registry(),
            });
        }
        for place in PLACES {
            for succeeded in [true, false] {
                self.pulls.remove(&PullLabels {
                    registry: registry(),
                    place: place.name(),
                    result: pull_result(succeeded),
                });
            }
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// A gRPC code's name, as in the specification; a number that it does not have is `UNKNOWN`.
pub fn code_name(code: i32) -> &'static str {
    match code {
        0 => "OK",
        1 => "CANCELLED",
        3 => "INVALID_ARGUMENT",
        4 => "DEADLINE_EXCEEDED",
        5 => "NOT_FOUND",
        6 => "ALREADY_EXISTS",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        10 => "ABORTED",
        11 => "OUT_OF_RANGE",
        12 => "UNIMPLEMENTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        15 => "DATA_LOSS",
        16 => "UNAUTHENTICATED",
        _ => "UNKNOWN",
    }
}

/// Every change under these locks is a single step, so a panic elsewhere leaves nothing half-done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_in_the_text() {
        let metrics = Metrics::default();
        metrics.call("PullImage", 5);
        metrics.probe("http://a.io", ProbeResult::Found, Duration::from_millis(3));
        metrics.probe(
            "http://a.io",
            ProbeResult::NotFound,
            Duration::from_millis(3),
        );
        metrics.pull("http://a.io", Place::Offline, true, Duration::from_secs(1));
        metrics.resolution(Resolved::Found, Some("http://a.io"));
        let text = metrics.encode(Live::default());
        for line in [
            r#"image_cri_shim_build_info{version="0.1.0"} 1"#,
            r#"image_cri_shim_calls_total{method="PullImage",code="NOT_FOUND"} 1"#,
            r#"image_cri_shim_probes_total{registry="http://a.io",result="not_found"} 1"#,
            r#"image_cri_shim_probe_duration_seconds_count{registry="http://a.io"} 2"#,
            r#"image_cri_shim_pulls_total{registry="http://a.io",place="offline",result="ok"} 1"#,
            r#"image_cri_shim_resolutions_total{outcome="found",registry="http://a.io"} 1"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
        assert_eq!(metrics.registry_counts("http://a.io"), (2, 1, 1));
    }

    #[test]
    fn a_registry_that_left_the_config_leaves_the_metrics() {
        let metrics = Metrics::default();
        for registry in ["http://a.io", "http://b.io"] {
            metrics.probe(registry, ProbeResult::Found, Duration::ZERO);
            metrics.pull(registry, Place::Registry, false, Duration::ZERO);
            metrics.fallback(registry);
            metrics.resolution(Resolved::Found, Some(registry));
        }
        metrics.retain_registries(|registry| registry == "http://b.io");
        let text = metrics.encode(Live::default());
        assert!(!text.contains("a.io"), "{text}");
        assert!(text.contains("b.io"), "{text}");
    }

    #[test]
    fn off_counts_nothing() {
        let metrics = Metrics::off();
        metrics.call("PullImage", 0);
        assert_eq!(metrics.encode(Live::default()), "");
    }
}
