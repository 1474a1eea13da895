//! What commands print, and where to.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

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

/// Prints text with colours in it; without them where it goes to no terminal, or where `NO_COLOR` or
/// a dumb terminal says so.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    unless_gone(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Prints JSON for programs.
pub(crate) fn print_json(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut written = serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from);
    written = written
        .and_then(|()| writeln!(out))
        .and_then(|()| out.flush());
    unless_gone(written)
}

/// Who reads only the beginning, such as `head`, has what they wanted.
fn unless_gone(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Says something to people that is not the result.
pub(crate) fn say(text: &str) {
    // Who can't be told can't be told that either.
    let _ = writeln!(io::stderr(), "image-cri-shim: {text}");
}
