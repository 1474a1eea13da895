//! What commands print, and where to.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::commands::render;
pub(crate) use crate::stdout::print;
use crate::stdout::unless_gone;

/// Columns that a page may have: `COLUMNS` where it is set, else the terminal's; none where nobody
/// looks.
pub(crate) fn width() -> Option<usize> {
    let told = std::env::var("COLUMNS").ok();
    let told = told.and_then(|columns| columns.trim().parse().ok());
    told.filter(|columns| *columns > 0).or_else(|| {
        let size = terminal_size::terminal_size_of(io::stdout());
        size.map(|(width, _)| usize::from(width.0))
    })
}

/// Whether somebody looks at standard error while we work.
pub(crate) fn stderr_is_watched() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Prints JSON for programs.
pub(crate) fn print_json(value: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_string_pretty(value)?;
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{}", without_controls(&json));
    unless_gone(written.and_then(|()| out.flush()))
}

/// JSON's own rule leaves DEL and the C1 controls as they are, which some terminals act on. They can
/// only stand in strings.
fn without_controls(json: &str) -> String {
    let mut clean = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_control() && c != '\n' {
            clean.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            clean.push(c);
        }
    }
    clean
}

/// Says something to people that is not the result. What it quotes is shown as in a page.
pub(crate) fn say(text: &str) {
    let lines: Vec<String> = text.lines().map(render::clean).collect();
    // Who can't be told can't be told that either.
    let _ = writeln!(io::stderr(), "image-cri-shim: {}", lines.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_no_control_characters() {
        let json = serde_json::to_string(&["a\u{7f}\u{9b}b\u{1b}ü\n"]).unwrap();
        let clean = without_controls(&json);
        assert_eq!(clean, r#"["a\u007f\u009bb\u001bü\n"]"#);
        let back: Vec<String> = serde_json::from_str(&clean).unwrap();
        assert_eq!(back, ["a\u{7f}\u{9b}b\u{1b}ü\n"]);
    }
}
