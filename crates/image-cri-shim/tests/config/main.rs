//! The config's life in the real binary: reloads, the ConfigMap, Secrets. The API server and the
//! runtime are fakes, because they must fail, and change, on command.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod cache_beside;
mod cluster_away;
mod command;
mod killed;
mod reload;
mod sources;
mod sync;
mod under_load;
mod world;
