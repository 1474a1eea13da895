//! The end of `resolve` about many images: how many can be pulled, from where, and which can't.

use std::collections::BTreeMap;

use telemetry::report::{Explanation, Place, Verdict};

use super::cell::Cell;
use super::explanation::{said, word};
use super::page::Page;
use super::style;
use super::table::{Column, Row, Table};
use super::units;
use crate::commands::item::Item;

/// Why nobody can give an image, in one line.
pub(crate) fn why_not(report: &Explanation) -> String {
    if let Some(why) = &report.untouched {
        return why.clone();
    }
    let mut parts: Vec<String> = Vec::new();
    for candidate in &report.candidates {
        let Some(probe) = &candidate.probe else {
            continue;
        };
        let said = match probe.result {
            Verdict::NotFound => word(probe.result).to_owned(),
            _ => said(probe),
        };
        parts.push(format!("{} {said}", candidate.registry));
    }
    if let Some(origin) = &report.origin {
        match &origin.probe {
            Some(probe) if probe.result == Verdict::Unauthorized => parts.push(format!(
                "origin {} (a pod's own credentials may do)",
                said(probe)
            )),
            Some(probe) => parts.push(format!("origin {}", said(probe))),
            None if !origin.allowed => {
                parts.push("origin not allowed (fallbackToOrigin is false)".to_owned());
            }
            None => {}
        }
    }
    parts.join("; ")
}

/// Adds the summary.
pub(crate) fn summary(page: &mut Page, items: &[Item]) {
    let (good, bad): (Vec<&Item>, Vec<&Item>) = items.iter().partition(|item| item.is_good());
    let is_pull = items.iter().any(|item| item.pull.is_some());
    let is_offline = items
        .iter()
        .all(|item| item.explanation.available.is_none());
    page.space();
    let all = units::count(items.len() as u64, "image");
    let said = match (is_pull, is_offline) {
        (true, _) => format!("{} of {all} pulled", good.len()),
        (false, true) => format!("{} of {all} understood", good.len()),
        (false, false) => format!("{} of {all} can be pulled", good.len()),
    };
    let color = if bad.is_empty() {
        style::GOOD
    } else {
        style::BAD
    };
    page.line(&[Cell::styled(said, color.bold())]);
    let mut sources: BTreeMap<String, usize> = BTreeMap::new();
    for item in &good {
        *sources.entry(source(item)).or_default() += 1;
    }
    let mut sources: Vec<_> = sources.into_iter().collect();
    sources.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let row = |cells: Vec<Cell>| Row {
        mark: Cell::empty(),
        cells,
    };
    if !sources.is_empty() {
        let title = match (is_pull, is_offline) {
            (false, true) => "TRIED FIRST",
            _ => "FROM",
        };
        page.table(&Table {
            columns: vec![Column::right("IMAGES"), Column::left(title)],
            key: 1,
            rows: sources
                .into_iter()
                .map(|(source, count)| row(vec![Cell::new(count.to_string()), Cell::new(source)]))
                .collect(),
        });
    }
    if !bad.is_empty() {
        page.table(&Table {
            columns: vec![Column::left("NOT PULLED"), Column::wrapping("WHY")],
            key: 0,
            rows: bad
                .into_iter()
                .map(|item| {
                    row(vec![
                        Cell::styled(&item.explanation.image, style::BAD),
                        Cell::new(why(item)),
                    ])
                })
                .collect(),
        });
    }
}

fn why(item: &Item) -> String {
    match item.pull.as_ref().and_then(|pull| pull.error.as_ref()) {
        Some(error) => error.clone(),
        None => why_not(&item.explanation),
    }
}

fn source(item: &Item) -> String {
    if let Some(pull) = &item.pull
        && let Some(registry) = &pull.registry
    {
        return registry.clone();
    }
    match item.explanation.order.first() {
        Some(choice) if choice.place != Place::Origin => choice.registry.clone(),
        _ => "origin".to_owned(),
    }
}
