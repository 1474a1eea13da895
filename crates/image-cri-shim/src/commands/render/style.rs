//! Colours, by what they mean. All of them are left out where nobody wants them, so nothing may be
//! said by colour alone.

use anstyle::{AnsiColor, Style};

pub(crate) const PLAIN: Style = Style::new();
/// What a block or section is about.
pub(crate) const HEAD: Style = Style::new().bold();
/// Beside the point, mostly.
pub(crate) const DIM: Style = Style::new().dimmed();
/// As it should be.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Worth a look.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
/// Broken.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
