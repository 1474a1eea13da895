//! What was measured, and what it should be.

use serde_json::{Value, json};

/// One line of the table.
struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    /// The largest value that is good; `None` for what is only reported.
    at_most: Option<f64>,
    /// The smallest value that is good.
    at_least: Option<f64>,
}

/// All rows, in the order in which they were measured.
#[derive(Default)]
pub(super) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// A value that should be at most `goal`.
    pub(super) fn value(
        &mut self,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        goal: Option<f64>,
    ) {
        self.push(Row {
            what: what.into(),
            value,
            unit,
            at_most: goal,
            at_least: None,
        });
    }

    /// A value that should be at least `goal`.
    pub(super) fn at_least(
        &mut self,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        goal: f64,
    ) {
        self.push(Row {
            what: what.into(),
            value,
            unit,
            at_most: None,
            at_least: Some(goal),
        });
    }

    /// Shown at once, too: what was measured is not lost with a run that ends early.
    fn push(&mut self, row: Row) {
        eprintln!("{}: {:.2} {}", row.what, row.value, row.unit);
        self.rows.push(row);
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.what.chars().count()).max();
        let width = width.unwrap_or(0);
        let mut table = String::new();
        for row in &self.rows {
            let value = match row.value {
                value if value >= 1000.0 => format!("{value:.0}"),
                value if value >= 100.0 => format!("{value:.1}"),
                value => format!("{value:.2}"),
            };
            let goal = match (row.at_most, row.at_least) {
                (Some(goal), _) => format!("goal ≤ {goal}: {}", verdict(row)),
                (_, Some(goal)) => format!("goal ≥ {goal}: {}", verdict(row)),
                _ => String::new(),
            };
            let line = format!("{:width$}  {value:>9} {:<8} {goal}", row.what, row.unit);
            table.push_str(line.trim_end());
            table.push('\n');
        }
        table
    }

    /// For machines.
    pub(super) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "what": row.what,
                "value": row.value,
                "unit": row.unit,
                "at_most": row.at_most,
                "at_least": row.at_least,
                "met": row.met(),
            })
        });
        Value::Array(rows.collect())
    }
}

impl Row {
    fn met(&self) -> Option<bool> {
        match (self.at_most, self.at_least) {
            (Some(goal), _) => Some(self.value <= goal),
            (_, Some(goal)) => Some(self.value >= goal),
            _ => None,
        }
    }
}

fn verdict(row: &Row) -> &'static str {
    match row.met() {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "",
    }
}
