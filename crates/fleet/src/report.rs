//! Outcomes as tables, in Markdown.

use std::fmt::Write;

use crate::meter::Series;
use crate::scenario::{Outcome, Scenario};

/// One scenario's tables: ours beside the predecessor's.
pub fn table(scenario: &Scenario, ours: &Outcome, before: &Outcome) -> String {
    let mut text = String::new();
    let pulls = ours.waits.finished() as f64 + ours.waits.unfinished as f64;
    let _ = writeln!(
        text,
        "### {}: {}\n\n{} nodes, {} images, {pulls} pods, {} minutes.\n",
        scenario.name,
        scenario.title,
        scenario.nodes,
        scenario.images.len(),
        scenario.horizon.as_secs() / 60,
    );
    let _ = writeln!(
        text,
        "| asked | by | busiest 10 s, ours | predecessor | ratio | busiest 1 s, ours | predecessor | mean, ours | predecessor | per pod, ours | predecessor |\n|---|---|---|---|---|---|---|---|---|---|---|"
    );
    let seconds = scenario.horizon.as_secs_f64();
    for (place, old) in ours.places.iter().zip(&before.places) {
        let all = (place.shim.and(&place.runtime), old.shim.and(&old.runtime));
        let rows = [
            ("shim", &place.shim, &old.shim),
            ("runtime", &place.runtime, &old.runtime),
            ("both", &all.0, &all.1),
        ];
        for (asker, ours, before) in rows {
            let _ = writeln!(
                text,
                "| {} | {asker} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                place.name,
                rate(ours.peak()),
                rate(before.peak()),
                ratio(ours, before),
                rate(ours.peak_second()),
                rate(before.peak_second()),
                rate(ours.total() as f64 / seconds),
                rate(before.total() as f64 / seconds),
                rate(ours.total() as f64 / pulls),
                rate(before.total() as f64 / pulls),
            );
        }
    }
    let _ = writeln!(
        text,
        "\n| pods | p50 | p99 | without an image at the end |\n|---|---|---|---|"
    );
    for (who, outcome) in [("ours", ours), ("predecessor", before)] {
        let waits = &outcome.waits;
        let _ = writeln!(
            text,
            "| {who} | {:.1} s | {:.1} s | {} |",
            waits.quantile(0.5),
            waits.quantile(0.99),
            waits.unfinished,
        );
    }
    text
}

/// Three figures are enough.
fn rate(number: f64) -> String {
    if number >= 100.0 {
        format!("{number:.0}")
    } else if number >= 10.0 {
        format!("{number:.1}")
    } else {
        format!("{number:.2}")
    }
}

fn ratio(ours: &Series, before: &Series) -> String {
    if before.peak() == 0.0 {
        return if ours.peak() == 0.0 { "–" } else { "more" }.to_owned();
    }
    format!("{:.2}", ours.peak() / before.peak())
}
