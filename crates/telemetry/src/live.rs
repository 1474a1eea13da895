//! Metrics that are not counted but read when somebody looks.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::names::PREFIX;
use crate::report::CacheStatus;

/// What is so at this moment.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Of the node shim; none in another role.
    pub node: Option<NodeLive>,
    /// Of the webhook: when its certificate ends, in seconds since 1970; none where it has none.
    pub certificate_ends: Option<f64>,
    /// Of the process.
    pub process: ProcessLive,
}

/// What is so at this moment in a node shim.
#[derive(Clone, Debug, Default)]
pub struct NodeLive {
    /// Registries of the config by address, and whether each one's circuit is open.
    pub circuits_open: Vec<(String, bool)>,
    /// Counters of the caches, from the start of the process to now.
    pub caches: CacheStatus,
    /// Whether the container runtime answered a moment ago.
    pub runtime_reachable: bool,
    /// PullImage calls that have begun and not ended.
    pub pulls_running: usize,
    /// Whether kubelet is led past the shim.
    pub bypass: BypassLive,
}

/// Whether kubelet is led past the shim, and how often and how long it was since the node has booted.
#[derive(Clone, Copy, Debug, Default)]
pub struct BypassLive {
    /// Whether it is so now.
    pub in_force: bool,
    /// How often it was so.
    pub periods: u64,
    /// For how many seconds in all.
    pub seconds: u64,
}

/// The process, under the names that Prometheus' client libraries agree on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessLive {
    /// When it started, in seconds since 1970.
    pub start_time_seconds: f64,
    /// Memory that it has now and that is not swapped out, in bytes.
    pub resident_bytes: u64,
    /// Time that it has kept CPUs busy since its start, in user and kernel mode, in seconds.
    pub cpu_seconds: f64,
    /// Files, sockets and the like that it has open now.
    pub open_fds: u64,
    /// Log lines that were dropped since its start, because nobody read them in time.
    pub log_lines_lost: u64,
}

/// Writes the last [`Live`].
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveCollector(Arc<Mutex<Live>>);

impl LiveCollector {
    pub(crate) fn set(&self, live: Live) {
        *self.0.lock() = live;
    }
}

impl Collector for LiveCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let live = self.0.lock();
        if let Some(node) = &live.node {
            write_node(node, &mut encoder)?;
        }
        if let Some(ends) = live.certificate_ends {
            let gauge = ConstGauge::new(ends);
            let name = format!("{PREFIX}_certificate_not_after_timestamp");
            let help = "When the webhook's certificate ends, since the Unix epoch";
            let (unit, kind) = (Some(&Unit::Seconds), gauge.metric_type());
            gauge.encode(encoder.encode_descriptor(&name, help, unit, kind)?)?;
        }
        write_process(live.process, &mut encoder)
    }
}

fn write_node(node: &NodeLive, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let name = format!("{PREFIX}_registry_circuit_open");
    let help = "Whether a registry is not asked for a while, because it failed to answer";
    let kind = ConstGauge::new(0i64).metric_type();
    let mut metric = encoder.encode_descriptor(&name, help, None, kind)?;
    for (registry, open) in &node.circuits_open {
        let labels = [("registry", registry.as_str())];
        ConstGauge::new(i64::from(*open)).encode(metric.encode_family(&labels)?)?;
    }
    let caches = &node.caches;
    for (name, help, images, registries) in [
        (
            "hits",
            "Questions that were answered from memory",
            caches.image_hits,
            caches.domain_hits,
        ),
        (
            "misses",
            "Questions that had to be asked",
            caches.image_misses,
            caches.domain_misses,
        ),
        (
            "evictions",
            "Entries forgotten because the memory was full",
            caches.image_evictions,
            caches.domain_evictions,
        ),
    ] {
        let name = format!("{PREFIX}_cache_{name}");
        let kind = ConstCounter::new(0u64).metric_type();
        let mut metric = encoder.encode_descriptor(&name, help, None, kind)?;
        for (cache, value) in [("image", images), ("domain", registries)] {
            let labels = [("cache", cache)];
            ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
        }
    }
    let invalidations = ConstCounter::new(caches.invalidations);
    let help = "Answers dropped because a pull showed them wrong";
    let name = format!("{PREFIX}_cache_invalidations");
    invalidations.encode(encoder.encode_descriptor(
        &name,
        help,
        None,
        invalidations.metric_type(),
    )?)?;
    for (name, help, value) in [
        (
            "runtime_reachable",
            "Whether the container runtime answers",
            i64::from(node.runtime_reachable),
        ),
        (
            "pulls_running",
            "Pulls under way",
            i64::try_from(node.pulls_running).unwrap_or(i64::MAX),
        ),
        (
            "bypass_in_force",
            "Whether kubelet is led past the shim, to the container runtime",
            i64::from(node.bypass.in_force),
        ),
    ] {
        write_gauge(&format!("{PREFIX}_{name}"), help, None, value, encoder)?;
    }
    let periods = ConstCounter::new(node.bypass.periods);
    let help = "Times that kubelet was led past the shim, since the node has booted";
    let name = format!("{PREFIX}_bypass_periods");
    periods.encode(encoder.encode_descriptor(&name, help, None, periods.metric_type())?)?;
    let seconds = ConstCounter::new(node.bypass.seconds);
    let help = "Time in which kubelet was led past the shim, since the node has booted";
    let name = format!("{PREFIX}_bypass");
    let unit = Some(&Unit::Seconds);
    seconds.encode(encoder.encode_descriptor(&name, help, unit, seconds.metric_type())?)
}

fn write_process(process: ProcessLive, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let start = ConstGauge::new(process.start_time_seconds);
    let help = "When the process started, since the Unix epoch";
    let name = "process_start_time";
    start.encode(encoder.encode_descriptor(
        name,
        help,
        Some(&Unit::Seconds),
        start.metric_type(),
    )?)?;
    let cpu = ConstCounter::new(process.cpu_seconds);
    let help = "Time that the process has kept CPUs busy";
    let name = "process_cpu";
    cpu.encode(encoder.encode_descriptor(name, help, Some(&Unit::Seconds), cpu.metric_type())?)?;
    let resident = i64::try_from(process.resident_bytes).unwrap_or(i64::MAX);
    let help = "Memory that the process really has";
    let unit = Some(&Unit::Bytes);
    write_gauge("process_resident_memory", help, unit, resident, encoder)?;
    let fds = i64::try_from(process.open_fds).unwrap_or(i64::MAX);
    let help = "Files, sockets and the like that the process has open";
    write_gauge("process_open_fds", help, None, fds, encoder)?;
    let lost = ConstCounter::new(process.log_lines_lost);
    let help = "Log lines that were dropped because nobody read them in time";
    let name = format!("{PREFIX}_log_lines_lost");
    lost.encode(encoder.encode_descriptor(&name, help, None, lost.metric_type())?)
}

fn write_gauge(
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: i64,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn what_is_so_is_in_the_text() {
        let metrics = Metrics::default();
        let text = metrics.encode(Live {
            node: Some(NodeLive {
                circuits_open: vec![("http://a.io".to_owned(), true)],
                runtime_reachable: true,
                pulls_running: 3,
                bypass: BypassLive {
                    in_force: true,
                    periods: 2,
                    seconds: 40,
                },
                caches: CacheStatus {
                    image_hits: 7,
                    ..CacheStatus::default()
                },
            }),
            certificate_ends: Some(7.5),
            process: ProcessLive {
                start_time_seconds: 1.5,
                resident_bytes: 42,
                cpu_seconds: 0.25,
                open_fds: 9,
                log_lines_lost: 3,
            },
        });
        for line in [
            r#"image_cri_shim_registry_circuit_open{registry="http://a.io"} 1"#,
            r#"image_cri_shim_cache_hits_total{cache="image"} 7"#,
            "image_cri_shim_runtime_reachable 1",
            "image_cri_shim_pulls_running 3",
            "image_cri_shim_bypass_in_force 1",
            "image_cri_shim_bypass_periods_total 2",
            "image_cri_shim_bypass_seconds_total 40",
            "image_cri_shim_cache_invalidations_total 0",
            "image_cri_shim_certificate_not_after_timestamp_seconds 7.5",
            "process_start_time_seconds 1.5",
            "process_cpu_seconds_total 0.25",
            "process_resident_memory_bytes 42",
            "process_open_fds 9",
            "image_cri_shim_log_lines_lost_total 3",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
        }
    }
}
