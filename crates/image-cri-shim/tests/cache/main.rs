//! The node cache, end to end: the binary between a real containerd and a real registry, killed and
//! restarted.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod circles;
mod commands;
mod cut;
mod deployment;
mod evicted;
mod killed;
mod layouts;
mod looks;
mod one_layer;
mod promises;
mod pulls;
mod sharing;
mod signed;
mod world;
