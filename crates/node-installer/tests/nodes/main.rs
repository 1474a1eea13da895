//! Installers of several nodes before one API server.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod five;
mod interrupted;
mod world;
