//! Text that is safe to print.

use std::fmt;

use anstyle::Style;
use unicode_width::UnicodeWidthStr;

use super::style;

/// A piece of one line, in one style. Holds no control characters.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self::styled(text, style::PLAIN)
    }

    pub(crate) fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self {
            text: clean(text.as_ref()),
            style,
        }
    }

    pub(crate) fn empty() -> Self {
        Self::new("")
    }

    /// Other text in the same style.
    pub(crate) fn with_text(&self, text: &str) -> Self {
        Self::styled(text, self.style)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Columns that it takes on a terminal.
    pub(crate) fn width(&self) -> usize {
        self.text.width()
    }

    /// The text in its style.
    pub(crate) fn painted(&self) -> String {
        let Self { text, style } = self;
        if style.is_plain() || text.is_empty() {
            text.clone()
        } else {
            format!("{style}{text}{style:#}")
        }
    }

    /// Its words on lines of at most `width` columns, each in the style. A word that is longer has a
    /// line of its own, so that it can still be copied whole.
    pub(crate) fn wrapped(&self, width: usize) -> Vec<Self> {
        let style = self.style;
        wrap(&self.text, width)
            .into_iter()
            .map(|text| Self { text, style })
            .collect()
    }
}

impl fmt::Display for Cell {
    /// Without the style.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Escapes what a terminal would act on, and what would turn the direction of text around.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || turns_or_breaks(c) {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

fn turns_or_breaks(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}' | '\u{feff}')
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut used = 0;
    for word in text.split(' ') {
        let wide = word.width();
        match lines.last_mut() {
            Some(line) if used + 1 + wide <= width => {
                line.push(' ');
                line.push_str(word);
                used += 1 + wide;
            }
            _ => {
                lines.push(word.to_owned());
                used = wide;
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_is_left() {
        assert_eq!(
            clean("a\u{1b}[2Jb\rc\nd\u{7f}\u{9b}e\u{202e}f"),
            "a\\u{1b}[2Jb\\rc\\nd\\u{7f}\\u{9b}e\\u{202e}f"
        );
        assert_eq!(clean("grüße 漢字 → ok"), "grüße 漢字 → ok");
    }

    #[test]
    fn words_are_wrapped_and_none_is_lost_or_cut() {
        assert_eq!(wrap("a bb ccc", 4), ["a bb", "ccc"]);
        assert_eq!(wrap("aaaaaaaa b", 3), ["aaaaaaaa", "b"]);
        assert_eq!(wrap("漢字 漢字", 5), ["漢字", "漢字"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
