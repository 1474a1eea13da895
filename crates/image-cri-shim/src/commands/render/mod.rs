//! Reports as text for people: compact, aligned, and whole at any width of the terminal.
//!
//! | module | what it knows |
//! |---|---|
//! | [`mod@explanation`], [`mod@summary`] | `resolve` |
//! | [`mod@status`] | `status` |
//! | [`mod@history`] | `history` |
//! | [`mod@doctor`] | `doctor` |
//! | [`mod@node_cache`] | the node cache, in `status`, `resolve` and `cache status` |
//! | [`trail`] | a decision in one line |
//! | [`page`], [`table`] | lines, fields and tables, wide or narrow |
//! | [`cell`], [`style`] | text that is safe to print, and its colours |
//! | [`units`] | times and digests as people say them |
//!
//! Text gets into a page only as a [`cell::Cell`], which has no control characters: what a registry
//! answers can't move the cursor. Pages have colours in them; who prints them takes those out where
//! the terminal or the user wants none.

mod cell;
mod doctor;
mod explanation;
mod history;
mod node_cache;
mod page;
mod status;
mod style;
mod summary;
mod table;
mod trail;
mod units;

pub(crate) use cell::clean;
pub(crate) use doctor::doctor;
pub(crate) use explanation::explanation;
pub(crate) use history::history;
pub(crate) use node_cache::node_cache;
pub(crate) use page::Page;
pub(crate) use status::{away, status};
pub(crate) use summary::summary;
pub(crate) use units::duration;

#[cfg(test)]
mod tests;
