//! The cache's numbers, as OpenMetrics text.

use std::fmt::Write;

use crate::service::{Cache, RequestKind, RequestOutcome};

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
    Ok(())
}

fn describe(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {PREFIX}_{name} {help}.")?;
    writeln!(out, "# TYPE {PREFIX}_{name} {kind}")
}
