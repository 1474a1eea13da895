//! A terminal's other screen, for a page that is shown anew in its place.

use std::io::{self, Write, stdout};

use anstream::ColorChoice;
use anstream::adapter::strip_str;

/// The other screen without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// The cursor, and the screen as it was.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_TO_LINE_END: &str = "\x1b[K";
const CLEAR_TO_END: &str = "\x1b[J";
/// Lines of a terminal that doesn't say how many it has.
const USUAL_HEIGHT: usize = 24;

/// The other screen, until this is dropped.
pub(crate) struct Screen {
    colors: bool,
}

impl Screen {
    /// Goes there.
    ///
    /// # Errors
    /// The terminal is gone, or can't be drawn on.
    pub(crate) fn enter() -> io::Result<Self> {
        if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
            return Err(io::Error::other("TERM is dumb, which can't be refreshed"));
        }
        let screen = Self {
            colors: anstream::AutoStream::choice(&stdout()) != ColorChoice::Never,
        };
        write(ENTER)?;
        Ok(screen)
    }

    /// Replaces what is shown. Without clearing all of it first, which would flicker.
    pub(crate) fn show(&self, text: &str) -> io::Result<()> {
        let size = terminal_size::terminal_size_of(stdout());
        let height = size
            .map_or(USUAL_HEIGHT, |(_, height)| usize::from(height.0))
            .max(2);
        let text = match self.colors {
            true => text.to_owned(),
            false => strip_str(text).to_string(),
        };
        write(&frame(&text, height))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where the terminal is gone, nothing is left to restore.
        let _ = write(LEAVE);
    }
}

/// `text` on `height` lines; what doesn't fit is said to be there.
fn frame(text: &str, height: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut frame = HOME.to_owned();
    let shown = if lines.len() > height {
        height - 1
    } else {
        lines.len()
    };
    for (at, line) in lines.iter().take(shown).enumerate() {
        if at > 0 {
            frame.push_str("\r\n");
        }
        frame.push_str(line);
        frame.push_str(CLEAR_TO_LINE_END);
    }
    let hidden = lines.len() - shown;
    if hidden > 0 {
        let said = format!("\r\n({hidden} more lines than this window has)");
        frame.push_str(&said);
        frame.push_str(CLEAR_TO_LINE_END);
    }
    frame.push_str(CLEAR_TO_END);
    frame
}

fn write(text: &str) -> io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fills_the_window_and_says_what_is_left_out() {
        assert_eq!(frame("a\nb\n", 2), "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
        assert_eq!(
            frame("a\nb\nc\n", 2),
            "\x1b[Ha\x1b[K\r\n(2 more lines than this window has)\x1b[K\x1b[J"
        );
    }
}
