//! The node cache: as a whole, and what it has of an image.

use indicatif::HumanBytes;
use telemetry::report::{Arriving, NodeCacheImage, NodeCacheStatus};

use super::cell::Cell;
use super::page::Page;
use super::style;
use super::table::{Column, Row, Table};
use super::units;

/// Adds what the cache does and has.
pub(crate) fn node_cache(page: &mut Page, status: &NodeCacheStatus) {
    let asked = status.hits + status.misses + status.stale + status.errors;
    let mut answers = vec![(
        match asked {
            0 => "nothing asked yet".to_owned(),
            asked => {
                let stored = status.hits + status.stale;
                let share = stored.saturating_mul(100) / asked;
                format!("{stored} of {asked} from the store ({share}%)")
            }
        },
        style::PLAIN,
    )];
    if status.stale > 0 {
        let text = format!("{} stale, because no registry answered", status.stale);
        answers.push((text, style::WARN));
    }
    if status.errors > 0 {
        let text = format!("{} without an image", status.errors);
        answers.push((text, style::WARN));
    }
    page.field("answers", &listed(answers));
    page.field(
        "bytes",
        &[Cell::new(format!(
            "{} sent, {} received from registries",
            HumanBytes(status.sent_bytes),
            HumanBytes(status.received_bytes)
        ))],
    );
    let holds = format!(
        "{}, {} of {} in {}",
        units::count(status.stored_images, "image"),
        HumanBytes(status.stored_bytes),
        HumanBytes(status.max_bytes),
        status.dir
    );
    let mut store = vec![(holds, style::PLAIN)];
    if status.evictions > 0 {
        let text = format!("{} had to go", status.evictions);
        store.push((text, style::DIM));
    }
    if status.passes_through {
        let text = "nothing can be stored at the moment; what is new passes through";
        store.push((text.to_owned(), style::BAD));
    }
    page.field("store", &listed(store));
    if status.arriving.is_empty() {
        page.field("arriving", &[Cell::styled("nothing", style::DIM)]);
    } else {
        page.table(&arriving(&status.arriving));
    }
}

/// Texts with commas between them.
fn listed(texts: Vec<(String, anstyle::Style)>) -> Vec<Cell> {
    let last = texts.len().saturating_sub(1);
    let texts = texts.into_iter().enumerate();
    let cells = texts.map(|(at, (text, style))| {
        let comma = if at < last { "," } else { "" };
        Cell::styled(format!("{text}{comma}"), style)
    });
    cells.collect()
}

fn arriving(blobs: &[Arriving]) -> Table {
    let row = |blob: &Arriving| Row {
        mark: Cell::empty(),
        cells: vec![
            Cell::new(units::digest(&blob.digest)),
            Cell::new(&blob.repository),
            Cell::new(share(blob)),
            Cell::styled(blob.from.clone().unwrap_or_default(), style::DIM),
        ],
    };
    Table {
        columns: vec![
            Column::left("ARRIVING"),
            Column::left("OF"),
            Column::right("THERE"),
            Column::wrapping("FROM").aside(),
        ],
        key: 0,
        rows: blobs.iter().map(row).collect(),
    }
}

fn share(blob: &Arriving) -> String {
    match blob.total {
        Some(total) => format!("{} of {}", HumanBytes(blob.bytes), HumanBytes(total)),
        None => HumanBytes(blob.bytes).to_string(),
    }
}

/// Adds what the cache has of an image.
pub(super) fn node_cache_image(page: &mut Page, image: &NodeCacheImage) {
    let Some(digest) = &image.digest else {
        page.field("node cache", &[Cell::styled("has not got it", style::DIM)]);
        return;
    };
    let mut has = format!("{}, {}", units::digest(digest), HumanBytes(image.bytes));
    if !image.platforms.is_empty() {
        has.push_str(&format!(", {}", image.platforms.join(" ")));
    }
    let state = match image.is_whole {
        true => Cell::styled("has it:", style::GOOD),
        false => Cell::styled("has a part of it:", style::WARN),
    };
    let mut said = vec![(has, style::PLAIN)];
    let mut more = Vec::new();
    if let Some(from) = &image.from {
        more.push(format!("from {from}"));
    }
    if let Some(at) = &image.confirmed_at {
        more.push(format!("confirmed {}", units::when(at)));
    }
    if image.pinned {
        more.push("pinned".to_owned());
    }
    if !more.is_empty() {
        said.push((more.join(", "), style::DIM));
    }
    let mut cells = vec![state];
    cells.extend(listed(said));
    page.field("node cache", &cells);
    for blob in &image.arriving {
        let from = blob.from.as_ref().map(|from| format!(" from {from}"));
        let text = format!(
            "{}, {}{}",
            units::digest(&blob.digest),
            share(blob),
            from.unwrap_or_default()
        );
        page.field("arriving", &[Cell::new(text)]);
    }
}
