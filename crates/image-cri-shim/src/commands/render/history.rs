//! `history`: decisions that were kept, newest first.

use std::time::SystemTime;

use telemetry::report::{Decision, Outcome};

use super::cell::Cell;
use super::page::Page;
use super::style;
use super::trail::{asked, failed, outcome};
use super::units;

/// Adds a block for each decision.
pub(crate) fn history(page: &mut Page, decisions: &[Decision], now: SystemTime) {
    for decision in decisions {
        page.space();
        page.line(&[
            Cell::styled(&decision.image, style::HEAD),
            Cell::styled(
                format!(
                    "{} ({})",
                    units::when(&decision.at),
                    units::ago(&decision.at, now)
                ),
                style::DIM,
            ),
        ]);
        let (label, word) = match decision.outcome {
            Outcome::Pulled { .. } => ("pulled", "in"),
            Outcome::Failed { .. } | Outcome::Cancelled => ("ended", "after"),
            Outcome::Running => ("under way", "for"),
        };
        let took = decision.elapsed_us.map(units::micros);
        let took = took.map_or_else(Cell::empty, |took| Cell::new(format!("{word} {took}")));
        page.field(label, &[outcome(decision), took]);
        if let Outcome::Pulled { image, .. } = &decision.outcome
            && *image != decision.image
        {
            page.field("as", &[Cell::new(image)]);
        }
        let asked = asked(decision);
        if !asked.is_empty() {
            page.field("asked", &[Cell::new(asked)]);
        }
        if let Some(resolved) = decision.resolved_us {
            let how = if decision.from_memory && !decision.candidates.is_empty() {
                ", from memory"
            } else {
                ""
            };
            page.field(
                "decided",
                &[Cell::new(format!("in {}{how}", units::micros(resolved)))],
            );
        }
        for pull in &decision.pulls {
            if let Some(failed) = failed(pull) {
                page.field("tried", &[Cell::styled(failed, style::WARN)]);
            }
        }
    }
}
