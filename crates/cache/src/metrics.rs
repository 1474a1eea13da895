//! The cache's numbers, as OpenMetrics text.

use std::fmt::Write;

use crate::service::{Cache, RequestKind, RequestOutcome};
use crate::shared::Shared;

const PREFIX: &str = "image_cri_shim_node_cache";

/// All of them, without the end mark.
pub fn encode(cache: &Cache) -> String {
    let mut out = String::new();
    // Writing to a string fails never.
    let _ = write_all(cache, &mut out);
    out
}

fn write_all(cache: &Cache, out: &mut String) -> std::fmt::Result {
    let counters = cache.counters();
    describe(out, "requests", "counter", "Requests that were answered")?;
    for kind in RequestKind::ALL {
        for outcome in RequestOutcome::ALL {
            writeln!(
                out,
                "{PREFIX}_requests_total{{kind=\"{}\",result=\"{}\"}} {}",
                kind.name(),
                outcome.name(),
                counters.requests(kind, outcome)
            )?;
        }
    }
    let (sent, received) = counters.bytes();
    describe(out, "bytes", "counter", "Bytes of manifests and blobs")?;
    writeln!(out, "{PREFIX}_bytes_total{{direction=\"sent\"}} {sent}")?;
    writeln!(
        out,
        "{PREFIX}_bytes_total{{direction=\"received\"}} {received}"
    )?;
    describe(
        out,
        "upstream_seconds",
        "histogram",
        "Time until an upstream registry answered a question about a manifest",
    )?;
    let (buckets, sum, count) = counters.upstream();
    for (bound, below) in buckets {
        writeln!(
            out,
            "{PREFIX}_upstream_seconds_bucket{{le=\"{bound}\"}} {below}"
        )?;
    }
    writeln!(
        out,
        "{PREFIX}_upstream_seconds_bucket{{le=\"+Inf\"}} {count}"
    )?;
    writeln!(out, "{PREFIX}_upstream_seconds_sum {sum}")?;
    writeln!(out, "{PREFIX}_upstream_seconds_count {count}")?;
    let storage = cache.storage();
    describe(
        out,
        "evictions",
        "counter",
        "Images that went to make room for others",
    )?;
    writeln!(out, "{PREFIX}_evictions_total {}", storage.evictions())?;
    for (name, help, value) in [
        (
            "stored_bytes",
            "Bytes of blobs in the store",
            storage.stored_bytes(),
        ),
        (
            "stored_images",
            "Images in the store: what no other manifest names",
            storage.index().image_count().unwrap_or(0),
        ),
        (
            "transfers",
            "Blobs that are being downloaded",
            cache.transfers().count() as u64,
        ),
    ] {
        describe(out, name, "gauge", help)?;
        writeln!(out, "{PREFIX}_{name} {value}")?;
    }
    match cache.shared() {
        Some(shared) => write_shared(&shared, out),
        None => Ok(()),
    }
}

fn write_shared(shared: &Shared, out: &mut String) -> std::fmt::Result {
    let counters = shared.counters();
    let help = "Questions to the shared store for blobs and manifests";
    describe(out, "shared_requests", "counter", help)?;
    for (result, count) in counters.requests() {
        writeln!(
            out,
            "{PREFIX}_shared_requests_total{{result=\"{result}\"}} {count}"
        )?;
    }
    let help = "Bytes to and from the shared store";
    describe(out, "shared_bytes", "counter", help)?;
    let (sent, received) = counters.bytes();
    for (direction, bytes) in [("sent", sent), ("received", received)] {
        writeln!(
            out,
            "{PREFIX}_shared_bytes_total{{direction=\"{direction}\"}} {bytes}"
        )?;
    }
    let help = "Blobs of the shared store that had other bytes than their digest says";
    describe(out, "shared_discards", "counter", help)?;
    writeln!(
        out,
        "{PREFIX}_shared_discards_total {}",
        counters.discards()
    )?;
    let help = "Whether the shared store is not asked, because it did not answer";
    describe(out, "shared_circuit_open", "gauge", help)?;
    let is_open = u8::from(shared.is_circuit_open());
    writeln!(out, "{PREFIX}_shared_circuit_open {is_open}")
}

fn describe(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {PREFIX}_{name} {help}.")?;
    writeln!(out, "# TYPE {PREFIX}_{name} {kind}")
}
