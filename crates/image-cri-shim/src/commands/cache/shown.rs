//! What a command's events look like.

use std::collections::HashMap;

use ::cache::control::{Command, Event, ImageRecord};
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use policy::text::one_line;
use telemetry::report::NodeCacheStatus;

use crate::commands::render::{self, Page};
use crate::commands::terminal;

/// Longest name beside a bar.
const MAX_NAME: usize = 48;

/// What has come so far.
#[derive(Default)]
pub(super) struct Shown {
    images: Vec<ImageRecord>,
    status: Option<NodeCacheStatus>,
    stdout_is_taken: bool,
    /// What all of it is about, where that is one file.
    source: Option<String>,
    bars: Bars,
    pub(super) done: Option<bool>,
}

impl Shown {
    /// Nothing yet. Where standard output is the result, what is said goes to standard error. `source` is what is
    /// read, which the cache has no name of.
    pub(super) fn beside(stdout_is_taken: bool, source: Option<String>) -> Self {
        Self {
            stdout_is_taken,
            source,
            ..Self::default()
        }
    }

    /// Prints what is printed as a whole.
    ///
    /// # Errors
    /// Standard output takes nothing.
    pub(super) fn print(&self, command: &Command, json: bool) -> std::io::Result<()> {
        match (command, &self.status) {
            (Command::Ls, _) if json => terminal::print_json(&self.images),
            (Command::Ls, _) => terminal::print(&table(&self.images)),
            (Command::Status, Some(status)) if json => terminal::print_json(status),
            (Command::Status, Some(status)) => {
                let mut page = Page::new(terminal::width());
                render::node_cache(&mut page, status);
                terminal::print(&page.into_text())
            }
            _ => Ok(()),
        }
    }

    /// Shows one more.
    pub(super) fn add(&mut self, event: Event) {
        match event {
            Event::Status(status) => self.status = Some(*status),
            // Only `resolve` asks for that.
            Event::Known(_) => {}
            Event::Image(image) => self.images.push(image),
            Event::Text(text) => self.bars.aside(|| match self.stdout_is_taken {
                true => terminal::say(&text),
                // A terminal that is gone ends nothing.
                false => drop(terminal::print(&format!("{text}\n"))),
            }),
            Event::Failed(why) => self.bars.aside(|| match &self.source {
                Some(source) => terminal::say(&format!("{source}: {why}")),
                None => terminal::say(&why),
            }),
            Event::Progress {
                image,
                bytes,
                total,
            } => self.bars.show(&image, bytes, total),
            Event::Verified(found) => {
                for digest in &found.damaged {
                    terminal::say(&format!("{digest} is damaged"));
                }
                for digest in &found.missing {
                    terminal::say(&format!("{digest} is missing"));
                }
                let text = format!(
                    "{} blobs, {}: {} damaged, {} missing\n",
                    found.checked,
                    HumanBytes(found.bytes),
                    found.damaged.len(),
                    found.missing.len()
                );
                let _ = terminal::print(&text);
            }
            Event::Done(done) => {
                self.bars.clear();
                self.done = Some(done);
            }
        }
    }
}

/// A bar for each image that is being fetched, on a standard error that somebody watches.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    by_image: HashMap<String, ProgressBar>,
}

impl Bars {
    fn show(&mut self, image: &str, bytes: u64, total: u64) {
        if !terminal::stderr_is_watched() {
            return;
        }
        if bytes >= total {
            if let Some(bar) = self.by_image.remove(image) {
                bar.finish_and_clear();
            }
            return;
        }
        let bar = self.by_image.entry(image.to_owned()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(total));
            bar.set_message(one_line(image, MAX_NAME));
            // The template is our own; where it were wrong, the default is fine.
            match ProgressStyle::with_template(
                "{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}  {msg}",
            ) {
                Ok(style) => bar.with_style(style.progress_chars("##-")),
                Err(_) => bar,
            }
        });
        bar.set_length(total);
        bar.set_position(bytes);
    }

    /// Prints something beside the bars.
    fn aside(&self, print: impl FnOnce()) {
        self.all.suspend(print);
    }

    fn clear(&mut self) {
        for (_, bar) in self.by_image.drain() {
            bar.finish_and_clear();
        }
    }
}

fn table(images: &[ImageRecord]) -> String {
    if images.is_empty() {
        return "no images\n".to_owned();
    }
    let mut text = String::new();
    for image in images {
        let name = match image.name.as_str() {
            "" => &image.digest,
            name => name,
        };
        let used = std::time::UNIX_EPOCH + std::time::Duration::from_secs(image.last_used);
        let used = humantime::format_rfc3339_seconds(used);
        let size = match image.incomplete {
            true => format!(
                "incomplete, {} of {}",
                HumanBytes(image.size),
                HumanBytes(image.total)
            ),
            false => HumanBytes(image.size).to_string(),
        };
        text.push_str(&format!("{name}\n  {size}, {}", image.digest));
        if !image.platforms.is_empty() {
            text.push_str(&format!(", {}", image.platforms.join(" ")));
        }
        text.push_str(&format!("\n  last used {used}"));
        if image.pinned {
            text.push_str(", pinned");
        }
        if !image.from.is_empty() {
            text.push_str(&format!(", from {}", image.from));
        }
        text.push('\n');
    }
    text
}
