//! Every metric that is counted: its name, its help, its labels, its buckets.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{
    CallLabels, MethodLabels, NoLabels, PLACES, PULL_RESULTS, PlaceLabels, ProbeLabels, PullLabels,
    RegistryLabels, ResolutionLabels, Resolved, ReviewLabels, RuleLabels,
};
use crate::live::LiveCollector;
use crate::names::PREFIX;
use crate::report::Verdict;

/// From 25 µs, what a call costs, to 2.5 s, a registry that had to be waited for.
const LATENCY: [f64; 12] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.5,
];
/// A registry next door to one that is given up on.
const PROBE: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5];
/// A tiny image to a very large one.
const PULL: [f64; 10] = [0.1, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0];

/// All that is counted, from the start of the process on.
pub(super) struct Families {
    pub(super) registry: Mutex<Registry>,
    /// What is not counted but read at each scrape.
    pub(super) live: LiveCollector,
    /// Calls on the shim's socket that have ended, by method and gRPC code.
    pub(super) calls: Family<CallLabels, Counter>,
    /// Those of them that belong to the image service: a family's members can't be summed up.
    pub(super) image_calls: AtomicU64,
    /// Seconds of a call, from its last byte to its answer, less those spent waiting for the runtime.
    pub(super) added: Family<MethodLabels, Histogram, Buckets>,
    /// Searches for who has an image, when they have ended.
    pub(super) resolutions: Family<ResolutionLabels, Counter>,
    /// Questions for a manifest, when they have ended. What a `/v2/` trial asks is not among them.
    pub(super) probes: Family<ProbeLabels, Counter>,
    /// Seconds from the moment a registry is to be asked, waiting for a free slot included, to its answer or
    /// to the deadline.
    pub(super) probe_seconds: Family<RegistryLabels, Histogram, Buckets>,
    /// Pulls that the runtime was told to make, when they have ended.
    pub(super) pulls: Family<PullLabels, Counter>,
    /// Seconds of pulls that succeeded, from the runtime's order to its answer.
    pub(super) pull_seconds: Family<PlaceLabels, Histogram, Buckets>,
    /// Pulled images that another place had failed to give first.
    pub(super) fallbacks: Family<RegistryLabels, Counter>,
    /// Configs that have been in force, the present one included.
    pub(super) config_generation: Gauge,
    /// 1 while the newest config is the one in force, else 0.
    pub(super) config_good: Gauge,
    /// When the config in force was taken, in seconds since 1970.
    pub(super) config_loaded: Gauge,
    /// Whether no config is in force that anybody has written.
    pub(super) config_forwards: Gauge,
    /// Configs that could not be taken.
    pub(super) config_errors: Counter,
    /// Admission reviews that were answered, by how.
    pub(super) reviews: Family<ReviewLabels, Counter>,
    /// Seconds of a review, from its whole body to its answer. A family, so that a node shim doesn't show
    /// it.
    pub(super) review_seconds: Family<NoLabels, Histogram, Buckets>,
    /// Images that the webhook has changed, by the rule that did it.
    pub(super) images_moved: Family<RuleLabels, Counter>,
    /// Reviews whose caller has shown a certificate that is not an API server's. A family, so that only a webhook
    /// shows it.
    pub(super) certificates_refused: Family<NoLabels, Counter>,
    /// Registries that labels were made for.
    pub(super) known: Mutex<HashSet<String>>,
}

/// Makes the histograms of a family.
#[derive(Clone, Copy)]
pub(super) struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

impl Families {
    /// Nothing counted yet.
    pub(super) fn new() -> Self {
        let buckets = |bounds: &'static [f64]| Buckets(bounds);
        let inner = Self {
            registry: Mutex::new(Registry::default()),
            live: LiveCollector::default(),
            calls: Family::default(),
            image_calls: AtomicU64::new(0),
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
            config_forwards: Gauge::default(),
            config_errors: Counter::default(),
            reviews: Family::default(),
            review_seconds: Family::new_with_constructor(buckets(&LATENCY)),
            images_moved: Family::default(),
            certificates_refused: Family::default(),
            known: Mutex::default(),
        };
        // A config that nobody has written was not refused.
        inner.config_good.set(1);
        inner.register();
        inner
    }

    fn register(&self) {
        let mut root = self.registry.lock();
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
            "config_forwards_everything",
            "Whether the file could not be used at start and there was no last good config: no rules are in force",
            self.config_forwards.clone(),
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
        all.register(
            "client_certificates_refused",
            "Reviews whose caller has shown a certificate that is not an API server's",
            self.certificates_refused.clone(),
        );
    }

    /// Notes that labels are made for `registry`.
    pub(super) fn know(&self, registry: &str) -> String {
        let mut known = self.known.lock();
        if !known.contains(registry) {
            known.insert(registry.to_owned());
        }
        registry.to_owned()
    }

    /// Forgets a registry, in every metric.
    pub(super) fn forget(&self, registry: &str) {
        let registry = || registry.to_owned();
        let name = RegistryLabels {
            registry: registry(),
        };
        self.probe_seconds.remove(&name);
        self.fallbacks.remove(&name);
        for result in Verdict::ALL {
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
            for result in PULL_RESULTS {
                self.pulls.remove(&PullLabels {
                    registry: registry(),
                    place: place.name(),
                    result,
                });
            }
        }
    }
}

impl fmt::Debug for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
