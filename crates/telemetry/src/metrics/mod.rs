//! Counters and histograms of one process, in OpenMetrics text.
//!
//! `docs/metrics.md` lists them all. Labels are bounded: a registry is a label because the config
//! names it, an image never is, and a method that the CRI does not have is `other`.

mod families;
mod labels;

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::text;

use self::families::Families;
use self::labels::{
    CALLED_OFF, CallLabels, MethodLabels, PLACES, PlaceLabels, ProbeLabels, PullLabels,
    RegistryLabels, ResolutionLabels, ReviewLabels, RuleLabels, pull_result,
};
pub use self::labels::{Resolved, Reviewed, code_name};
use crate::live::Live;
pub use crate::names::{NONE, ORIGIN};
use crate::report::{Place, Verdict};

/// The methods of CRI's image service.
const IMAGE_SERVICE: [&str; 6] = [
    "ImageFsInfo",
    "ImageStatus",
    "ListImages",
    "PullImage",
    "RemoveImage",
    "StreamImages",
];

/// Counters and histograms; shared by reference.
#[derive(Debug)]
pub struct Metrics {
    /// None counts nothing.
    inner: Option<Families>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            inner: Some(Families::new()),
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
            let _ = text::encode(&mut out, &inner.registry.lock());
        }
        out
    }

    /// Forgets the registries that `keep` doesn't want, so that a config which changes for years leaves
    /// no trace.
    pub fn retain_registries(&self, keep: impl Fn(&str) -> bool) {
        let Some(inner) = &self.inner else {
            return;
        };
        let mut known = inner.known.lock();
        let gone: Vec<String> = known.iter().filter(|name| !keep(name)).cloned().collect();
        for registry in gone {
            known.remove(&registry);
            inner.forget(&registry);
        }
    }

    /// A call of a client has ended. `method` is one of a fixed list; `code` is gRPC's.
    pub fn call(&self, method: &'static str, code: i32) {
        if let Some(inner) = &self.inner {
            if IMAGE_SERVICE.contains(&method) {
                inner.image_calls.fetch_add(1, Ordering::Relaxed);
            }
            let code = code_name(code);
            inner
                .calls
                .get_or_create(&CallLabels { method, code })
                .inc();
        }
    }

    /// Calls of the image service that have ended.
    pub fn image_calls(&self) -> u64 {
        self.inner
            .as_ref()
            .map_or(0, |inner| inner.image_calls.load(Ordering::Relaxed))
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
    pub fn probe(&self, registry: &str, result: Verdict, elapsed: Duration) {
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

    /// A pull that had begun early was called off: another place than `registry` has the image.
    pub fn pull_called_off(&self, registry: &str, place: Place) {
        if let Some(inner) = &self.inner {
            let labels = PullLabels {
                registry: inner.know(registry),
                place: place.name(),
                result: CALLED_OFF,
            };
            inner.pulls.get_or_create(&labels).inc();
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

    /// Whether no config is in force that anybody has written, so that every call is forwarded as it comes.
    pub fn config_forwards_everything(&self, it_does: bool) {
        if let Some(inner) = &self.inner {
            inner.config_forwards.set(i64::from(it_does));
        }
    }

    /// For a webhook: what it counts is there from the first scrape on. `rules` are those that can move an
    /// image.
    pub fn expect_reviews(&self, rules: impl IntoIterator<Item = String>) {
        let Some(inner) = &self.inner else { return };
        for result in Reviewed::ALL {
            let result = result.name();
            drop(inner.reviews.get_or_create(&ReviewLabels { result }));
        }
        drop(inner.review_seconds.get_or_create(&[]));
        drop(inner.certificates_refused.get_or_create(&[]));
        for rule in rules {
            drop(inner.images_moved.get_or_create(&RuleLabels { rule }));
        }
    }

    /// The webhook has answered a review.
    pub fn review(&self, result: Reviewed, elapsed: Duration) {
        if let Some(inner) = &self.inner {
            let result = result.name();
            inner.reviews.get_or_create(&ReviewLabels { result }).inc();
            let histogram = inner.review_seconds.get_or_create(&[]);
            histogram.observe(elapsed.as_secs_f64());
        }
    }

    /// Somebody has shown the webhook a certificate that is not an API server's.
    pub fn client_certificate_refused(&self) {
        if let Some(inner) = &self.inner {
            inner.certificates_refused.get_or_create(&[]).inc();
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
        let probes = |result: Verdict| {
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
            Verdict::ALL.into_iter().map(probes).sum(),
            probes(Verdict::Found),
            PLACES.into_iter().map(pulls).sum(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_in_the_text() {
        let metrics = Metrics::default();
        metrics.call("PullImage", 5);
        metrics.probe("http://a.io", Verdict::Found, Duration::from_millis(3));
        metrics.probe("http://a.io", Verdict::NotFound, Duration::from_millis(3));
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
            metrics.probe(registry, Verdict::Found, Duration::ZERO);
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
    fn where_nobody_has_written_a_config_none_was_refused() {
        let metrics = Metrics::default();
        let says = |good: u8| {
            let line = format!("image_cri_shim_config_last_reload_successful {good}\n");
            metrics.encode(Live::default()).contains(&line)
        };
        assert!(says(1));
        metrics.config_refused();
        assert!(says(0));
    }

    #[test]
    fn off_counts_nothing() {
        let metrics = Metrics::off();
        metrics.call("PullImage", 0);
        assert_eq!(metrics.encode(Live::default()), "");
    }
}
