//! `cargo xtask package`: what is in the packages, and what becomes of a node on which they are installed, upgraded and
//! removed.
//!
//! The packages are of the debug build, once for all tests. What only a release has, a static program, is checked by
//! `cargo xtask package` itself.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod contents;
mod deb;
mod image;
mod node;
mod rpm;
mod static_program;
mod world;
