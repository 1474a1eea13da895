//! What exists: read from a text in which everything was counted once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openmetrics_parser::openmetrics::parse_openmetrics;
use telemetry::Telemetry;
use telemetry::live::{Live, NodeLive};
use telemetry::metrics::{Resolved, Reviewed, code_name};
use telemetry::report::{Place, Verdict};

/// Labels and their values.
pub(crate) type Labels = BTreeMap<String, BTreeSet<String>>;

/// What is known of the metrics.
pub(crate) struct Exist {
    /// Type by name, as `docs/metrics.md` has both: a histogram without its suffixes.
    pub(crate) families: BTreeMap<String, (String, BTreeSet<String>)>,
    /// Labels by the name of samples, as queries have it.
    pub(crate) samples: BTreeMap<String, Labels>,
}

/// A registry's address, for what has one.
const REGISTRY: &str = "http://a.io";

/// Everything counted once, with each value that a label can have.
fn text() -> String {
    let telemetry = Telemetry::new();
    let metrics = telemetry.metrics();
    let second = Duration::from_secs(1);
    for code in 0..=16 {
        assert_ne!(code_name(code), "");
        metrics.call("PullImage", code);
    }
    metrics.added("PullImage", second);
    for outcome in [Resolved::Found, Resolved::Absent, Resolved::Unanswered] {
        metrics.resolution(outcome, Some(REGISTRY));
    }
    for result in Verdict::ALL {
        metrics.probe(REGISTRY, result, second);
    }
    for place in [
        Place::Offline,
        Place::Registry,
        Place::Redirect,
        Place::Origin,
    ] {
        for succeeded in [true, false] {
            metrics.pull("origin", place, succeeded, second);
        }
    }
    metrics.fallback(REGISTRY);
    metrics.config_loaded(1, true);
    for result in Reviewed::ALL {
        metrics.review(result, second);
    }
    metrics.client_certificate_refused();
    metrics.image_moved("imageRedirMapping[1]");
    let node = NodeLive {
        circuits_open: vec![(REGISTRY.to_owned(), false)],
        ..NodeLive::default()
    };
    metrics.encode(Live {
        node: Some(node),
        certificate_ends: Some(1.0),
        ..Live::default()
    })
}

impl Exist {
    pub(crate) fn read() -> Self {
        let text = text();
        // The parser holds that a histogram has no unit, which the specification doesn't.
        let without_units = text.lines().filter(|line| !line.starts_with("# UNIT "));
        let without_units = without_units.collect::<Vec<_>>().join("\n") + "\n";
        let parsed = parse_openmetrics(&without_units).unwrap();
        let mut exist = Self {
            families: BTreeMap::new(),
            samples: BTreeMap::new(),
        };
        for (name, family) in &parsed.families {
            let kind = text
                .lines()
                .find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")))
                .unwrap();
            let names: BTreeSet<String> = family.get_label_names().iter().cloned().collect();
            let name = match kind {
                "counter" => format!("{name}_total"),
                "info" => format!("{name}_info"),
                _ => name.clone(),
            };
            exist.families.insert(name, (kind.to_owned(), names));
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            exist.add_sample(line);
        }
        exist
    }

    /// A sample's line, whose values of labels hold neither quotes nor commas here.
    fn add_sample(&mut self, line: &str) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.trim_end_matches('}')),
            None => (series, ""),
        };
        let known = self.samples.entry(name.to_owned()).or_default();
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once('=').unwrap();
            let values = known.entry(label.to_owned()).or_default();
            values.insert(value.trim_matches('"').to_owned());
        }
    }
}
