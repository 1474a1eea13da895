//! The list of metrics, the dashboard and the alert rules speak of metrics that exist.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod exist;
mod files;
mod query;
