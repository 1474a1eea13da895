//! `doctor`: one line for each thing that was looked at, and what mends it.

use std::time::{Duration, SystemTime};

use doctor::{Line, Report, Verdict};

use super::cell::Cell;
use super::page::Page;
use super::style;
use super::units;

/// Adds all areas, and what to do first.
pub(crate) fn doctor(page: &mut Page, report: &Report, now: SystemTime) {
    let node = report.node.as_deref().unwrap_or("no kubelet found");
    page.line(&[
        Cell::styled(
            format!("image-cri-shim doctor {}", report.version),
            style::HEAD,
        ),
        Cell::new(node),
        Cell::styled(
            humantime::format_rfc3339_seconds(now)
                .to_string()
                .replace('T', " "),
            style::DIM,
        ),
    ]);
    let mut area = None;
    for line in &report.lines {
        if area != Some(line.area) {
            page.section(line.area.title());
            area = Some(line.area);
        }
        entry(page, line);
    }
    page.space();
    summary(page, report);
}

fn entry(page: &mut Page, line: &Line) {
    page.verdict(&mark(line.verdict), &Cell::new(&line.text));
    if let Some(mend) = &line.mend {
        page.mend(&Cell::styled(mend, style::HEAD));
    }
}

fn mark(verdict: Verdict) -> Cell {
    let style = match verdict {
        Verdict::Ok => style::GOOD,
        Verdict::Warn => style::WARN,
        Verdict::Bad => style::BAD,
    };
    Cell::styled(verdict.as_str(), style)
}

/// At the end, where the eye is when a page has scrolled by.
fn summary(page: &mut Page, report: &Report) {
    let elapsed = units::duration(Duration::from_millis(report.elapsed_ms));
    let count = |verdict: Verdict| {
        let cell = Cell::new(format!("{} {}", report.count(verdict), verdict.as_str()));
        match report.count(verdict) {
            0 => cell,
            _ => mark(verdict).with_text(&cell.to_string()),
        }
    };
    page.line(&[
        count(Verdict::Bad),
        count(Verdict::Warn),
        count(Verdict::Ok),
        Cell::styled(format!("in {elapsed}"), style::DIM),
    ]);
    if let Some(first) = report.first() {
        page.line(&[Cell::styled("First:", style::HEAD), Cell::new(&first.text)]);
        if let Some(mend) = &first.mend {
            page.mend(&Cell::styled(mend, style::HEAD));
        }
    }
}
