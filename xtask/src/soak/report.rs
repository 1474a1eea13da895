//! What the command prints: the schedule before, progress meanwhile, and the report at the end.

use std::fmt::Write as _;
use std::time::Duration;

use super::ledger::{Invariant, Ledger};
use super::processes::{Course, Life};
use super::schedule::Schedule;

/// The schedule, one event a line.
pub(crate) fn schedule(schedule: &Schedule) -> String {
    let lines = schedule.events.iter().map(ToString::to_string);
    lines.collect::<Vec<_>>().join("\n")
}

/// One line about a run that goes on.
pub(crate) fn progress(now: Duration, length: Duration, ledger: &Ledger) -> String {
    let (calls, failed) = ledger.totals();
    let broken: usize = ledger.broken.values().map(Vec::len).sum();
    let (now, length) = (now.as_secs(), length.as_secs());
    let events: usize = ledger.events.values().sum();
    format!(
        "{:>3}:{:02} of {}:{:02}  {calls} calls, {failed} failed that had to succeed; {events} events; {broken} breaches",
        now / 60,
        now % 60,
        length / 60,
        length % 60
    )
}

/// The report of a run.
pub(crate) fn report(seed: u64, length: Duration, ledger: &Ledger) -> String {
    let mut text = format!(
        "Soak of {} minutes, seed {seed}\n\nEVENTS\n",
        length.as_secs() / 60
    );
    for (kind, count) in &ledger.events {
        let _ = writeln!(text, "  {count:>5}  {kind}");
    }
    text.push_str("\nCALLS                              ok  excused   FAILED   required  median ms    p99 ms    max ms\n");
    for (call, outcomes) in &ledger.calls {
        let mut times = outcomes.succeeded_ms.clone();
        times.sort_unstable();
        let at = |percent: usize| {
            let index = times.len() * percent / 100;
            times
                .get(index.min(times.len().saturating_sub(1)))
                .copied()
                .unwrap_or(0)
        };
        let _ = writeln!(
            text,
            "  {call:<29} {:>6} {:>8} {:>8} {:>10} {:>10} {:>9} {:>9}",
            times.len(),
            outcomes.excused,
            outcomes.failed,
            outcomes.required,
            at(50),
            at(99),
            at(100),
        );
    }
    text.push_str(
        "  excused: what the call needed was disturbed at the time; required: it was not\n",
    );
    lives(&mut text, &ledger.lives);
    text.push_str("\nINVARIANTS\n");
    for invariant in Invariant::ALL {
        let (count, described) = ledger.breaches(invariant);
        let checks = ledger.checks.get(&invariant).copied().unwrap_or(0);
        let verdict = match (count, checks) {
            (0, 0) => "not judged: the run was too short",
            (0, _) => "pass",
            _ => "FAIL",
        };
        let _ = writeln!(
            text,
            "  {verdict:<4}  {}: {checks} checks, {count} breaches",
            invariant.text()
        );
        for breach in described {
            let _ = writeln!(text, "        {breach}");
        }
    }
    text
}

/// Processes that lived long enough to be judged, and the number of the others.
fn lives(text: &mut String, lives: &[Life]) {
    text.push_str(
        "\nPROCESSES                    minutes      first       last    highest    settled     at end\n",
    );
    let mut others = 0;
    for life in lives {
        if life.memory().settled.is_none() {
            others += 1;
            continue;
        }
        let minutes = life.length().as_secs_f64() / 60.0;
        for (what, course) in [
            ("RSS, KiB", life.memory()),
            ("descriptors", life.descriptors()),
            ("threads", life.threads()),
            ("pool of threads", life.pool()),
        ] {
            let Course {
                first,
                last,
                highest,
                settled,
                grows,
            } = course;
            if highest == 0 {
                continue;
            }
            let (settled, end) = settled.unwrap_or_default();
            let _ = writeln!(
                text,
                "  {:<8} {what:<15} {minutes:>9.1} {first:>10} {last:>10} {highest:>10} {settled:>10} {end:>10}{}",
                life.name,
                if grows { "  GROWS" } else { "" },
            );
        }
    }
    let _ = writeln!(
        text,
        "  {others} more processes lived too short to be judged. settled, at end: medians of memory, lowest\n  of counts, in the first and the last quarter of the time after the warm-up"
    );
}
