//! What somebody who waits at a terminal sees. Nothing is shown elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use policy::text::one_line;

use crate::commands::terminal;

/// How often a spinner turns.
const TICK_INTERVAL: Duration = Duration::from_millis(120);
/// Longest name beside a bar.
const MAX_NAME: usize = 60;

/// A bar or a spinner on standard error; gone when it is dropped.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// A bar for `total` images, where that is more than a handful.
    pub(super) fn bar(total: usize, handful: usize) -> Self {
        if total <= handful || !terminal::stderr_is_watched() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(total as u64);
        Self(styled(bar, "{bar:30} {pos} of {len}  {msg}"))
    }

    /// A spinner.
    pub(super) fn spinner() -> Self {
        if !terminal::stderr_is_watched() {
            return Self(ProgressBar::hidden());
        }
        let spinner = styled(ProgressBar::new_spinner(), "{spinner} {msg}");
        spinner.enable_steady_tick(TICK_INTERVAL);
        Self(spinner)
    }

    /// One more image is known.
    pub(super) fn one_done(&self, image: &str) {
        self.0.set_message(one_line(image, MAX_NAME));
        self.0.inc(1);
    }

    /// Says what goes on.
    pub(super) fn say(&self, text: &str) {
        self.0.set_message(one_line(text, 2 * MAX_NAME));
    }
}

/// The template is our own; where it were wrong, the default is fine.
fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("##-").tick_chars("-\\|/ ")),
        Err(_) => bar,
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
