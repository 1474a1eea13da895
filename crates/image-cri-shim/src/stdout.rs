//! Standard output, which may be full or closed: that is an error like others, and no panic.

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::Context;

/// Prints text with colours in it; without them where it goes to no terminal, or where `NO_COLOR` or
/// a dumb terminal says so.
///
/// # Errors
/// It can't be written. That nobody reads any more is none.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    unless_gone(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Prints a line.
///
/// # Errors
/// As [`print()`].
pub(crate) fn line(text: impl Display) -> anyhow::Result<()> {
    print(&format!("{text}\n")).context("cannot write to standard output")
}

/// Who reads only the beginning, such as `head`, has what they wanted.
pub(crate) fn unless_gone(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
