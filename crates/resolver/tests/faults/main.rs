//! Registries that are gone, slow, lying, rate-limited or half-synced, and what the resolver makes
//! of them. Requests are counted, not seconds.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod breaking;
mod memory;
mod mended;
mod misbehaviour;
mod one_bad_image;
mod setup;
mod sharing;
mod stuck;
