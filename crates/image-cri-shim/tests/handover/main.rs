//! One shim takes over from another: under load, with programs that are broken, and with processes that die half-way.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod broken;
mod killed;
mod load;
mod state;
mod world;
