//! Outcomes as tables, in Markdown, and plots.

use std::fmt::Write;

use anyhow::Result;

use crate::following::{Followed, Following};
use crate::meter::{Series, Waits};
use crate::plots::{Line, svg};
use crate::scenario::{Outcome, Scenario};

/// What one scenario has shown.
pub struct Section {
    /// Its tables.
    pub tables: String,
    /// Its plots.
    pub plots: Vec<Plot>,
}

/// A picture.
pub struct Plot {
    /// Name of its file.
    pub file: String,
    /// What is in it.
    pub svg: String,
}

/// The head of a table of requests.
const HEAD: &str = "| asked | by | busiest 10 s, ours | predecessor | ratio | busiest 1 s, ours | predecessor | mean, ours | predecessor | per pod, ours | predecessor |
|---|---|---|---|---|---|---|---|---|---|---|";

/// One scenario in which pods want images: ours beside the predecessor's.
///
/// # Errors
/// A plot can't be drawn.
pub fn pulling(scenario: &Scenario, ours: &Outcome, before: &Outcome) -> Result<Section> {
    let pods = ours.waits.finished() as f64 + ours.waits.unfinished as f64;
    let seconds = scenario.horizon.as_secs();
    let mut tables = format!(
        "### {}: {}\n\n{} nodes, {} images, {pods} pods, {} minutes. Requests per second:\n\n{HEAD}\n",
        scenario.name,
        scenario.title,
        scenario.nodes,
        scenario.images.len(),
        seconds / 60,
    );
    let mut plots = Vec::new();
    for (place, old) in ours.places.iter().zip(&before.places) {
        let (all, all_before) = (place.shim.and(&place.runtime), old.shim.and(&old.runtime));
        let rows = [
            ("shim", &place.shim, &old.shim),
            ("runtime", &place.runtime, &old.runtime),
            ("both", &all, &all_before),
        ];
        for (asker, ours, before) in rows {
            let per_pod = |series: &Series| rate(series.total() as f64 / pods);
            let row = row(place.name, asker, ours, before, seconds);
            let _ = writeln!(tables, "{row} {} | {} |", per_pod(ours), per_pod(before));
        }
        let name = place.name.replace([' ', '.'], "-");
        plots.push(plot(
            format!("{}-{name}.svg", scenario.name),
            &format!("{}: {}, shim and runtime", scenario.name, place.name),
            (&all, &all_before),
            seconds,
        )?);
    }
    tables.push_str("\nTime from a pod's start to its image:\n\n| | p50 | p99 | pods without an image at the end |\n|---|---|---|---|\n");
    for (who, waits) in [("ours", &ours.waits), ("predecessor", &before.waits)] {
        let _ = writeln!(tables, "{}", times(who, waits));
    }
    Ok(Section { tables, plots })
}

/// One scenario in which nodes follow the ConfigMap.
///
/// # Errors
/// A plot can't be drawn.
pub fn following(following: &Following, ours: &Followed, before: &Followed) -> Result<Section> {
    let seconds = following.horizon.as_secs();
    let mut tables = format!(
        "### {}: {}\n\n{} nodes, {} minutes. Requests per second:\n\n{}\n",
        following.name,
        following.title,
        following.nodes,
        seconds / 60,
        HEAD.replace("per pod", "per node"),
    );
    let (all, all_before) = (ours.load.all(), before.load.all());
    let rows = [
        ("questions", &ours.load.questions, &before.load.questions),
        ("watches", &ours.load.watches, &before.load.watches),
        ("both", &all, &all_before),
    ];
    for (kind, ours, before) in rows {
        let per_node = |series: &Series| rate(series.total() as f64 / following.nodes as f64);
        let row = row("API server", kind, ours, before, seconds);
        let _ = writeln!(tables, "{row} {} | {} |", per_node(ours), per_node(before));
    }
    tables.push_str("\nTime from a change of the ConfigMap to the nodes:\n\n| change at | p50 | p99 | nodes without it at the end |\n|---|---|---|---|\n");
    for (at, change) in following.changes.iter().enumerate() {
        for (who, followed) in [("ours", ours), ("predecessor", before)] {
            let Some(waits) = followed.lags.get(at) else {
                continue;
            };
            let who = format!("{} s, {who}", change.as_secs());
            let _ = writeln!(tables, "{}", times(&who, waits));
        }
    }
    let plot = plot(
        format!("{}.svg", following.name),
        &format!("{}: requests to the API server", following.name),
        (&all, &all_before),
        seconds,
    )?;
    Ok(Section {
        tables,
        plots: vec![plot],
    })
}

fn plot(
    file: String,
    title: &str,
    (ours, before): (&Series, &Series),
    seconds: u64,
) -> Result<Plot> {
    let lines = [("ours", ours), ("predecessor", before)];
    let lines = lines.map(|(name, series)| Line { name, series });
    let svg = svg(title, &lines, seconds)?;
    Ok(Plot { file, svg })
}

/// A row but for its last two cells.
fn row(place: &str, asker: &str, ours: &Series, before: &Series, seconds: u64) -> String {
    let mean = |series: &Series| rate(series.total() as f64 / seconds as f64);
    format!(
        "| {place} | {asker} | {} | {} | {} | {} | {} | {} | {} |",
        rate(ours.peak()),
        rate(before.peak()),
        ratio(ours, before),
        rate(ours.peak_second()),
        rate(before.peak_second()),
        mean(ours),
        mean(before),
    )
}

fn times(who: &str, waits: &Waits) -> String {
    format!(
        "| {who} | {} s | {} s | {} |",
        rate(waits.quantile(0.5)),
        rate(waits.quantile(0.99)),
        waits.unfinished,
    )
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
