//! What the released binary shows at `metricsAddress`: its page in a real browser, and its metrics.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod look;
mod scrape;
mod world;
