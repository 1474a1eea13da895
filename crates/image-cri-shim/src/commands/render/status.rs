//! `status`: the running shim at a glance.

use std::time::SystemTime;

use telemetry::report::{
    BypassStatus, CacheStatus, ConfigStatus, Decision, LinkTarget, RegistryState, RegistryStatus,
    RuntimeStatus, Status,
};

use super::cell::Cell;
use super::page::Page;
use super::style;
use super::table::{Column, Row, Table};
use super::trail::{outcome, trail};
use super::units;

/// Adds all sections.
pub(crate) fn status(page: &mut Page, status: &Status, now: SystemTime) {
    page.line(&[
        Cell::styled(format!("image-cri-shim {}", status.version), style::HEAD),
        Cell::new(format!("up {}", units::seconds(status.uptime_seconds))),
        Cell::styled(
            format!("(since {})", units::when(&status.started_at)),
            style::DIM,
        ),
    ]);
    page.field("socket", &[Cell::new(&status.socket)]);
    let metrics = match &status.metrics_address {
        Some(address) => Cell::new(format!("http://{address}/")),
        None => Cell::styled("not served", style::WARN),
    };
    page.field("page, metrics", &[metrics]);
    runtime(page, &status.runtime);
    if let Some(seen) = &status.bypass {
        bypass(page, seen, now);
    }
    config(page, &status.config, now);
    if !status.restart_needed.is_empty() {
        let changed = status.restart_needed.join(", ");
        let text = format!(
            "needed: {changed} changed since systemd started the shim, and `systemctl restart image-cri-shim` brings that into force"
        );
        page.field("restart", &[Cell::styled(text, style::WARN)]);
    }
    page.section("Registries");
    if status.registries.is_empty() {
        page.field("", &[Cell::new("none: every pull goes to its origin")]);
    } else {
        page.table(&registries(&status.registries));
    }
    page.section("Caches");
    caches(page, &status.caches);
    if let Some(node_cache) = &status.node_cache {
        page.section("Node cache");
        super::node_cache(page, node_cache);
    }
    if !status.running.is_empty() {
        page.section("Pulls under way");
        page.table(&decisions(&status.running, now));
    }
    let (shown, total) = (status.decisions.len(), status.decisions_total);
    page.section(&match shown {
        0 => "No decisions yet".to_owned(),
        shown => format!("Last {shown} of {}", units::count(total, "decision")),
    });
    if shown > 0 {
        page.table(&decisions(&status.decisions, now));
    }
}

fn runtime(page: &mut Page, runtime: &RuntimeStatus) {
    let state = match runtime.reachable {
        true => Cell::new(&runtime.detail),
        false => Cell::styled(format!("does not answer: {}", runtime.detail), style::BAD),
    };
    page.field(
        "runtime",
        &[Cell::new(format!("{}:", runtime.socket)), state],
    );
}

fn bypass(page: &mut Page, bypass: &BypassStatus, now: SystemTime) {
    let led = |link| match link {
        LinkTarget::Bypass => "past the shim, to the runtime",
        LinkTarget::Nowhere => "nowhere",
        LinkTarget::Shim => "to the shim",
        LinkTarget::Elsewhere => "elsewhere, by a link that is not ours",
    };
    let mut cells = Vec::new();
    if bypass.link != LinkTarget::Shim {
        let since = match bypass.seconds {
            Some(seconds) => format!(", for {}", units::seconds(seconds)),
            None => String::new(),
        };
        let text = format!("kubelet is led {}{since};", led(bypass.link));
        cells.push(Cell::styled(text, style::BAD));
    }
    cells.push(Cell::new(match (bypass.periods, bypass.allowed) {
        (0, true) => "not used since the boot".to_owned(),
        (0, false) => "the config allows none".to_owned(),
        (periods, _) => format!(
            "used {} since the boot, for {}",
            units::count(periods, "time"),
            units::seconds(bypass.total_seconds)
        ),
    }));
    page.field("bypass", &cells);
    if let Some(last) = &bypass.last {
        let text = format!(
            "kubelet was led {}, for {}, until {} ({})",
            led(last.link),
            units::seconds(last.seconds),
            units::ago(&last.ended_at, now),
            units::when(&last.ended_at)
        );
        page.field("last time", &[Cell::styled(text, style::DIM)]);
    }
}

fn config(page: &mut Page, config: &ConfigStatus, now: SystemTime) {
    let state = format!(
        "generation {}, loaded {} ({})",
        config.generation,
        units::ago(&config.loaded_at, now),
        units::when(&config.loaded_at)
    );
    page.field(
        "config",
        &[Cell::new(format!("{}:", config.file)), Cell::new(state)],
    );
    let from = |origin: &str| {
        let parts = config.parts.iter().filter(|part| part.origin == origin);
        parts
            .map(|part| part.field.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    for (label, origin) in [("by ConfigMap", "ConfigMap"), ("by default", "default")] {
        let fields = from(origin);
        if !fields.is_empty() {
            page.field(label, &[Cell::styled(fields, style::DIM)]);
        }
    }
    if let Some(error) = &config.error {
        let in_force = match config.forwards_everything {
            true => "no config is in force, so every call is forwarded as it comes",
            false => "the last good config stays in force",
        };
        page.field(
            "config error",
            &[Cell::styled(
                format!("since {}; {in_force}", units::ago(&error.at, now)),
                style::BAD,
            )],
        );
        page.paragraph(&error.message);
    }
}

fn registries(registries: &[RegistryStatus]) -> Table {
    let table = Table {
        columns: vec![
            Column::right("PRIO"),
            Column::left("REGISTRY"),
            Column::left("STATE"),
            Column::right("LATENCY"),
            Column::right("ASKED").aside(),
            Column::right("HAD IT").aside(),
            Column::right("PULLS").aside(),
            Column::left("CREDENTIALS").aside(),
            Column::wrapping("DETAIL").aside(),
        ],
        key: 1,
        rows: registries.iter().map(registry).collect(),
    };
    table.without_empty_columns()
}

fn registry(registry: &RegistryStatus) -> Row {
    let mut details: Vec<String> = Vec::new();
    let (state, latency) = match registry.state {
        RegistryState::Unknown => (Cell::styled("not asked yet", style::DIM), Cell::empty()),
        RegistryState::Ok => (
            Cell::styled("ok", style::GOOD),
            Cell::new(units::micros(registry.latency_us)),
        ),
        RegistryState::CircuitOpen => {
            let retry = match registry.retry_in_ms.unwrap_or(0) {
                0 => "tried again now".to_owned(),
                rest => format!(
                    "tried again in {}",
                    units::micros(rest.saturating_mul(1000))
                ),
            };
            let failures = units::count(u64::from(registry.failures), "failure");
            details.push(format!("{retry}, {failures}"));
            details.push(registry.detail.clone());
            (Cell::styled("circuit open", style::BAD), Cell::empty())
        }
    };
    details.extend(registry.note.clone());
    let priority = registry.priority.map(|number| number.to_string());
    Row {
        mark: Cell::empty(),
        cells: vec![
            Cell::new(priority.unwrap_or_default()),
            Cell::new(&registry.address),
            state,
            latency,
            Cell::new(registry.probes.to_string()),
            Cell::new(registry.hits.to_string()),
            Cell::new(registry.pulls.to_string()),
            Cell::new(&registry.credentials),
            Cell::new(details.join("; ")),
        ],
    }
}

fn caches(page: &mut Page, caches: &CacheStatus) {
    let share = |hits: u64, misses: u64| {
        let all = hits.saturating_add(misses);
        match all {
            0 => "nothing asked yet".to_owned(),
            all => format!("{hits} of {all} from memory ({}%)", hits * 100 / all),
        }
    };
    page.field(
        "images",
        &[Cell::new(format!(
            "{}, {} proved wrong by a pull, {} pushed out",
            share(caches.image_hits, caches.image_misses),
            caches.invalidations,
            caches.image_evictions
        ))],
    );
    page.field(
        "registries",
        &[Cell::new(format!(
            "{}, {} pushed out",
            share(caches.domain_hits, caches.domain_misses),
            caches.domain_evictions
        ))],
    );
}

fn decisions(decisions: &[Decision], now: SystemTime) -> Table {
    let row = |decision: &Decision| {
        let took = decision.elapsed_us.map(units::micros);
        Row {
            mark: Cell::empty(),
            cells: vec![
                Cell::styled(units::ago(&decision.at, now), style::DIM),
                Cell::new(&decision.image),
                Cell::new(took.unwrap_or_default()),
                outcome(decision),
                Cell::styled(trail(decision), style::DIM),
            ],
        }
    };
    let table = Table {
        columns: vec![
            Column::left("WHEN"),
            Column::left("IMAGE"),
            Column::right("TOOK"),
            Column::wrapping("RESULT"),
            Column::wrapping("ASKED").aside(),
        ],
        key: 1,
        rows: decisions.iter().map(row).collect(),
    };
    table.without_empty_columns()
}

/// Says above the last known state that the shim doesn't answer, and since when.
pub(crate) fn away(page: &mut Page, why: &str, since: &str, is_known: bool) {
    page.line(&[Cell::styled(format!("{why} (for {since})"), style::BAD)]);
    if is_known {
        page.line(&[Cell::styled("what was known last:", style::DIM)]);
        page.space();
    } else {
        page.line(&[Cell::styled("waiting for it", style::DIM)]);
    }
}
