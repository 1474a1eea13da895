//! `resolve`: what would happen to one image, and why.

use policy::text::one_line;
use telemetry::report::{
    CandidateReport, Choice, Explanation, Freshness, OriginReport, Place, ProbeReport, Verdict,
};

use super::cell::Cell;
use super::node_cache::node_cache_image;
use super::page::Page;
use super::style;
use super::table::{Column, Row, Table};
use super::units;
use crate::commands::item::{Item, Pull};

/// The longest text of a registry that is worth showing; it is cut by who took it in, too.
const MAX_DETAIL: usize = 400;

/// Adds a block about one image.
pub(crate) fn explanation(page: &mut Page, item: &Item) {
    let report = &item.explanation;
    page.space();
    page.line(&[Cell::styled(&report.image, style::HEAD)]);
    if let Some(place) = &item.named_at {
        page.field("named at", &[Cell::styled(place, style::DIM)]);
    }
    outcome(page, report);
    if let Some(redirect) = &report.redirect {
        let rule = format!(
            "imageRedirMapping[{}]: {} becomes {}",
            redirect.rule, redirect.src, redirect.to
        );
        page.field(
            "redirected",
            &[Cell::new(&redirect.image), Cell::styled(rule, style::DIM)],
        );
    }
    if report.untouched.is_some() {
        return;
    }
    if let Some(known) = &item.node_cache {
        node_cache_image(page, known);
    }
    page.table(&candidates(report));
    for left_out in &report.left_out {
        page.field(
            "not asked",
            &[
                Cell::new(&left_out.registry),
                Cell::styled(&left_out.why, style::DIM),
            ],
        );
    }
    order(page, report);
    if let Some(pull) = &item.pull {
        pulled(page, pull);
    }
}

/// What would be pulled, or why nothing can be.
fn outcome(page: &mut Page, report: &Explanation) {
    if let Some(why) = &report.untouched {
        page.field("not resolved", &[Cell::styled(why, style::BAD)]);
        return;
    }
    let first = report.order.first();
    let (Some(first), true) = (first, report.available != Some(false)) else {
        page.field("not pullable", &[Cell::styled(nobody(report), style::BAD)]);
        return;
    };
    let (label, color) = match report.available {
        Some(_) => ("pulled as", style::GOOD),
        None => ("tried first", style::PLAIN),
    };
    page.field(label, &[Cell::styled(&first.image, color)]);
    page.field("because", &[Cell::new(because(report, first))]);
}

/// In short: the table below says who said what.
fn nobody(report: &Explanation) -> &'static str {
    let origin = report.origin.as_ref().and_then(|o| o.probe.as_ref());
    let probes = report.candidates.iter().filter_map(|c| c.probe.as_ref());
    let is_silent = |probe: &ProbeReport| {
        matches!(
            probe.result,
            Verdict::Unavailable | Verdict::ImageFailed | Verdict::RateLimited
        )
    };
    let is_origin_off = report.origin.as_ref().is_some_and(|o| !o.allowed);
    match (probes.chain(origin).any(is_silent), is_origin_off) {
        (false, false) => "nobody has it",
        (false, true) => "no place of the config has it, and its origin is not allowed",
        (true, false) => "nobody that answers has it",
        (true, true) => "no place of the config that answers has it, and its origin is not allowed",
    }
}

fn because(report: &Explanation, first: &Choice) -> String {
    let chosen = candidate_of(report, first);
    match chosen {
        None if report.candidates.is_empty() => {
            "no registry and no redirect of the config is for it, so it comes from its origin"
                .into()
        }
        None => "no place of the config has it, and its origin does".into(),
        Some(candidate) => {
            let found =
                |c: &CandidateReport| c.probe.as_ref().is_some_and(|p| p.result == Verdict::Found);
            if report.available.is_none() {
                format!("it comes first: {}", candidate.reason)
            } else if !found(candidate) {
                format!(
                    "only a 404 rules out the target of a redirect ({})",
                    candidate.reason
                )
            } else if report.candidates.iter().filter(|c| found(c)).count() > 1 {
                format!("it is the first that has it: {}", candidate.reason)
            } else {
                format!("it alone has it: {}", candidate.reason)
            }
        }
    }
}

fn candidate_of<'a>(report: &'a Explanation, choice: &Choice) -> Option<&'a CandidateReport> {
    let mut candidates = report.candidates.iter();
    candidates.find(|c| choice.place != Place::Origin && c.image == choice.image)
}

fn candidates(report: &Explanation) -> Table {
    let first = report.order.first();
    let is_first = |image: &str, place: Place| {
        report.available != Some(false)
            && first.is_some_and(|first| first.image == image && first.place == place)
    };
    let mut rows: Vec<Row> = report
        .candidates
        .iter()
        .map(|candidate| row(candidate, is_first(&candidate.image, candidate.place)))
        .collect();
    if let Some(origin) = &report.origin {
        rows.push(origin_row(
            report,
            origin,
            is_first(&origin.image, Place::Origin),
        ));
    }
    let table = Table {
        columns: vec![
            Column::right("PRIO"),
            Column::left("REGISTRY"),
            Column::right("TIME"),
            Column::wrapping("RESULT"),
            Column::left("DIGEST").aside(),
            Column::left("CREDENTIALS").aside(),
            Column::wrapping("WHY").aside(),
        ],
        key: 1,
        rows,
    };
    table.without_empty_columns()
}

fn mark(is_first: bool) -> Cell {
    match is_first {
        true => Cell::styled(">", style::GOOD),
        false => Cell::empty(),
    }
}

fn row(candidate: &CandidateReport, is_first: bool) -> Row {
    let priority = candidate.priority.map(|number| number.to_string());
    let [time, result, digest] = answer(candidate.probe.as_ref());
    Row {
        mark: mark(is_first),
        cells: vec![
            Cell::new(priority.unwrap_or_default()),
            Cell::new(&candidate.registry),
            time,
            result,
            digest,
            Cell::new(&candidate.credentials),
            Cell::new(why(candidate)),
        ],
    }
}

/// The reason, without the priority that has a column of its own.
fn why(candidate: &CandidateReport) -> String {
    let reason = candidate.reason.as_str();
    let Some(priority) = candidate.priority else {
        return reason.to_owned();
    };
    match reason.strip_prefix(&format!("priority {priority}")) {
        Some(rest) => match rest.strip_prefix(" (default)") {
            Some(rest) => format!("default priority{rest}"),
            None => rest.trim_start_matches(", ").to_owned(),
        },
        None => reason.to_owned(),
    }
}

fn origin_row(report: &Explanation, origin: &OriginReport, is_first: bool) -> Row {
    let is_probed = report.available.is_some();
    let [time, result, digest] = match &origin.probe {
        None if !origin.allowed => [
            Cell::empty(),
            Cell::styled("not allowed", style::WARN),
            Cell::empty(),
        ],
        None if is_probed => [
            Cell::empty(),
            Cell::styled("not asked: a better place has it", style::DIM),
            Cell::empty(),
        ],
        probe => answer(probe.as_ref()),
    };
    let why = match origin.allowed {
        true => "the name as written, when nothing else works",
        false => "fallbackToOrigin is false",
    };
    Row {
        mark: mark(is_first),
        cells: vec![
            Cell::empty(),
            Cell::new("origin"),
            time,
            result,
            digest,
            Cell::new(if origin.allowed { "the pod's own" } else { "" }),
            Cell::new(why),
        ],
    }
}

/// Time, result and digest.
fn answer(probe: Option<&ProbeReport>) -> [Cell; 3] {
    let Some(probe) = probe else {
        return [Cell::empty(), Cell::empty(), Cell::empty()];
    };
    let color = color(probe.result);
    let time = match probe.freshness {
        Freshness::Probed => units::micros(probe.elapsed_us),
        Freshness::Remembered => "remembered".to_owned(),
        Freshness::CircuitOpen => "not asked".to_owned(),
    };
    let digest = probe.digest.as_deref().map(units::digest);
    [
        Cell::new(time),
        Cell::styled(said(probe), color),
        Cell::new(digest.unwrap_or_default()),
    ]
}

pub(super) fn color(result: Verdict) -> anstyle::Style {
    match result {
        Verdict::Found => style::GOOD,
        Verdict::NotFound => style::PLAIN,
        Verdict::Unauthorized | Verdict::RateLimited => style::WARN,
        Verdict::Unavailable | Verdict::ImageFailed | Verdict::PullFailed => style::BAD,
    }
}

/// A result's word, with what the registry said where that says more.
pub(super) fn said(probe: &ProbeReport) -> String {
    let word = word(probe.result);
    let detail = one_line(&probe.detail, MAX_DETAIL);
    // Digest and status have other places; what is noted beside them has not.
    let (status, note) = match detail.split_once("; ") {
        Some((status, note)) => (status, Some(note)),
        None => (detail.as_str(), None),
    };
    let is_plain = match probe.result {
        Verdict::Found => status.is_empty() || status.starts_with("200"),
        Verdict::NotFound => status == "404" || status.is_empty(),
        _ => status.is_empty(),
    };
    match (is_plain, note) {
        (true, None) => word.to_owned(),
        (true, Some(note)) => format!("{word}; {note}"),
        // Both begin with what they mean.
        (false, _) if probe.freshness == Freshness::CircuitOpen => detail,
        (false, _) if probe.result == Verdict::PullFailed => detail,
        (false, _) => format!("{word}: {detail}"),
    }
}

pub(super) fn word(result: Verdict) -> &'static str {
    match result {
        Verdict::Found => "found",
        Verdict::NotFound => "not found",
        Verdict::Unauthorized => "unauthorized",
        Verdict::RateLimited => "rate limited",
        Verdict::ImageFailed => "failed for this image",
        Verdict::Unavailable => "unavailable",
        Verdict::PullFailed => "pull failed",
    }
}

/// The order of pulls, where there is more to it than the one that is marked.
fn order(page: &mut Page, report: &Explanation) {
    let rest = match report.available {
        Some(false) => report.order.as_slice(),
        _ => report.order.get(1..).unwrap_or_default(),
    };
    for (at, choice) in rest.iter().enumerate() {
        let label = match (at, report.available) {
            (0, Some(false)) => "tried still",
            (0, _) => "if that fails",
            _ => "then",
        };
        let from = match choice.place {
            Place::Origin => "its origin".to_owned(),
            Place::Offline | Place::Registry | Place::Redirect => choice.registry.clone(),
        };
        page.field(
            label,
            &[
                Cell::new(&choice.image),
                Cell::styled(format!("from {from}"), style::DIM),
            ],
        );
    }
}

fn pulled(page: &mut Page, pull: &Pull) {
    let took = units::micros(pull.elapsed_us);
    match &pull.error {
        None => {
            let from = pull.registry.as_deref().unwrap_or("its origin");
            let image = pull.image.as_deref().unwrap_or_default();
            page.field(
                "pulled",
                &[
                    Cell::styled(format!("in {took} from {from}"), style::GOOD),
                    Cell::styled(image, style::DIM),
                ],
            );
        }
        Some(error) => {
            let error = error.lines().collect::<Vec<_>>().join("; ");
            page.field(
                "pull failed",
                &[Cell::styled(format!("after {took}: {error}"), style::BAD)],
            );
        }
    }
}
